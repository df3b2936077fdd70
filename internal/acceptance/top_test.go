package acceptance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// What top says to a terminal.
const (
	otherScreen = "\x1b[?1049h"
	firstScreen = "\x1b[?1049l"
	topOfScreen = "\x1b[H"
)

// TestTop runs top at a terminal. It draws within it, again and again, and leaves
// it as it was, however it ends.
func TestTop(t *testing.T) {
	t.Parallel()
	const width, height = 60, 8
	dir := t.TempDir()
	socket := "unix:" + filepath.Join(dir, "admin.sock")
	p := startProxy(t, racy, func(addr string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "listener \"main\" {\n address = %q\n}\nclient \"doveadm\" {\n password = \"{PLAIN}x\"\n}\nroute \"ring\" {}\n", addr)
		for i := range 2 * height {
			fmt.Fprintf(&b, "shard \"s%d\" {\n backend \"a-backend-with-a-long-name-%[1]d\" {\n address = \"127.0.0.1:1\"\n password = \"x\"\n }\n}\n", i)
		}
		fmt.Fprintf(&b, "admin {\n address = %q\n state_file = \"%s/operator.json\"\n}\n", socket, dir)
		return b.String()
	})
	path, err := racy()
	if err != nil {
		t.Fatal(err)
	}
	for _, end := range []struct {
		name string
		do   func(terminal *os.File)
		code int
	}{
		{"q", func(terminal *os.File) { terminal.WriteString("q") }, 0},
		{"Ctrl-C", func(terminal *os.File) { terminal.WriteString("\x03") }, 0},
		{"the proxy ends", func(*os.File) { p.signal(syscall.SIGTERM); p.wait() }, 75},
	} {
		master, slave, err := openTerminal()
		if err != nil {
			t.Fatal(err)
		}
		defer master.Close()
		defer slave.Close()
		if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width}); err != nil {
			t.Fatal(err)
		}
		mode := func() *unix.Termios {
			m, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		before := mode()
		cmd := exec.Command(path, "top", "--every", "100ms", "--admin", socket)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var out written
		go func() { // ends when the terminal is closed
			b := make([]byte, 4096)
			for {
				n, err := master.Read(b)
				out.Write(b[:n])
				if err != nil {
					return
				}
			}
		}()
		for deadline := time.Now().Add(time.Minute); strings.Count(out.String(), topOfScreen) < 4; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: top has drawn %q", end.name, out.String())
			}
		}
		end.do(master)
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != end.code {
			t.Errorf("%s: exit code %d, want %d", end.name, code, end.code)
		}
		if diff := cmp.Diff(before, mode()); diff != "" {
			t.Errorf("%s: the terminal is left in another mode:\n%s", end.name, diff)
		}
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(out.String(), firstScreen); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the first screen is not shown again: %q", end.name, out.String())
			}
		}
		drawn, after, _ := strings.Cut(out.String(), firstScreen)
		if end.code != 0 && !strings.Contains(after, "no admin endpoint answers") {
			t.Errorf("%s: on the first screen is %q", end.name, after)
		}
		_, drawn, _ = strings.Cut(drawn, otherScreen)
		for _, view := range strings.Split(drawn, topOfScreen)[1:] {
			lines := strings.Split(view, "\r\n")
			if len(lines) != height || !strings.Contains(view, "backends available") {
				t.Errorf("%s: %d lines on a terminal of %d: %q", end.name, len(lines), height, view)
			}
			for _, line := range lines {
				if text, _, _ := strings.Cut(line, "\x1b"); len(text) > width {
					t.Errorf("%s: a line of %d on a terminal of %d: %q", end.name, len(text), width, line)
				}
			}
		}
	}
}
