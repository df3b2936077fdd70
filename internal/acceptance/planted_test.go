package acceptance

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// plantedSite is a configuration with a different secret in every place where
// one can stand, before a real Dovecot.
type plantedSite struct {
	t       *testing.T
	dir     string
	server  *dovecot.Server
	binary  string
	secrets map[string]string // by where it stands
	env     []string
}

// plant returns a new secret.
func (s *plantedSite) plant(where string) string {
	secret := "planted-" + strings.ReplaceAll(where, " ", "-") + "-9f1c"
	s.secrets[where] = secret
	return secret
}

func (s *plantedSite) file(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

func plantSite(t *testing.T) *plantedSite {
	t.Helper()
	binary, err := plain()
	if err != nil {
		t.Fatal(err)
	}
	s := &plantedSite{t: t, dir: t.TempDir(), binary: binary, secrets: map[string]string{}}
	s.server = dovecottest.Start(t, dovecot.Options{Users: []string{"u1-1"}, Password: s.plant("backend password")})
	s.env = append(os.Environ(), "CREDENTIALS_DIRECTORY="+s.dir,
		"CLIENT_HASH={PLAIN}"+s.plant("environment"), "ADDRESS_WITH_SECRET="+s.plant("other variable"))
	pair := certtest.NewCA(t, "ca").Issue(t, "127.0.0.1")
	pair.Write(t, s.dir, "server")
	s.secrets["TLS key"] = strings.Split(string(pair.KeyPEM), "\n")[1]
	s.file("credential", "{PLAIN}"+s.plant("credential")+"\n")
	s.file("two", "{PLAIN}"+s.plant("password file")+"\n{PLAIN}"+s.plant("old in password file")+"\n")
	s.file("called", "{PLAIN}"+s.plant("called file")+"\n")
	s.file("backend", s.server.Password+"\n"+s.plant("old backend password")+"\n")
	return s
}

// config listens at addr.
func (s *plantedSite) config(addr string) string {
	return fmt.Sprintf(`
log {
  level = "trace"
}
audit {
  path = "audit.log"
}
admin {
  address    = "unix:%s/admin.sock"
  state_file = "state.json"
}
listener "main" {
  address = %q
}
listener "tls" {
  address = "127.0.0.1:0"
  tls {
    cert_file = "server.crt"
    key_file  = "server.key"
  }
}
client "inline" {
  password     = "{PLAIN}%s"
  old_password = "{PLAIN}%s"
}
client "environment" {
  password = env("CLIENT_HASH")
}
client "called" {
  password = file("called")
}
client "two" {
  password_file = "two"
}
client "credential" {
  password_file = "credential:credential"
}
shard "s1" {
  backend "mail1" {
    address       = %q
    password_file = "backend"
  }
}
`, s.dir, addr, s.plant("inline"), s.plant("old inline"), s.server.Addr)
}

// run runs a command of the binary and returns all that it says.
func (s *plantedSite) run(args ...string) string {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.binary, args...)
	cmd.Env, cmd.Dir = s.env, s.dir
	out, _ := cmd.CombinedOutput() // whether it fails or not
	return string(out)
}

// serve starts the proxy, which may be killed.
func (s *plantedSite) serve(name, config string) *proxyProcess {
	s.t.Helper()
	p := &proxyProcess{t: s.t, Config: filepath.Join(s.dir, name), exited: make(chan error, 1)}
	p.writeConfig(config)
	// With cores allowed, a crash would leave one.
	p.cmd = exec.Command("/bin/sh", "-c", `ulimit -c unlimited 2>/dev/null; exec "$0" "$@"`, s.binary, "serve", "--config", p.Config)
	p.cmd.Env, p.cmd.Dir = append(s.env, "GOTRACEBACK=crash"), s.dir
	p.cmd.Stderr, p.cmd.Stdout = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { p.exited <- p.cmd.Wait() }()
	s.t.Cleanup(func() { p.cmd.Process.Kill(); p.exited <- <-p.exited })
	p.waitLog("ready")
	return p
}

// absent fails for each secret that is in text in clear, in base64 or in hex.
func (s *plantedSite) absent(what, text string) {
	s.t.Helper()
	if text == "" {
		s.t.Errorf("%s: there is nothing", what)
	}
	for where, secret := range s.secrets {
		for form, shown := range map[string]string{
			"clear": secret, "base64": base64.StdEncoding.EncodeToString([]byte(secret))[4:], "hex": hex.EncodeToString([]byte(secret)),
		} {
			if i := strings.Index(text, shown); i >= 0 {
				s.t.Errorf("%s shows the secret of %s in %s: ...%s", what, where, form, text[max(0, i-200):min(len(text), i+200)])
			}
		}
	}
}

// TestPlantedSecrets: no secret is in anything that the program says: the
// answers of its commands, its log at level trace through logins and reloads
// good and bad, the audit log, its status, and what a crash leaves.
func TestPlantedSecrets(t *testing.T) {
	t.Parallel()
	s := plantSite(t)
	port, err := dovecot.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	good := s.config(port.Addr)
	p := s.serve("proxy.hcl", good)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	for client, where := range map[string]string{
		"inline": "inline", "environment": "environment", "called": "called file", "two": "old in password file", "credential": "credential",
	} {
		c, err := doveadm.Dial(ctx, port.Addr, doveadm.ClientOptions{Username: client, Password: s.secrets[where], Minor: 3})
		if err != nil {
			t.Errorf("client %s: %v", client, err)
			continue
		}
		for _, cmd := range [][]string{
			{"mailbox list", "INBOX"},
			{"mailbox cryptokey password", "-n", s.plant("new key password"), "-o", s.plant("old key password")},
			{"mailbox metadata set", "INBOX", "/private/comment", s.plant("metadata")},
			{"dict set", "redis:host=127.0.0.1:port=1:password=" + s.plant("dict password"), "priv/x", s.plant("dict value")},
			{"pw", "-p", s.plant("pw")},
			{"unheard of", "--key", s.plant("unknown command")},
		} {
			// Some are refused, some by the proxy: they all leave their lines.
			if _, err := runCommand(ctx, c, "u1-1", cmd[0], cmd[1:]...); cmd[0] == "mailbox list" && err != nil {
				t.Errorf("client %s: %v", client, err)
			}
		}
		c.Close()
	}
	for _, login := range []doveadm.ClientOptions{
		{Username: "inline", Password: s.plant("wrong password"), Minor: 3},
		{Username: "nobody", Password: s.plant("password of nobody"), Minor: 3},
	} {
		if c, err := doveadm.Dial(ctx, port.Addr, login); err == nil {
			c.Close()
			t.Error("a wrong login is right")
		}
	}
	// A password in the wrong place, a configuration that is wrong around one.
	typo := good + "client \"typo\" {\n  pasword = \"" + s.plant("typo") + "\"\n}\n"
	s.file("typo.hcl", typo)
	for i, config := range []string{typo, strings.Replace(good, "{PLAIN}"+s.secrets["inline"], s.secrets["inline"], 1), strings.Replace(good, "env(\"CLIENT", "env(\"NO", 1)} {
		p.writeConfig(config)
		p.signal(syscall.SIGHUP)
		for end := time.Now().Add(20 * time.Second); strings.Count(p.Log(), "reload failed") <= i; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("reload %d did not fail:\n%s", i, p.Log())
			}
		}
	}
	p.writeConfig(good)
	s.file("two", "{PLAIN}"+s.plant("newest in password file")+"\n{PLAIN}"+s.secrets["password file"]+"\n")
	p.signal(syscall.SIGHUP)
	p.waitLog("reloaded")

	config := filepath.Join(s.dir, "proxy.hcl")
	for _, args := range [][]string{
		{"check", "-c", config},
		{"check", "-c", config, "--print"},
		{"check", "-c", config, "--json"},
		{"check", "-c", config, "--connect"},
		{"check", "-c", filepath.Join(s.dir, "typo.hcl")},
		{"check", "-c", filepath.Join(s.dir, "typo.hcl"), "--json"},
		{"route", "-c", config, "u1-1"},
		{"route", "-c", config, "u1-1", "--json"},
		{"explain", "-c", config, "--client", "inline", "--from", "127.0.0.1", "u1-1", "mailbox list"},
		{"status", "-c", config},
		{"status", "-c", config, "--json"},
		{"backends", "-c", config, "--json"},
	} {
		s.absent(strings.Join(args, " "), s.run(args...))
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	audit := string(b)
	for _, want := range []string{`"client":"credential"`, "mailbox cryptokey password", "login-refused"} {
		if !strings.Contains(audit, want) {
			t.Errorf("the audit log has no %s", want)
		}
	}
	s.absent("the audit log", audit)

	// A command in the middle, and then the end of a bad day.
	c, err := doveadm.Dial(ctx, port.Addr, doveadm.ClientOptions{Username: "inline", Password: s.secrets["inline"], Minor: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := runCommand(ctx, c, "u1-1", "mailbox list", "INBOX"); err != nil {
		t.Error(err)
	}
	p.signal(syscall.SIGABRT)
	p.wait()
	log := p.Log()
	if !strings.Contains(log, "SIGABRT") || !strings.Contains(log, "goroutine ") {
		t.Errorf("no stack traces:\n%s", log)
	}
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	cores, _ := filepath.Glob(filepath.Join(s.dir, "core*"))
	if !status.Signaled() || status.CoreDump() || len(cores) > 0 {
		t.Errorf("ended by a signal: %v; with a core: %v, %v", status.Signaled(), status.CoreDump(), cores)
	}
	s.absent("the log at level trace, with stack traces", log)
}

// TestMemoryOfTheSameUser: other processes of the proxy's user cannot read its
// memory, as they can that of other programs. Those of root can.
func TestMemoryOfTheSameUser(t *testing.T) {
	t.Parallel()
	s := plantSite(t)
	const nobody = 65534
	// The user needs to reach the program and its configuration.
	dir, err := os.MkdirTemp("", "memory-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	binary, err := os.ReadFile(s.binary)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("listener \"main\" {\n  address = \"127.0.0.1:0\"\n}\nclient \"c\" {\n  password = \"{PLAIN}x\"\n}\nshard \"s1\" {\n  backend \"b\" {\n    address = %q\n    password = \"x\"\n  }\n}\n", s.server.Addr)
	for name, content := range map[string][]byte{"proxy": binary, "proxy.hcl": []byte(config)} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	asNobody := func(program string, args ...string) *exec.Cmd {
		cmd := exec.Command(program, args...)
		cmd.Env = []string{"SECRET=planted", "PATH=/usr/bin:/bin"}
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		return cmd
	}
	p := &proxyProcess{t: t, cmd: asNobody(filepath.Join(dir, "proxy"), "serve", "--config", "proxy.hcl"), exited: make(chan error, 1)}
	p.cmd.Stderr = &p.log
	other := asNobody("sleep", "60")
	for _, cmd := range []*exec.Cmd{p.cmd, other} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	go func() { p.exited <- p.cmd.Wait() }()
	defer other.Wait()
	defer other.Process.Kill()
	t.Cleanup(p.end)
	p.waitLog("ready")

	var environ bytes.Buffer
	read := asNobody("cat", fmt.Sprintf("/proc/%d/environ", other.Process.Pid))
	read.Stdout = &environ
	if err := read.Run(); err != nil || !strings.Contains(environ.String(), "SECRET=planted") {
		t.Fatalf("the environment of another program: %q, %v", &environ, err)
	}
	// Both ask the kernel what gcore and a debugger ask it.
	for _, what := range []string{"environ", "maps"} {
		if asNobody("head", "-c", "1", fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, what)).Run() == nil {
			t.Errorf("/proc/PID/%s of the proxy can be read", what)
		}
	}
}
