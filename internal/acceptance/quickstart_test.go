package acceptance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// shellBlocks returns the commands of a document that are to be run.
func shellBlocks(t *testing.T, document string) []string {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, m := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		all = append(all, m[1])
	}
	return all
}

// TestQuickStart does what docs/quick-start.md says, command by command, on a
// copy of this machine before three Dovecot servers. What differs: addresses, and
// ssh is a program that reaches the servers' doveadm.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	deb := built(t, "deb")
	const backendPassword, newPassword = "pässword of mail", "a new sécret"
	m := startMachine(t)
	listen := "127.0.0.1:" + freePort(t)
	replace := []string{"127.0.0.1:24245", listen, "doveadm-proxy init ", "doveadm-proxy init --listen " + listen + " "}
	users := []string{"ann", "ben", "cem"}
	hosts := map[string]*dovecot.Server{}
	for i, user := range users {
		s := dovecottest.Start(t, dovecot.Options{Name: fmt.Sprintf("mail%d", i+1), Users: []string{user, user + "@example.com"}, Password: backendPassword})
		if err := s.SaveMail(user, fmt.Sprintf("Of-mail%d", i+1)); err != nil {
			t.Fatal(err)
		}
		replace = append(replace, fmt.Sprintf("10.0.1.%d:24245", i+1), s.Addr)
		hosts[fmt.Sprintf("10.0.1.%d", i+1)] = s
	}
	m.ssh(hosts)
	copyFile(t, deb, filepath.Join(m.dir, "home", filepath.Base(deb)))

	begin := time.Now()
	var out strings.Builder
	for _, block := range shellBlocks(t, "../../docs/quick-start.md") {
		block = strings.NewReplacer(replace...).Replace(block)
		got, err := m.terminal(block, map[string]string{
			"doveadm_password of the backends": backendPassword,
			"password for clients":             newPassword,
		}, "CLIENT_PASSWORD="+newPassword)
		fmt.Fprintf(&out, "$ %s%s", block, got)
		if err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
	}
	took := time.Since(begin)
	t.Logf("%s in all\n%s", took.Round(time.Millisecond), out.String())
	for _, want := range []string{"Of-mail1", "INBOX messages=0", "ann: shard s1", "ben: shard s2", "cem: shard s3"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("nothing said %q:\n%s", want, out.String())
		}
	}
	for _, secret := range []string{backendPassword, newPassword} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("a password was shown:\n%s", out.String())
		}
	}
	if took > 5*time.Minute {
		t.Errorf("the quick start took %s", took)
	}
}

// ssh gives the machine a program ssh that reaches the shells of servers, as root
// of a host, and a directory for the user's files.
func (m *machine) ssh(hosts map[string]*dovecot.Server) {
	m.t.Helper()
	var script strings.Builder
	script.WriteString("#!/bin/sh\nhost=$1\nshift\ncase $host in\n")
	for host, server := range hosts {
		in, out := "ssh-"+host+".in", "ssh-"+host+".out"
		// The rest of the line is a command for the shell there, as with ssh.
		fmt.Fprintf(&script, "root@%s) printf '%%s\\n' \"$*\" > /mnt/%s; cat /mnt/%s ;;\n", host, in, out)
		serveShell(m.t, filepath.Join(m.dir, in), filepath.Join(m.dir, out), server)
	}
	script.WriteString("*) exit 255 ;;\nesac\n")
	m.write("bin/ssh", script.String(), 0o755)
	if err := os.Mkdir(filepath.Join(m.dir, "home"), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

// serveShell runs the commands that come by one pipe, as the shell of a server
// would, and answers each by another.
func serveShell(t *testing.T, in, out string, s *dovecot.Server) {
	t.Helper()
	for _, pipe := range []string{in, out} {
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	script := fmt.Sprintf(`doveadm() { command doveadm -c '%[3]s' "$@"; }
doveconf() { command doveconf -c '%[3]s' "$@"; }
while read -r line <%[1]s; do ( eval "$line" ) >%[2]s; done`, in, out, s.Config)
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
	})
}

// terminal runs a shell script in the machine at a terminal, and answers each
// question with a colon at its end by what belongs to the last text that was seen
// before it. It returns what was shown.
func (m *machine) terminal(script string, answers map[string]string, env ...string) (string, error) {
	m.t.Helper()
	master, slave, err := openTerminal()
	if err != nil {
		return "", err
	}
	defer master.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := m.command(ctx, "/bin/sh", "-e", "-c", "cd /mnt/home\n"+script)
	cmd.Env = append(cmd.Env, env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	err = cmd.Start()
	slave.Close()
	if err != nil {
		return "", err
	}
	var shown bytes.Buffer
	answered := 0
	b := make([]byte, 4096)
	for {
		n, err := master.Read(b)
		shown.Write(b[:n])
		if err != nil { // EIO: everybody has closed the terminal
			break
		}
		if fresh := shown.String()[answered:]; strings.HasSuffix(fresh, ": ") {
			question, answer := -1, ""
			for text, a := range answers {
				if i := strings.LastIndex(shown.String(), text); i > question {
					question, answer = i, a
				}
			}
			io.WriteString(master, answer+"\n")
			answered = shown.Len()
		}
	}
	return strings.ReplaceAll(shown.String(), "\r\n", "\n"), cmd.Wait()
}

// openTerminal returns both ends of a new terminal.
func openTerminal() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		master.Close()
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}
