package acceptance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// recorder keeps what is read from a connection.
type recorder struct {
	net.Conn
	read bytes.Buffer
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.read.Write(p[:n])
	return n, err
}

// record returns the bytes of a server's reply.
func record(t *testing.T, s *dovecot.Server, minor doveadm.Minor, user, name string, args ...string) []byte {
	t.Helper()
	nc, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	r := &recorder{Conn: nc}
	client, err := doveadm.NewClientConn(r, doveadm.ClientOptions{Password: s.Password, Minor: minor})
	if err != nil {
		t.Fatal(err)
	}
	r.read.Reset()
	if _, err := runCommand(t.Context(), client, user, name, args...); err != nil {
		t.Fatal(err)
	}
	return r.read.Bytes()
}

// cutCase is a command whose reply is cut.
type cutCase struct {
	format  string // of the command line; empty: the command's own
	name    string
	args    []string
	columns int // of a row, with the user name
}

var cutCases = []cutCase{
	{"", "quota get", nil, 6}, // a table, with which doveadm crashes if a column is missing
	{"json", "quota get", nil, 6},
	{"", "fetch", []string{"uid hdr.subject", "all"}, 3},
	{"json", "mailbox status", []string{"all", "*"}, 11},
	{"", "mailbox status", []string{"messages vsize", "*"}, 4},
}

// cutUser is the user whose reply is cut behind n bytes.
func cutUser(n int) string { return fmt.Sprintf("cut-%03d", n) }

// TestCommandSurvivesEveryCut: the reply of a real backend is cut at every
// byte, for another user each, and the command of each version prints whole
// rows, says what happened and ends in a failure.
func TestCommandSurvivesEveryCut(t *testing.T) {
	t.Parallel()
	const positions = 180 // more than any reply has bytes
	c := &cluster{t: t, dir: t.TempDir()}
	users := make([]string, positions)
	for n := range users {
		users[n] = cutUser(n)
	}
	for _, version := range dovecot.Versions() {
		s := dovecottest.Start(t, dovecot.Options{Version: version, Users: users})
		for i := range 2 {
			if err := s.SaveMail(users[0], "INBOX", dovecot.Message("x", fmt.Sprintf("mail %d", i))); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.SaveMail(users[0], "Sent", dovecot.Message("x", "sent")); err != nil {
			t.Fatal(err)
		}
		c.servers = append(c.servers, s)
	}
	for i, minor := range []doveadm.Minor{doveadm.MinorSTARTTLS, doveadm.MinorExtraFields} {
		s := c.servers[i]
		t.Run("backend "+string(s.Version), func(t *testing.T) {
			t.Parallel()
			var reply atomic.Pointer[[]byte] // that is cut
			backend := doveadmtest.NewServer(t, doveadmtest.Options{
				Minor: minor, Password: s.Password,
				Handler: func(c *doveadmtest.Conn, cmd *doveadm.Command) {
					var n int
					fmt.Sscanf(cmd.User, "cut-%d", &n)
					whole := *reply.Load()
					c.Raw(whole[:min(n, len(whole))])
					if n < len(whole) {
						c.Cut()
					}
				},
			})
			p := startProxy(t, racy, func(addr string) string {
				return fmt.Sprintf(`
listener "main" {
  address = %q
}
client "doveadm" {
  password = "{PLAIN}%s"
}
shard "s1" {
  backend "mail1" {
    address = %q
    password = %q
    breaker {
      failures = 1000000
    }
  }
}
`, addr, clientPassword, backend.Addr(), s.Password)
			})
			for _, tt := range cutCases {
				recorded := record(t, s, minor, users[0], tt.name, tt.args...)
				t.Logf("%s: %d bytes", tt.name, len(recorded))
				if len(recorded) >= positions {
					t.Fatalf("%s: %d bytes, and %d users", tt.name, len(recorded), positions)
				}
				reply.Store(&recorded)
				for _, version := range dovecot.Versions() {
					tt.run(t, c, version, p.Addr, len(recorded), positions)
					if tt.name == "quota get" && tt.format == "" {
						tt.runAlone(t, c, version, p.Addr, len(recorded))
					}
				}
			}
		})
	}
}

// run runs the command for all users.
func (tt *cutCase) run(t *testing.T, c *cluster, version dovecot.Version, addr string, size, positions int) {
	t.Helper()
	var options []string
	if tt.format != "" {
		options = []string{"-f", tt.format}
	}
	r := dovecottest.Run(t, c.client(version, addr, clientPassword, options...), tt.name, append([]string{"-A"}, tt.args...)...)
	name := fmt.Sprintf("command of %s, %s %s", version, tt.name, tt.format)
	if r.ExitCode != 75 {
		t.Errorf("%s: exit code %d", name, r.ExitCode)
	}
	for _, bad := range []string{"Panic", "assert", "Fatal", "backtrace", "disconnected", "Connection closed"} {
		if strings.Contains(r.Stderr, bad) {
			_, line, _ := strings.Cut(r.Stderr, bad)
			t.Errorf("%s: standard error has %q: %.300q", name, bad, line)
		}
	}
	if n := strings.Count(r.Stderr, "doveadm-proxy: backend mail1 "); n != size {
		t.Errorf("%s: %d explanations for %d replies that were cut", name, n, size)
	}
	if tt.format != "json" {
		// What was not cut is there: the users behind.
		for n := size; n < positions; n++ {
			if !strings.Contains(r.Stdout, cutUser(n)) {
				t.Errorf("%s: nothing of %s", name, cutUser(n))
			}
		}
		return
	}
	var all []map[string]string
	if err := json.Unmarshal([]byte(r.Stdout), &all); err != nil {
		t.Fatalf("%s: %v in %.2000q", name, err, r.Stdout)
	}
	rows := make(map[string][]map[string]string)
	for _, row := range all {
		user := row["username"]
		if len(row) != tt.columns || !strings.HasPrefix(user, "cut-") {
			t.Errorf("%s: row %q", name, row)
		}
		delete(row, "username")
		rows[user] = append(rows[user], row)
	}
	whole := rows[cutUser(size)]
	if len(whole) != 2 {
		t.Fatalf("%s: a whole reply has %q", name, whole)
	}
	rowsOfCut := 0
	for n := range positions {
		got := rows[cutUser(n)]
		switch {
		case n >= size && !reflect.DeepEqual(got, whole):
			t.Errorf("%s: %s, whole, has %q", name, cutUser(n), got)
		case n < size && len(got) > 0 && !isPart(got, whole):
			t.Errorf("%s: %s has %q, the whole is %q", name, cutUser(n), got, whole)
		case n < size:
			rowsOfCut += len(got)
		}
	}
	if rowsOfCut < size/2 {
		t.Errorf("%s: only %d rows of all replies that were cut", name, rowsOfCut)
	}
}

// runAlone runs the command for one user after the other. No command before or
// behind makes up for what a row lacks, and nobody puts a user name in front.
func (tt *cutCase) runAlone(t *testing.T, c *cluster, version dovecot.Version, addr string, size int) {
	t.Helper()
	for n := 0; n < size; n += 7 {
		r := dovecottest.Run(t, c.client(version, addr, clientPassword), tt.name, append([]string{"-u", cutUser(n)}, tt.args...)...)
		if r.ExitCode != 75 || !strings.Contains(r.Stderr, "doveadm-proxy: backend mail1 ") || strings.Count(r.Stderr, "\n") != 1 {
			t.Errorf("command of %s, %s, alone, cut at %d: %+v", version, tt.name, n, r)
		}
	}
}

// isPart reports whether all rows but the last are whole, and the last one is
// the beginning of what belongs there: each value, or its beginning, or nothing.
func isPart(rows, whole []map[string]string) bool {
	last := len(rows) - 1
	if last >= len(whole) || !reflect.DeepEqual(rows[:last], whole[:last]) {
		return false
	}
	for key, value := range rows[last] {
		if !strings.HasPrefix(whole[last][key], value) {
			return false
		}
	}
	return true
}

// TestIncompleteRowCrashesCommand is why rows are padded.
func TestIncompleteRowCrashesCommand(t *testing.T) {
	t.Parallel()
	backend := doveadmtest.NewServer(t, doveadmtest.Options{
		Minor: doveadm.MinorSTARTTLS, Password: "secret",
		Handler: func(c *doveadmtest.Conn, cmd *doveadm.Command) {
			c.Fields("User quota", "STORAGE", "1")
			c.Status("-TEMPFAIL")
		},
	})
	for _, version := range dovecot.Versions() {
		r := dovecottest.Run(t, dovecot.Client{Version: version, Addr: backend.Addr(), Password: "secret"}, "quota get", "-u", "u1-1")
		if r.ExitCode != 134 || !strings.Contains(r.Stderr, "Panic") {
			t.Errorf("command of %s: %+v", version, r)
		}
	}
}
