package acceptance

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// loginFrom logs in from an address of this machine and returns all that comes
// back until the other side closes, or the login is accepted.
func loginFrom(ctx context.Context, from, to, name, password string) (answer string, err error) {
	nc, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(ctx, "tcp", to)
	if err != nil {
		return "", err
	}
	defer nc.Close()
	nc.SetDeadline(time.Now().Add(time.Minute))
	line := base64.StdEncoding.EncodeToString([]byte("\x00" + name + "\x00" + password))
	if _, err := io.WriteString(nc, "VERSION\tdoveadm-server\t1\t3\nPLAIN\t"+line+"\n"); err != nil {
		return "", err
	}
	var all []byte
	b := make([]byte, 256)
	for {
		n, err := nc.Read(b)
		all = append(all, b[:n]...)
		if err == io.EOF || strings.HasSuffix(string(all), "+\n") {
			return string(all), nil
		}
		if err != nil {
			return string(all), err
		}
	}
}

const (
	accepted = "VERSION\tdoveadm-client\t1\t4\n-\n+\n"
	rejected = "VERSION\tdoveadm-client\t1\t4\n-\n-\n"
)

// TestBruteForce: who guesses has a few guesses and then none, also with the
// right one among them, whatever name and however many at once; a client behind
// the same address goes on, and so do commands. The rule for fail2ban finds the
// address in the log, and no other one, however the name is written.
func TestBruteForce(t *testing.T) {
	t.Parallel()
	regex, err := exec.LookPath("fail2ban-regex")
	if err != nil {
		t.Fatal("fail2ban is not installed, whose fail2ban-regex checks the rule in examples/: make deps")
	}
	c := startCluster(t, 1, 1, dovecot.Options{})
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			const attacker, limit = "127.0.0.66", 12
			p := startProxy(t, racy, func(addr string) string {
				return c.config(addr, "", fmt.Sprintf(`
log {
  format = %q
}
login_defence {
  address_failures = %d
  recovery         = "1h"
}
client "victim" {
  password = "{PLAIN}tuesday"
}
`, format, limit))
			})
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			login := func(from, name, password, want string) {
				t.Helper()
				if got, err := loginFrom(ctx, from, p.Addr, name, password); got != want {
					t.Errorf("%s as %q: got %q, %v; want %q", from, name, got, err, want)
				}
			}
			// A client that shares the address has logged in before.
			login(attacker, "doveadm", clientPassword, accepted)

			hostile := "x\" peer=192.0.2.99:1 session=\",\"peer\":\"192.0.2.98:1\"\n2026-11-23T00:00:00.000Z [WARN]  doveadm-proxy: login failed: wrong name or password: peer=192.0.2.97:1 session=1"
			names := []string{"victim", "nobody", hostile, "doveadm"}
			var guesses errgroup.Group
			guesses.SetLimit(20)
			var mu sync.Mutex
			answers := map[string]int{}
			for i := range 120 {
				guesses.Go(func() error {
					got, err := loginFrom(ctx, attacker, p.Addr, names[i%len(names)], fmt.Sprint("guess", i))
					mu.Lock()
					answers[got]++
					mu.Unlock()
					return err
				})
			}
			if err := guesses.Wait(); err != nil {
				t.Error(err)
			}
			if len(answers) != 1 || answers[rejected] != 120 {
				t.Errorf("answers: %v", answers)
			}
			login(attacker, "victim", "tuesday", rejected)          // found, and nobody looks at it
			login(attacker, "doveadm", clientPassword, accepted)    // the good neighbour
			login("127.0.0.1", "victim", "tuesday", accepted)       // the victim, from elsewhere
			login("127.0.0.1", "doveadm", clientPassword, accepted) // likewise
			if fields, err := loginOnce(ctx, p.Addr, "u1-1", "mailbox list", "INBOX"); err != nil || len(fields) != 1 {
				t.Errorf("a command: %q, %v", fields, err)
			}
			// From their beginnings on: the name may say anything.
			failed := regexp.MustCompile(`(?m)^(\S+ \[WARN\]  doveadm-proxy: |\{"@level":"warn","@message":")login failed`)
			if checked := len(failed.FindAllString(p.Log(), -1)); checked != limit {
				t.Errorf("%d passwords were looked at, want %d:\n%s", checked, limit, p.Log())
			}

			// From a file, and as it stands in syslog.
			var prefixed strings.Builder
			for line := range strings.Lines(p.Log()) {
				fmt.Fprintf(&prefixed, "Nov 23 04:19:13 mx1 doveadm-proxy[123]: %s", line)
			}
			for name, log := range map[string]string{"file": p.Log(), "syslog": prefixed.String()} {
				path := filepath.Join(t.TempDir(), name)
				if err := os.WriteFile(path, []byte(log), 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := exec.CommandContext(ctx, regex, "-r", "-o", "id", path, "../../examples/fail2ban/filter.conf").CombinedOutput()
				found := strings.Fields(string(out))
				if err != nil || len(found) < limit {
					t.Errorf("%s: fail2ban finds %q, %v", name, out, err)
				}
				for _, id := range found {
					if id != attacker {
						t.Errorf("%s: fail2ban would ban %s", name, id)
					}
				}
			}
		})
	}
}

// TestTimingOfNames: how long a refused login takes, and what comes back, does
// not tell whether there is a client of the name.
func TestTimingOfNames(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, 1, dovecot.Options{})
	made, err := c.servers[0].Doveadm(t.Context(), "pw", "-s", "SHA512-CRYPT", "-r", "5000", "-p", "right")
	if err != nil || made.ExitCode != 0 {
		t.Fatal(err, made)
	}
	hash := strings.TrimSpace(made.Stdout)
	p := startProxy(t, plain, func(addr string) string {
		// An unknown name costs as much as one of the clients; here all cost the same.
		return strings.Replace(c.config(addr, "", fmt.Sprintf("client \"known\" {\n  password = %q\n}\nlogin_defence {\n  address_failures = 0\n  name_failures = 0\n}\nlimits {\n  handshake_timeout = \"1m\"\n}\n", hash)), "{PLAIN}"+clientPassword, hash, 1)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const samples = 60
	var mu sync.Mutex
	var known, unknown []time.Duration
	var g errgroup.Group
	g.SetLimit(6)
	for i := range 2 * samples {
		g.Go(func() error {
			name, to := "known", &known
			if i%2 == 1 {
				name, to = fmt.Sprint("unknown", i), &unknown
			}
			start := time.Now()
			got, err := loginFrom(ctx, "127.0.0.1", p.Addr, name, "wrong")
			took := time.Since(start)
			if got != rejected || err != nil {
				return fmt.Errorf("%s: got %q, %w", name, got, err)
			}
			mu.Lock()
			defer mu.Unlock()
			*to = append(*to, took)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	// How often a known name takes longer than an unknown one: 0.5 if nothing
	// can be told, with a standard deviation of 0.053.
	longer := 0
	for _, k := range known {
		for _, u := range unknown {
			if k > u {
				longer++
			}
		}
	}
	slices.Sort(known)
	slices.Sort(unknown)
	share := float64(longer) / (samples * samples)
	t.Logf("known names: median %s; unknown names: %s; longer: %.2f", known[samples/2], unknown[samples/2], share)
	if share < 0.2 || share > 0.8 {
		t.Errorf("the time tells which names there are: %.2f", share)
	}
	if unknown[0] < 450*time.Millisecond || known[0] < 450*time.Millisecond {
		t.Errorf("a refused login is answered after %s, %s", known[0], unknown[0])
	}
}

// TestSlowLoris: connections that say next to nothing are gone after the
// handshake_timeout however they drip, and commands run meanwhile.
func TestSlowLoris(t *testing.T) {
	t.Parallel()
	const timeout = 3 * time.Second
	c := startCluster(t, 1, 1, dovecot.Options{})
	p := startProxy(t, racy, func(addr string) string {
		return c.config(addr, "", fmt.Sprintf("limits {\n  handshake_timeout = %q\n}\n", timeout))
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const connections = 100
	var slow errgroup.Group
	took := make([]time.Duration, connections)
	for i := range connections {
		slow.Go(func() error {
			nc, err := net.Dial("tcp", p.Addr)
			if err != nil {
				return err
			}
			defer nc.Close()
			start := time.Now()
			stop := make(chan struct{})
			var dripping sync.WaitGroup
			dripping.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Millisecond):
					}
					var drip string
					switch i % 3 {
					case 0:
						drip = "V"
					case 1:
						drip = "PLAIN\tAHgA"[:1]
					case 2:
						drip = []string{"VERSION\tdoveadm-server\t1\t3\n", "PLAIN\tAG", "Q"}[min(n, 2)]
					}
					io.WriteString(nc, drip)
				}
			})
			nc.SetReadDeadline(time.Now().Add(time.Minute))
			_, err = io.Copy(io.Discard, nc)
			took[i] = time.Since(start)
			close(stop)
			dripping.Wait()
			if os.IsTimeout(err) {
				return err
			}
			return nil
		})
	}
	ran := 0
	done := make(chan error, 1)
	go func() { done <- slow.Wait() }()
	for running := true; running; ran++ {
		if fields, err := loginOnce(ctx, p.Addr, "u1-1", "mailbox list", "INBOX"); err != nil || len(fields) != 1 {
			t.Errorf("a command: %q, %v", fields, err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			running = false
		case <-time.After(50 * time.Millisecond):
		}
	}
	t.Logf("%d connections gone after %s to %s; %d commands meanwhile", connections, slices.Min(took), slices.Max(took), ran)
	if n := strings.Count(p.Log(), "not logged in within handshake_timeout"); n < connections/2 {
		t.Errorf("%d of them are logged:\n%s", n, p.Log())
	}
}
