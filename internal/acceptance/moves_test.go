package acceptance

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/mariadb"
	"github.com/doveadm-proxy/doveadm-proxy/internal/postgres"
)

var moveMails = flag.Int("move-mails", 5000, "mails of the mailbox that TestMigrate moves")

// fleet is proxies that share a database of moved users, in front of two shards
// that both know all users.
type fleet struct {
	t       *testing.T
	servers []*dovecot.Server
	proxies []*proxyProcess
	sockets []string // of the admin endpoints
}

// fleetBinary is without the race detector: how long users are on hold counts.
var fleetBinary = plain

// startFleet starts n proxies with the moves block. Users are on s1 by a route.
func startFleet(t *testing.T, n int, moves string, users ...string) *fleet {
	t.Helper()
	f := &fleet{t: t}
	for _, name := range []string{"mail1", "mail2"} {
		// Each backend logs in at the other one with its own password.
		f.servers = append(f.servers, dovecottest.Start(t, dovecot.Options{Name: name, Users: users, Password: "between-backends"}))
	}
	for range n {
		dir := t.TempDir()
		f.sockets = append(f.sockets, "unix:"+filepath.Join(dir, "admin.sock"))
		f.proxies = append(f.proxies, startProxy(t, fleetBinary, func(addr string) string {
			var b strings.Builder
			fmt.Fprintf(&b, "listener \"main\" {\n  address = %q\n}\nclient \"doveadm\" {\n  password = \"{PLAIN}%s\"\n}\n", addr, clientPassword)
			for i, s := range f.servers {
				fmt.Fprintf(&b, "shard \"s%d\" {\n  backend %q {\n    address = %q\n    password = %q\n  }\n}\n", i+1, s.Name, s.Addr, s.Password)
			}
			fmt.Fprintf(&b, "route \"match\" {\n  users = [\"*\"]\n  shard = \"s1\"\n}\nadmin {\n  address = \"unix:%s/admin.sock\"\n  state_file = \"%s/operator.json\"\n}\nlog {\n  level = \"debug\"\n}\n%s\n", dir, dir, moves)
			return b.String()
		}))
	}
	return f
}

// user runs a "user" command at a proxy and returns what it prints and its exit
// code.
func (f *fleet) user(at int, args ...string) (out string, code int) {
	f.t.Helper()
	return runBinary(f.t, fleetBinary, nil, append(append([]string{"user"}, args...), "--admin", f.sockets[at])...)
}

// moved runs a "user" command that has to work.
func (f *fleet) moved(at int, args ...string) string {
	f.t.Helper()
	out, code := f.user(at, args...)
	if code != 0 {
		f.t.Fatalf("user %q: exit code %d\n%s", args, code, out)
	}
	return out
}

// dial opens a client connection to a proxy.
func (f *fleet) dial(at int) *doveadm.ClientConn {
	f.t.Helper()
	c, err := doveadm.Dial(f.t.Context(), f.proxies[at].Addr, doveadm.ClientOptions{Password: clientPassword, Minor: doveadm.MaxMinor})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

// backendOf returns the backend that a proxy sends a command of the user to.
func (f *fleet) backendOf(at int, user string) string {
	f.t.Helper()
	var u admin.User
	if err := json.Unmarshal([]byte(f.moved(at, "show", user, "--json")), &u); err != nil {
		f.t.Fatal(err)
	}
	return u.Backends[0]
}

// TestMoveThreeProxies moves a user back and forth between shards, by one proxy
// after the other, while clients of all three create mailboxes: a command that
// ran on the old shard after the switch leaves a mailbox there that is missing
// on the other.
func TestMoveThreeProxies(t *testing.T) {
	t.Parallel()
	for _, database := range []string{"postgres", "mariadb", "sqlite"} {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			f := startFleet(t, 3, movesBlock(t, database), "u1", "u2")
			stop := make(chan struct{})
			var wg sync.WaitGroup
			var longest atomic.Int64
			for at := range f.proxies {
				for range 2 {
					c := f.dial(at)
					wg.Go(func() {
						for n := 0; ; n++ {
							select {
							case <-stop:
								return
							default:
							}
							begin := time.Now()
							if _, err := runCommand(t.Context(), c, "u1", "mailbox list"); err != nil {
								t.Errorf("proxy %d: %v", at, err)
								return
							}
							if took := int64(time.Since(begin)); took > longest.Load() {
								longest.Store(took)
							}
						}
					})
				}
			}
			const rounds = 6
			var held []string
			for round := range rounds {
				to := fmt.Sprintf("s%d", 2-round%2)
				out := f.moved(round%3, "move", "u1", to, "--max-hold", "9s")
				held = append(held, heldPattern.FindString(out))
				for at := range f.proxies {
					eventually(t, "seen by all proxies", func() bool { return f.backendOf(at, "u1") == "mail"+to[1:] })
					if got := f.backendOf(at, "u2"); got != "mail1" {
						t.Errorf("another user is on %s", got)
					}
				}
			}
			close(stop)
			wg.Wait()
			t.Logf("%s, the longest command took %s", held, time.Duration(longest.Load()).Round(time.Millisecond))
			f.judgeOrder("u1")

			if out := f.moved(1, "list"); !strings.HasPrefix(out, "u1\ts1\t") || strings.Count(out, "\n") != 1 {
				t.Errorf("list: %q", out)
			}
			if out := f.moved(2, "forget", "u1"); !strings.Contains(out, "moved in") {
				t.Errorf("forget: %q", out)
			}
			if out := f.moved(2, "list"); out != "" {
				t.Errorf("list after forget: %q", out)
			}
		})
	}
}

var heldPattern = regexp.MustCompile(`wait for [0-9.]+ s`)

// movesBlock returns the block for a database, which it starts.
func movesBlock(t *testing.T, database string) string {
	t.Helper()
	switch database {
	case "postgres":
		s, err := postgres.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return fmt.Sprintf("moves {\n  driver = \"postgres\"\n  dsn = %q\n}\n", s.DSN())
	case "mariadb":
		s, err := mariadb.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return fmt.Sprintf("moves {\n  driver = \"mysql\"\n  dsn = %q\n}\n", s.DSN())
	}
	return fmt.Sprintf("moves {\n  path = \"%s/moves.db\"\n}\n", t.TempDir())
}

// judgeOrder checks, by the logs of the proxies, that the commands of the user
// that ran on one backend and those that ran on the other did not overlap in
// time. All run on one machine, with one clock.
func (f *fleet) judgeOrder(user string) {
	f.t.Helper()
	type span struct {
		begin, end time.Time
		backend    string
	}
	var spans []span
	line := regexp.MustCompile(`^(\S+) .* command: .*user=` + user + ` .*backend=(mail\d) wait_ms=([0-9.]+) duration_ms=([0-9.]+)`)
	for _, p := range f.proxies {
		for text := range strings.Lines(p.Log()) {
			m := line.FindStringSubmatch(text)
			if m == nil {
				continue
			}
			end, err := time.Parse("2006-01-02T15:04:05.000Z0700", m[1])
			if err != nil {
				f.t.Fatal(err)
			}
			var wait, took float64
			fmt.Sscan(m[3], &wait)
			fmt.Sscan(m[4], &took)
			// The log has milliseconds, rounded down.
			ran := time.Duration((took - wait) * float64(time.Millisecond))
			spans = append(spans, span{end.Add(time.Millisecond - ran), end, m[2]})
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.begin.Compare(b.begin) })
	changes := 0
	latest := map[string]time.Time{}
	for i, s := range spans {
		other := map[string]string{"mail1": "mail2", "mail2": "mail1"}[s.backend]
		if s.begin.Before(latest[other]) {
			f.t.Errorf("a command on %s began %s before one on %s had ended", s.backend, latest[other].Sub(s.begin), other)
		}
		if s.end.After(latest[s.backend]) {
			latest[s.backend] = s.end
		}
		if i > 0 && spans[i-1].backend != s.backend {
			changes++
		}
	}
	f.t.Logf("%d commands, the backend changed %d times", len(spans), changes)
	if len(spans) < 50 || changes < 4 {
		f.t.Errorf("%d commands and %d changes show nothing", len(spans), changes)
	}
}

// TestMigrate moves a mailbox of 5,000 mails between real shards while clients
// append to it and read it: nothing is lost, nothing is there twice, and nobody
// has to wait for longer than max_hold.
func TestMigrate(t *testing.T) {
	t.Parallel()
	const maxHold = 2 * time.Second
	f := startFleet(t, 1, strings.Replace(movesBlock(t, "sqlite"), "{", "{\n  hold_timeout = \"60s\"", 1), "u1")
	near, far := f.servers[0], f.servers[1]
	var mails [][]byte
	for i := range *moveMails {
		mails = append(mails, dovecot.Message("u1", fmt.Sprintf("old %d", i)))
	}
	if err := near.SaveMail("u1", "INBOX", mails...); err != nil {
		t.Fatal(err)
	}
	if err := near.SaveMail("u1", "Archive", dovecot.Message("u1", "archived")); err != nil {
		t.Fatal(err)
	}
	// The other shard has something from an earlier time.
	if err := far.SaveMail("u1", "Stale", dovecot.Message("u1", "stale")); err != nil {
		t.Fatal(err)
	}

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var saved, read int
	var longest time.Duration
	timed := func(do func() error) bool {
		begin := time.Now()
		if err := do(); err != nil {
			t.Error(err)
			return false
		}
		longest = max(longest, time.Since(begin))
		return true
	}
	appender, reader := f.dial(0), f.dial(0)
	var readLongest time.Duration
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			message := dovecot.Message("u1", fmt.Sprintf("new %d", saved))
			if !timed(func() error { return saveMail(t.Context(), appender, "u1", message) }) {
				return
			}
			saved++
		}
	})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			begin := time.Now()
			if _, err := runCommand(t.Context(), reader, "u1", "mailbox status", "messages", "INBOX"); err != nil {
				t.Errorf("read: %v", err)
				return
			}
			readLongest = max(readLongest, time.Since(begin))
			read++
		}
	})
	out, code := f.user(0, "migrate", "u1", "s2", "--json")
	for try := 0; code == 75 && strings.Contains(out, "max_hold") && try < 2; try++ {
		t.Logf("rolled back, as it has to be:\n%s", out)
		out, code = f.user(0, "migrate", "u1", "s2", "--json")
	}
	bound := maxHold
	if code == 75 && strings.Contains(out, "max_hold") {
		// A machine that does many other things: what is copied can be judged
		// all the same.
		t.Logf("this machine is too busy to copy within %s", maxHold)
		bound = 30 * time.Second
		out, code = f.user(0, "migrate", "u1", "s2", "--json", "--max-hold", bound.String())
	}
	if code != 0 {
		t.Errorf("migrate: exit code %d\n%s", code, out)
	}
	var result *admin.MoveResult
	for line := range strings.Lines(out) {
		var step admin.MoveStep
		if err := json.Unmarshal([]byte(line), &step); err != nil {
			t.Fatal(err)
		}
		if step.Result != nil {
			result = step.Result
		} else {
			t.Log(step.Step, step.Detail)
		}
	}
	time.Sleep(200 * time.Millisecond) // some more on the new shard
	close(stop)
	wg.Wait()
	if result == nil {
		t.Fatalf("no result: %s", out)
	}
	t.Logf("held for %.0f ms of %.0f ms; %d mails were saved and %d commands read meanwhile; the longest save took %s, the longest read %s",
		result.HeldMS, result.TotalMS, saved, read, longest, readLongest)
	if held := time.Duration(result.HeldMS * float64(time.Millisecond)); held > bound {
		t.Errorf("held for %s, max_hold is %s", held, bound)
	}
	if got := f.backendOf(0, "u1"); got != "mail2" {
		t.Fatalf("the user is on %s", got)
	}

	// Each mail once, with its own text, on the new shard.
	var got []string
	c := f.dial(0)
	subjects, err := runCommand(t.Context(), c, "u1", "fetch", "hdr.subject", "mailbox", "INBOX")
	if err != nil {
		t.Fatal(err)
	}
	got = subjects
	var want []string
	for i := range *moveMails {
		want = append(want, fmt.Sprintf("old %d", i))
	}
	for i := range saved {
		want = append(want, fmt.Sprintf("new %d", i))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d mails are there, %d should be", len(got), len(want))
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("the first difference: %q is there, %q should be", got[i], want[i])
			}
		}
	}
	boxes, err := runCommand(t.Context(), c, "u1", "mailbox list")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(boxes)
	if !slices.Equal(boxes, []string{"Archive", "INBOX"}) {
		t.Errorf("mailboxes %q", boxes)
	}
	// The old copy is still there.
	r, err := near.Doveadm(t.Context(), "-f", "flow", "mailbox", "status", "-u", "u1", "messages", "INBOX")
	if err != nil || !strings.Contains(r.Stdout, "messages=") {
		t.Errorf("the old copy: %v, %+v", err, r)
	}
}

// TestMigrateRollsBack: with a copy that cannot be made, or a hold that would be
// too long, the user stays where it is, and commands go on.
func TestMigrateRollsBack(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 1, movesBlock(t, "sqlite"), "u1")
	if err := f.servers[0].SaveMail("u1", "INBOX", dovecot.Message("u1", "one")); err != nil {
		t.Fatal(err)
	}
	fails := func(what, words string, args ...string) {
		t.Helper()
		out, code := f.user(0, append([]string{"migrate", "u1", "s2"}, args...)...)
		if code != 75 || !strings.Contains(out, words) {
			t.Errorf("%s: exit code %d, %s", what, code, out)
		}
		if got := f.backendOf(0, "u1"); got != "mail1" {
			t.Errorf("%s: the user is on %s", what, got)
		}
		if code, logs := status(t, f.proxies[0].Addr, "u1", "mailbox list"); code != "+" {
			t.Errorf("%s: status %s, %q", what, code, logs)
		}
	}
	fails("a hold of a millisecond", "max_hold", "--max-hold", "1ms")
	if err := f.servers[1].Stop(); err != nil {
		t.Fatal(err)
	}
	fails("the other shard is down", "cannot reach the other backend")
	if err := f.servers[1].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out, code := f.user(0, "move", "u1", "s9"); code != 1 || !strings.Contains(out, `no shard has this name: "s9"`) {
		t.Errorf("an unknown shard: exit code %d, %s", code, out)
	}
	if out, code := f.user(0, "forget", "u1"); code != 1 || !strings.Contains(out, "no exception") {
		t.Errorf("forget: exit code %d, %s", code, out)
	}
	f.moved(0, "migrate", "u1", "s2", "--max-hold", "30s")
	if got := f.backendOf(0, "u1"); got != "mail2" {
		t.Errorf("the user is on %s", got)
	}
	// Who asks the configuration without the proxy is told the same.
	path, err := fleetBinary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), path, "route", "--config", f.proxies[0].Config, "u1").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "u1: shard s2, backend mail2 ") {
		t.Errorf("route: %v, %s", err, out)
	}
}

// saveMail runs save, with a mail as its input.
func saveMail(ctx context.Context, c *doveadm.ClientConn, user string, mail []byte) error {
	if err := c.Send(&doveadm.Command{User: user, Name: "save"}); err != nil {
		return err
	}
	w := doveadm.NewInputWriter(c.NetConn())
	if _, err := w.Write(mail); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	var scan doveadm.ReplyScanner
	var logs strings.Builder
	for !scan.Done() {
		chunk, err := c.ReadChunk()
		if err != nil {
			return err
		}
		switch chunk.Channel {
		case doveadm.ChannelReply:
			scan.Scan(chunk.Data)
		case doveadm.ChannelLog:
			logs.Write(chunk.Data)
		}
	}
	if !scan.Status().OK {
		return fmt.Errorf("save: %s %s", scan.Status(), &logs)
	}
	return nil
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not %s", what)
		}
	}
}
