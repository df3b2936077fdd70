package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/audit/audittest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

func command(user string) *Record {
	return &Record{
		Time: time.Unix(1_700_000_000, 123_456_789), Event: EventCommand, Session: 7, Listener: "main", Address: "192.0.2.1:5",
		Client: "panel", User: user, Command: "mailbox list", Arguments: []string{"-s", "*"}, Shard: "s1", Backend: "b1",
		Outcome: "answered", Status: "+", Duration: 1500 * time.Microsecond, Output: 12,
	}
}

func TestRecord(t *testing.T) {
	got := string(command("alice").appendTo(nil))
	want := `{"time":"2023-11-14T22:13:20.123456Z","event":"command","session":7,"listener":"main","address":"192.0.2.1:5","client":"panel",` +
		`"user":"alice","command":"mailbox list","arguments":["-s","*"],"shard":"s1","backend":"b1","status":"+",` +
		`"duration_ms":1.500,"input_bytes":0,"output_bytes":12,"outcome":"answered"}` + "\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for name, r := range map[string]*Record{
		"command": command("alice"),
		"nothing": {Event: EventCommand, Session: 1, Outcome: "denied", Status: "-"},
		"login":   {Event: EventLoginRefused, Session: 1, Client: "x\n\x1b[31m", Outcome: "wrong", Certificate: "CN=x"},
	} {
		if _, err := audittest.Check(r.appendTo(nil)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, line := range []string{`{}`, `[]`, `{"x":1}`, strings.Replace(got, "command", "comand", 1), strings.Replace(got, `"session":7`, `"session":"7"`, 1), strings.Replace(got, "Z\"", "\"", 1)} {
		if _, err := audittest.Check([]byte(line)); err == nil {
			t.Errorf("the schema accepts %s", line)
		}
	}
}

// Whatever text there is, a record is one line of JSON with bounds, and says
// what was there.
func FuzzRecord(f *testing.F) {
	f.Add("alice", "x", "y")
	f.Add("a\"\\\n\x00\x1b\x7f\u0085\u2028\xff", "{", strings.Repeat("ü", 3000))
	f.Fuzz(func(t *testing.T, user, one, two string) {
		r := command(user)
		r.Arguments = []string{one, two, one, two}
		r.Reason = two
		line := r.appendTo(nil)
		if len(line) > 6*(10*maxText+2*maxArguments) {
			t.Errorf("%d bytes", len(line))
		}
		if i := bytes.IndexFunc(line, func(c rune) bool { return c < ' ' || c >= 0x7f && c < 0xa0 }); i != len(line)-1 {
			t.Errorf("a control character at %d of %q", i, line)
		}
		value, err := audittest.Check(line)
		if err != nil {
			t.Fatal(err)
		}
		want := string([]rune(user)) // U+FFFD for each byte that is none of UTF-8
		if got := value["user"].(string); len(user) <= maxText && got != want {
			t.Errorf("user %q is written as %q", user, got)
		}
	})
}

// world is a log and what it says to the log of the proxy.
type world struct {
	*Log
	t    *testing.T
	mu   sync.Mutex
	said bytes.Buffer
}

func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.Write(p)
}

func (w *world) log() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.said.String()
}

func newWorld(t *testing.T) *world {
	w := &world{t: t}
	w.Log = New(hclog.New(&hclog.LoggerOptions{Output: w, DisableTime: true}))
	return w
}

func (w *world) use(c config.Audit) {
	w.t.Helper()
	if c.Buffer == 0 {
		c.Buffer = 1 << 20
	}
	s, err := Open(c)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Use(s)
}

func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("not within %s: %s\nlog:\n%s", patience, what, w.log())
		}
	}
}

func (w *world) written(n uint64) {
	w.t.Helper()
	w.eventually(fmt.Sprint(n, " records are written"), func() bool { return w.Stat().Written == n })
}

// users returns the users of the records in a file, and checks each line.
func users(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range bytes.Lines(b) {
		value, err := audittest.Check(line)
		if err != nil {
			t.Error(err)
			continue
		}
		all = append(all, value["user"].(string))
	}
	return strings.Join(all, " ")
}

func toFile(path string) config.Audit {
	return config.Audit{To: config.AuditFile, Path: path, Mode: 0o640}
}

// A file goes on where it ended, follows a rename when told to, and is written
// to its end when the log is closed.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	w := newWorld(t)
	w.Add(command("nobody")) // off
	w.use(toFile(path))
	w.Add(command("a"))
	w.written(1)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	w.Add(command("b"))
	w.written(2)
	w.Reopen()
	w.Add(command("c"))
	w.Close()
	if got := users(t, path+".1"); got != "a b" {
		t.Errorf("before the rename: %s", got)
	}
	if got := users(t, path); got != "c" {
		t.Errorf("after it: %s", got)
	}
	if info, _ := os.Stat(path); info.Mode() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
	w = newWorld(t)
	w.use(toFile(path))
	w.Add(command("d"))
	w.use(config.Audit{To: config.AuditFile, Path: path + ".other", Mode: 0o600}) // a reload
	w.Add(command("e"))
	w.Use(nil)
	w.Add(command("nobody"))
	w.Close()
	if got := users(t, path) + " " + users(t, path+".other"); !strings.HasPrefix(got, "c ") || strings.Contains(got, "nobody") {
		t.Errorf("got %s", got)
	}
	for _, bad := range []string{t.TempDir(), filepath.Join(path, "x"), filepath.Join(t.TempDir(), "no", "x")} {
		if _, err := Open(toFile(bad)); err == nil {
			t.Errorf("%s is opened", bad)
		}
	}
}

// No file becomes larger than it may, no record is lost or torn, and the oldest
// files go.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	line := len(command("0000").appendTo(nil))
	c := toFile(path)
	c.MaxSize, c.Keep = int64(10*line+5), 3
	w := newWorld(t)
	w.use(c)
	for i := range 47 {
		w.Add(command(fmt.Sprintf("%04d", i)))
		if i%7 == 0 {
			w.written(uint64(i + 1))
		}
	}
	w.Close()
	var all []string
	for _, suffix := range []string{".3", ".2", ".1", ""} {
		all = append(all, users(t, path+suffix))
		if info, err := os.Stat(path + suffix); err != nil || info.Size() > c.MaxSize {
			t.Errorf("%s: %v, %v", suffix, info.Size(), err)
		}
	}
	var want []string
	for i := 10; i < 47; i++ {
		want = append(want, fmt.Sprintf("%04d", i))
	}
	if got := strings.Join(all, " "); got != strings.Join(want, " ") {
		t.Errorf("got %s", got)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 4 {
		t.Errorf("%d files", len(entries))
	}
}

// diskFull makes path lead to a disk without room, and mend to one with it.
func diskFull(t *testing.T, path string) (mend func()) {
	t.Helper()
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// A full disk, with on_error = "continue": commands run, records wait, those
// that find no place are lost and counted, and the log has it once.
func TestFullDiskContinue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	mend := diskFull(t, path)
	w := newWorld(t)
	c := toFile(path)
	c.Buffer = int64(10*len(command("00").appendTo(nil)) + 5)
	w.use(c)
	w.Add(command("00"))
	w.eventually("the failure is told", func() bool { return w.Stat().Failing })
	for i := 1; i < 50; i++ {
		w.Add(command(fmt.Sprintf("%02d", i)))
		if err := w.Refused(); err != nil {
			t.Fatal(err)
		}
	}
	if s := w.Stat(); s.Lost != 40 || s.Waiting != 10 || s.Written != 0 {
		t.Errorf("%+v", s)
	}
	mend()
	w.Reopen()
	w.written(10)
	w.Add(command("50"))
	w.Close()
	if got := users(t, path); got != "00 01 02 03 04 05 06 07 08 09 50" {
		t.Errorf("got %s", got)
	}
	for text, n := range map[string]int{
		"audit log cannot be written": 1, "no space left on device": 1, "records are lost": 1, "audit log is written again: lost=40": 1,
	} {
		if got := strings.Count(w.log(), text); got != n {
			t.Errorf("%q is logged %d times:\n%s", text, got, w.log())
		}
	}
}

// With on_error = "refuse": no command is to run until it can be written, and
// no record of one that ran is lost.
func TestFullDiskRefuse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	mend := diskFull(t, path)
	w := newWorld(t)
	c := toFile(path)
	c.Buffer, c.Refuse = int64(3*len(command("00").appendTo(nil))+5), true
	w.use(c)
	if err := w.Refused(); err != nil {
		t.Errorf("before anything failed: %v", err)
	}
	for i := range 10 { // begun together
		w.Add(command(fmt.Sprintf("%02d", i)))
	}
	w.eventually("commands are refused", func() bool { return w.Refused() == ErrRefused })
	for range 100 {
		w.Add(&Record{Event: EventCommand, Session: 1, User: "refused", Outcome: "denied", Status: "-"})
	}
	if s := w.Stat(); s.Lost != 100 || s.Waiting != 10 {
		t.Errorf("%+v", s)
	}
	mend()
	w.Reopen()
	w.written(10)
	if err := w.Refused(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	w.Close()
	if got := users(t, path); got != "00 01 02 03 04 05 06 07 08 09" {
		t.Errorf("got %s", got)
	}
}

// What cannot be written before the end is told.
func TestCloseWithFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	diskFull(t, path)
	w := newWorld(t)
	w.use(toFile(path))
	w.Add(command("a"))
	w.Add(command("b"))
	w.Close()
	if !strings.Contains(w.log(), "could not be written before the end: records=2") {
		t.Errorf("log:\n%s", w.log())
	}
}

// listen is the reader of a socket.
func listen(t *testing.T) (path string, read func() string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "socket")
	return path, listenAt(t, path)
}

func listenAt(t *testing.T, path string) (read func() string) {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(patience))
	return func() string {
		t.Helper()
		b := make([]byte, 1<<20)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestSyslog(t *testing.T) {
	path, read := listen(t)
	w := newWorld(t)
	defer w.Close()
	w.use(config.Audit{To: config.AuditSyslog, Path: path})
	long := command("long")
	long.Arguments = []string{strings.Repeat("\x01", 1<<20)}
	w.Add(long)
	w.Add(command("a"))
	// RFC 5424, section 6, with a PRIVAL of authpriv.info and no structured data.
	form := regexp.MustCompile(`^<86>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z [!-~]{1,255} doveadm-proxy \d+ audit - (\{.*\})$`)
	for _, user := range []string{"long", "a"} {
		m := form.FindStringSubmatch(read())
		if m == nil {
			t.Fatal("not of the form")
		}
		if value, err := audittest.Check([]byte(m[1])); err != nil || value["user"] != user {
			t.Errorf("%v, %v", value, err)
		}
	}
}

// The journal is started anew: what it did not take comes again.
func TestJournal(t *testing.T) {
	path, read := listen(t)
	w := newWorld(t)
	defer w.Close()
	w.use(config.Audit{To: config.AuditJournal, Path: path})
	w.Add(command("a"))
	const form = "PRIORITY=6\nSYSLOG_IDENTIFIER=doveadm-proxy-audit\nMESSAGE="
	expect := func(user string) {
		t.Helper()
		got := read()
		record, ok := strings.CutPrefix(got, form)
		if value, err := audittest.Check([]byte(record)); !ok || err != nil || value["user"] != user || !strings.HasSuffix(record, "\n") {
			t.Errorf("got %q, %v", got, err)
		}
	}
	expect("a")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	read = listenAt(t, path)
	w.Reopen()
	w.Add(command("b"))
	expect("b")
}

// Many add at once: each record is whole, and there once.
func TestManyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	w := newWorld(t)
	w.use(toFile(path))
	var adding sync.WaitGroup
	for i := range 20 {
		adding.Go(func() {
			for j := range 50 {
				w.Add(command(fmt.Sprintf("u%d-%d", i, j)))
				if j%10 == 0 {
					w.Reopen()
				}
			}
		})
	}
	adding.Wait()
	w.Close()
	seen := make(map[string]bool)
	for _, user := range strings.Fields(users(t, path)) {
		seen[user] = true
	}
	if len(seen) != 1000 || w.Stat().Written != 1000 {
		t.Errorf("%d users, %+v", len(seen), w.Stat())
	}
}

// What a command pays for its record.
func BenchmarkAdd(b *testing.B) {
	for name, path := range map[string]string{"off": "", "on": filepath.Join(b.TempDir(), "audit.log")} {
		b.Run(name, func(b *testing.B) {
			l := New(hclog.NewNullLogger())
			defer l.Close()
			if path != "" {
				c := toFile(path)
				c.Buffer = 1 << 40
				s, err := Open(c)
				if err != nil {
					b.Fatal(err)
				}
				l.Use(s)
			}
			r := command("alice")
			b.ReportAllocs()
			for b.Loop() {
				l.Add(r)
			}
		})
	}
}

func TestAddDoesNotAllocate(t *testing.T) {
	r := command("alice")
	buf := r.appendTo(nil)
	if n := testing.AllocsPerRun(100, func() { buf = r.appendTo(buf[:0]) }); n != 0 {
		t.Errorf("%v allocations a record", n)
	}
	if !json.Valid(buf) {
		t.Error("not JSON")
	}
}
