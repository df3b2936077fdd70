package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// The proxy starts and ends in a fraction of a second.
const (
	proxyStartTimeout = 15 * time.Second
	proxyStopTimeout  = 15 * time.Second
)

// clientPassword is what the proxy's client logs in with. The backends have
// passwords of their own, which no client knows.
const clientPassword = "demo-password"

// shard is a shard of one backend.
type shard struct {
	Name   string
	Server *dovecot.Server
	Users  []string
}

// site is a small mail site: three shards, and the proxy in front of them.
type site struct {
	dir    string // of the proxy
	shards []*shard
	port   *dovecot.Port // of the proxy
	proxy  *exec.Cmd
	exited chan error // gets the proxy's end
	client dovecot.Client
}

var configTemplate = template.Must(template.New("config").Parse(`listener "main" {
  address = "{{.Addr}}"
}

client "doveadm" {
  password = "{{.Hash}}"
}
{{range .Shards}}
shard "{{.Name}}" {
  backend "{{.Server.Name}}" {
    address       = "{{.Server.Addr}}"
    password_file = "{{$.Dir}}/{{.Server.Name}}.password"
  }
}
{{end}}
route "file" {
  path = "{{.Dir}}/users.map"
}
`))

// startSite starts everything. On an error nothing is left.
func startSite(ctx context.Context, binary string) (*site, error) {
	s := &site{shards: []*shard{
		{Name: "north", Users: []string{"alice", "dave"}},
		{Name: "south", Users: []string{"bob", "erin"}},
		{Name: "west", Users: []string{"carol", "frank"}},
	}}
	if err := s.start(ctx, binary); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *site) start(ctx context.Context, binary string) error {
	for n, shard := range s.shards {
		server, err := dovecot.Start(ctx, dovecot.Options{Name: fmt.Sprintf("mail%d", n+1), Users: shard.Users, Quota: "100M"})
		if err != nil {
			return err
		}
		shard.Server = server
		if err := server.Seed(n + 1); err != nil {
			return err
		}
	}
	var err error
	if s.dir, err = os.MkdirTemp("/tmp", "demo-"); err != nil {
		return err
	}
	if s.port, err = dovecot.ReservePort(); err != nil {
		return err
	}
	if err := s.writeFiles(ctx); err != nil {
		return err
	}
	s.client = dovecot.Client{Addr: s.port.Addr, Config: filepath.Join(s.dir, "doveadm.conf")}
	return s.startProxy(ctx, binary)
}

// writeFiles writes the configurations of the proxy and of the doveadm command.
func (s *site) writeFiles(ctx context.Context) error {
	// The hash is Dovecot's own: the proxy understands what doveadm pw writes.
	hash, err := s.shards[0].Server.Doveadm(ctx, "pw", "-s", "ARGON2ID", "-p", clientPassword)
	if err != nil {
		return err
	}
	if hash.ExitCode != 0 {
		return fmt.Errorf("doveadm pw: exit code %d: %s", hash.ExitCode, hash.Stderr)
	}
	var users, config bytes.Buffer
	files := map[string][]byte{
		"doveadm.conf": []byte("doveadm_password = " + clientPassword + "\nmail_plugins = quota acl\nssl = no\n"),
	}
	for _, shard := range s.shards {
		for _, user := range shard.Users {
			fmt.Fprintf(&users, "%s %s\n", user, shard.Name)
		}
		files[shard.Server.Name+".password"] = []byte(shard.Server.Password + "\n")
	}
	err = configTemplate.Execute(&config, map[string]any{
		"Addr": s.port.Addr, "Dir": s.dir, "Shards": s.shards, "Hash": strings.TrimSpace(hash.Stdout),
	})
	if err != nil {
		return err
	}
	files["users.map"] = users.Bytes()
	files["proxy.hcl"] = config.Bytes()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// startProxy starts the proxy and returns when it accepts connections.
func (s *site) startProxy(ctx context.Context, binary string) error {
	path, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(s.dir, "proxy.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.proxy = exec.Command(path, "serve", "--config", filepath.Join(s.dir, "proxy.hcl"))
	s.proxy.Stdout, s.proxy.Stderr = log, log
	// In a process group of its own a Ctrl-C reaches the demo alone, which
	// then ends everything in order.
	s.proxy.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.proxy.Start(); err != nil {
		s.proxy = nil
		return fmt.Errorf("start the proxy: %w (make build builds it)", err)
	}
	s.exited = make(chan error, 1)
	go func() { s.exited <- s.proxy.Wait() }()

	ctx, cancel := context.WithTimeout(ctx, proxyStartTimeout)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		conn, err := net.Dial("tcp", s.port.Addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-retry.C:
		case err := <-s.exited:
			s.proxy = nil // nothing left to stop
			return fmt.Errorf("the proxy ended instead of serving (%v); its output:\n%s", err, s.proxyLog())
		case <-ctx.Done():
			return fmt.Errorf("the proxy does not accept connections: %w; its output:\n%s", ctx.Err(), s.proxyLog())
		}
	}
}

func (s *site) proxyLog() string {
	text, err := os.ReadFile(filepath.Join(s.dir, "proxy.log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// close ends everything and removes it. A proxy that does not end well when
// told to is an error.
func (s *site) close() error {
	var errs []error
	if s.proxy != nil {
		errs = append(errs, s.stopProxy())
	}
	for _, shard := range s.shards {
		if shard.Server != nil {
			errs = append(errs, shard.Server.Close())
		}
	}
	if s.port != nil {
		errs = append(errs, s.port.Close())
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}

// stopByHand stops backends that somebody started by hand: they are not among
// the processes that close knows. doveadm fails where there is nothing to stop.
func (s *site) stopByHand() {
	for _, shard := range s.shards {
		ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
		shard.Server.Doveadm(ctx, "stop")
		cancel()
	}
}

func (s *site) stopProxy() error {
	if err := s.proxy.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	timeout := time.NewTimer(proxyStopTimeout)
	defer timeout.Stop()
	select {
	case err := <-s.exited:
		if err != nil {
			return fmt.Errorf("the proxy did not end well: %w; its log:\n%s", err, s.proxyLog())
		}
		return nil
	case <-timeout.C:
		s.proxy.Process.Kill()
		<-s.exited
		return fmt.Errorf("the proxy was still running %s after SIGTERM; its log:\n%s", proxyStopTimeout, s.proxyLog())
	}
}
