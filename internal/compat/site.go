package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// password is that of all backends and of the proxies' client alike, so that a
// client differs in nothing but the address it connects to.
const password = "secret"

// The users of every backend.
const (
	templateUser = "template" // everybody's mail is a copy of this user's
	bigUser      = "big"      // has large and many mails besides
	oddUser      = "odd"      // has mailboxes of odd names
	nobody       = "nobody"   // does not exist
)

// teamUsers are for cases of several users.
var teamUsers = []string{"team1", "team2", "team3"}

// oddNames have names that Dovecot can look up and that somebody could get
// wrong on the way.
var oddNames = []string{"bob smith", "grüße", "-dash", "100%", "user@example.com", "a+b=c@example.com", "(paren)", "~tilde", "$dollar", "#hash", "semi;colon", "ümläut@dömäin"}

func users() []string {
	list := []string{templateUser, bigUser, oddUser}
	for n := range workers {
		list = append(list, workerUser(n))
	}
	list = append(list, teamUsers...)
	list = append(list, "a*b") // a mask to the doveadm program
	return append(list, oddNames...)
}

// serverConfig makes a server know all commands that its packages bring.
var serverConfig = map[dovecot.Version]string{
	dovecot.V23: `
mail_plugins = quota acl fts mail_crypt
auth_username_chars =
plugin {
  mail_crypt_curve = secp521r1
  mail_crypt_save_version = 0
}
`,
	dovecot.V24: `
mail_plugins = quota acl fts fts_flatcurve mail_crypt
auth_username_chars =
fts flatcurve {
}
language en {
  default = yes
  language_tokenizers = generic email-address
}
language_tokenizer_generic_algorithm = simple
crypt_user_key_curve = secp521r1
crypt_write_algorithm =
fs compat_fs {
  fs_driver = posix
}
quota_clone {
  dict file {
    path = {{.Dir}}/mail/dict
  }
}
`,
}

// twins are two equal servers of one version: clients reach one of them
// directly and the other through a proxy that has no other backend. What one
// command does to both can then be compared.
type twins struct {
	version dovecot.Version
	direct  *dovecot.Server
	behind  *dovecot.Server
	proxy   *proxy

	template string          // directory of the mail that everybody gets
	fresh    string          // its state
	known    map[string]bool // random numbers that are in it

	// everybody is locked by a case that reads or changes the mail of all
	// users, and locked for reading by those that do not. Of several twins, the
	// oldest version's comes first.
	everybody sync.RWMutex
}

// site is what the commands run on.
type site struct {
	twins map[dovecot.Version]*twins
	// around is what was in the directories around the servers' own before.
	around map[string]bool
}

// startSite starts everything. On an error nothing is left.
func startSite(ctx context.Context, binary string) (*site, error) {
	s := &site{twins: map[dovecot.Version]*twins{}}
	var err error
	if s.around, err = listAround(); err != nil {
		return nil, err
	}
	if err := s.start(ctx, binary); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *site) start(ctx context.Context, binary string) error {
	var group errgroup.Group
	for _, version := range dovecot.Versions() {
		t := &twins{version: version, known: map[string]bool{}}
		s.twins[version] = t
		group.Go(func() error {
			if err := t.start(ctx, binary); err != nil {
				return fmt.Errorf("dovecot %s: %w\n%s", version, err, t.logs())
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return nil
}

func (t *twins) start(ctx context.Context, binary string) error {
	for _, twin := range []struct {
		name   string
		server **dovecot.Server
	}{{"direct", &t.direct}, {"behind", &t.behind}} {
		server, err := dovecot.Start(ctx, dovecot.Options{
			Version: t.version, Name: twin.name, Users: users(), Password: password, Config: serverConfig[t.version],
		})
		if err != nil {
			return err
		}
		*twin.server = server
	}
	if err := t.writeDict(); err != nil {
		return err
	}
	if err := t.makeTemplate(ctx); err != nil {
		return err
	}
	for _, user := range users() {
		if err := t.reset(user); err != nil {
			return err
		}
	}
	if err := errors.Join(t.fillBigUser(ctx), t.fillOddUser()); err != nil {
		return err
	}
	err := os.WriteFile(filepath.Join(t.direct.Dir, teamList), []byte(strings.Join(teamUsers, "\n")+"\n"), 0o644)
	if err != nil {
		return err
	}
	t.proxy, err = startProxy(ctx, binary, t.behind)
	return err
}

// inside returns the directory of a server as its programs see it.
func inside(server *dovecot.Server) string {
	dir, err := server.Version.Inside(server.Dir)
	if err != nil {
		panic(err) // the server runs there
	}
	return dir
}

// cliConfig returns the configuration of the doveadm program of a version: that
// of a server, whom the program asks for the names of all users.
func (s *site) cliConfig(version dovecot.Version) string { return s.twins[version].direct.Config }

// teamList is the file with the names of the team, in a server's directory.
const teamList = "team.list"

// teamFile returns the name of that file, as the doveadm program of a version
// sees it.
func (s *site) teamFile(version dovecot.Version) string {
	return filepath.Join(inside(s.twins[version].direct), teamList)
}

// logs are what the servers have logged, the end of it.
func (t *twins) logs() string {
	text := ""
	for _, server := range []*dovecot.Server{t.direct, t.behind} {
		if server != nil {
			log := server.Log()
			text += fmt.Sprintf("log of the server %q:\n%s", server.Name, log[max(0, len(log)-4000):])
		}
	}
	return text
}

// close ends everything and removes it.
func (s *site) close() error {
	var errs []error
	for _, t := range s.twins {
		if t.proxy != nil {
			errs = append(errs, t.proxy.stop())
		}
		for _, server := range []*dovecot.Server{t.direct, t.behind} {
			if server != nil {
				errs = append(errs, server.Close())
			}
		}
	}
	return errors.Join(append(errs, s.checkAround())...)
}

// listAround lists the directories in which a command would leave something that
// was told to and has found a way.
func listAround() (map[string]bool, error) {
	names := map[string]bool{}
	for _, version := range dovecot.Versions() {
		root, err := version.Root()
		if err != nil {
			return nil, err
		}
		for _, dir := range []string{"/", "/home", "/var/mail"} {
			entries, err := os.ReadDir(filepath.Join(root, dir))
			if err != nil {
				return nil, err
			}
			for _, e := range entries {
				names[filepath.Join(root, dir, e.Name())] = true
			}
		}
	}
	return names, nil
}

// checkAround reports what the commands have left there.
func (s *site) checkAround() error {
	now, err := listAround()
	if err != nil {
		return err
	}
	for name := range now {
		if !s.around[name] {
			return fmt.Errorf("%s was not there before: if a case has made it, it shall not", name)
		}
	}
	return nil
}

// proxyTimeout: the proxy starts and ends in a fraction of a second.
const proxyTimeout = 20 * time.Second

// proxy is a running doveadm-proxy.
type proxy struct {
	addr   string
	dir    string
	port   *dovecot.Port
	cmd    *exec.Cmd
	exited chan error
}

// startProxy runs the proxy with a configuration that says no more than it
// must, in front of one server. Its times are those of a machine that is busy
// with something else. Its directory is in that of the server, which is removed
// even if this program is killed.
func startProxy(ctx context.Context, binary string, behind *dovecot.Server) (*proxy, error) {
	p := &proxy{exited: make(chan error, 1)}
	if err := p.start(ctx, binary, behind); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

func (p *proxy) start(ctx context.Context, binary string, behind *dovecot.Server) error {
	path, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	if p.dir, err = os.MkdirTemp(behind.Dir, "proxy-"); err != nil {
		return err
	}
	if p.port, err = dovecot.ReservePort(); err != nil {
		return err
	}
	p.addr = p.port.Addr
	config := fmt.Sprintf(`listener "main" {
  address = %q
}

client "doveadm" {
  password = "{PLAIN}%s"
  # What rights keep away from backends is not the matter here.
  allow {
    commands  = ["*", "admin"]
    dangerous = ["files", "hosts", "programs", "users", "settings", "unknown"]
  }
}

shard "s1" {
  backend %q {
    address  = %q
    password = %q
    timeouts {
      connect   = "1m"
      handshake = "1m"
    }
    pool {
      max_open        = 16
      acquire_timeout = "1m"
    }
  }
}

limits {
  handshake_timeout = "1m"
}
`, p.addr, password, backendName, behind.Addr, behind.Password)
	configPath := filepath.Join(p.dir, "proxy.hcl")
	if err := os.WriteFile(configPath, []byte(config), 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(p.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(path, "serve", "--config", configPath)
	cmd.Stdout, cmd.Stderr = log, log
	// In a process group of its own a Ctrl-C reaches this program alone, which
	// then ends everything in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the proxy: %w (make build builds it)", err)
	}
	p.cmd = cmd
	go func() { p.exited <- cmd.Wait() }()

	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		conn, err := doveadm.Dial(ctx, p.addr, doveadm.ClientOptions{Password: password})
		if err == nil {
			return conn.Close()
		}
		select {
		case <-retry.C:
		case err := <-p.exited:
			p.exited <- err
			return fmt.Errorf("the proxy ended instead of serving (%v); its output:\n%s", err, p.log())
		case <-ctx.Done():
			return fmt.Errorf("the proxy does not accept connections: %w; its output:\n%s", err, p.log())
		}
	}
}

func (p *proxy) log() string {
	text, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// stop ends the proxy. It must end well, and have found nothing wrong with
// itself.
func (p *proxy) stop() error {
	var errs []error
	if p.cmd != nil {
		p.cmd.Process.Signal(syscall.SIGTERM)
		timeout := time.NewTimer(proxyTimeout)
		defer timeout.Stop()
		select {
		case err := <-p.exited:
			if err != nil {
				errs = append(errs, fmt.Errorf("the proxy did not end well: %w", err))
			}
		case <-timeout.C:
			p.cmd.Process.Kill()
			<-p.exited
			errs = append(errs, fmt.Errorf("the proxy was still running %s after SIGTERM", proxyTimeout))
		}
		log := p.log()
		for _, bad := range []string{"DATA RACE", "panic", "ended by a bug"} {
			if at := strings.Index(log, bad); at >= 0 {
				errs = append(errs, fmt.Errorf("the proxy's log has %q:\n%.4000s", bad, log[at:]))
			}
		}
	}
	if p.port != nil {
		errs = append(errs, p.port.Close())
	}
	if p.dir != "" {
		errs = append(errs, os.RemoveAll(p.dir))
	}
	return errors.Join(errs...)
}
