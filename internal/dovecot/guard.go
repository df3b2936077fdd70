package dovecot

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
)

// guardScript reads the process group to look after, line by line (an empty
// line: none). At the end of its input it kills that group and removes the
// instance's directory. The input ends when its writer closes it or dies,
// however that happens, so nothing of an instance outlives a test that was
// killed. Removing is tried again because a process that is being killed may
// still be writing.
const guardScript = `
trap '' HUP INT TERM
while read -r line; do group=$line; done
if [ -n "$group" ]; then kill -s KILL -- "-$group" 2>/dev/null; fi
rm -rf -- "$1" 2>/dev/null || rm -rf -- "$1"
`

// guard cleans up after an instance. It is a shell of its own and not the
// parent-death signal of Linux, because that one follows the thread that
// started the process, which Go may end, and never reaches grandchildren.
type guard struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	stderr bytes.Buffer
}

func startGuard(dir string) (*guard, error) {
	g := &guard{cmd: exec.Command("/bin/sh", "-c", guardScript, "guard", dir)}
	g.cmd.Stderr = &g.stderr
	// Out of reach of a Ctrl-C in the terminal.
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var err error
	if g.input, err = g.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	return g, nil
}

// watch names the process group that the guard has to kill; 0: none.
func (g *guard) watch(group int) error {
	line := "\n"
	if group != 0 {
		line = fmt.Sprintf("%d\n", group)
	}
	_, err := io.WriteString(g.input, line)
	return err
}

// close lets the guard do its work and returns when it is done.
func (g *guard) close() error {
	g.input.Close()
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("clean up: %w: %s", err, strings.TrimSpace(g.stderr.String()))
	}
	return nil
}
