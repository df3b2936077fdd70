package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"text/template"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/chaos/ledger"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/fault"
)

const clientPassword = "client-password"

// The ways of clients.
const (
	direct  = ledger.Client + "direct"
	linked  = ledger.Client + "link"
	withTLS = ledger.Client + "tls"
)

// The backends, each a shard of its own.
const (
	mail1 = "mail1" // reached directly, with a process_limit and a clock of its own
	mail2 = "mail2" // reached over TLS; its standby is the same server past the link
	mail3 = "mail3" // reached by a name, with a disk of its own
	mail4 = "mail4" // Dovecot 2.4; its equal is the same server past the link
)

// nameOf3 is the name of mail3.
const nameOf3 = "mail3.chaos.test"

// site is everything: backends, the proxy, and what can be broken.
type site struct {
	options
	dir      string
	ledger   *ledger.Ledger
	random   *rand.Rand // of what is decided before the load begins
	certs    *certs
	names    *names
	backends map[string]*backend
	daemon   *daemon
	configs  [2]string // of the proxy, in turns
	workers  []*worker
	closers  []func() error // in reverse order

	mu    sync.Mutex             // guards links
	links map[string]*fault.Link // by the target that they are in the way of
}

func newSite(o options) *site {
	return &site{
		options:  o,
		ledger:   &ledger.Ledger{},
		random:   rand.New(rand.NewPCG(o.seed, 0)),
		backends: make(map[string]*backend),
		links:    make(map[string]*fault.Link),
	}
}

func (s *site) link(target string) *fault.Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.links[target]
}

func (s *site) setLink(target string, l *fault.Link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links[target] = l
}

var configTemplate = template.Must(template.New("config").Parse(`
log { level = "info" }
listener "main" {
  address = "{{.Main}}"
}
listener "tls" {
  address = "{{.TLS}}"
  tls {
    cert_file = "{{.Dir}}/good.pem"
    key_file  = "{{.Dir}}/key.pem"
    mode      = "implicit"
  }
}
client "doveadm" {
  password = "{PLAIN}{{.Password}}"
  # who and kick are among the commands.
  allow {
    commands = ["*", "admin"]
  }
}
client "bulk" {
  password = "{PLAIN}{{.Password}}"
  priority = "bulk"
  allow {
    commands = ["*", "admin"]
  }
}
# Shorter than the defaults throughout, so that ten minutes see each of them
# pass many times.
backend_defaults {
  pool {
    max_open        = {{.MaxOpen}}
    idle_timeout    = "3s"
    max_lifetime    = "20s"
    acquire_timeout = "10s"
  }
  breaker {
    failures = 3
    open     = "1s"
  }
  health_check {
    interval = "3s"
    timeout  = "8s"
    fall     = 2
  }
  timeouts {
    connect   = "3s"
    handshake = "6s"
    reply     = "6s"
    write     = "6s"
  }
}
admin {
  address    = "unix:{{.Dir}}/admin.sock"
  state_file = "{{.Dir}}/operator.json"
}
limits {
  drain_timeout = "10s"
  write_timeout = "10s"
  spool_dir     = "{{.Dir}}"
}
{{range .Backends}}
shard "{{.Name}}" {
  {{.Balance}}
  backend "{{.Name}}" {
    password = "{{.Password}}"
    {{.Block}}
    health_check {
      user = "{{.User}}"
    }
  }
  {{if .Other}}
  backend "{{.Name}}-other" {
    password = "{{.Password}}"
    {{.Other}}
  }
  {{end}}
}
route "match" {
  users = ["*-{{.Name}}"]
  shard = "{{.Name}}"
}
{{end}}`))

// start starts everything. The caller calls close, whatever start returns.
func (s *site) start(ctx context.Context) error {
	var err error
	if s.dir, err = os.MkdirTemp("/tmp", "chaos-"); err != nil {
		return err
	}
	// Dovecot's processes read a clock there, as another user.
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return err
	}
	if s.certs, err = newCerts(s.dir); err != nil {
		return err
	}
	if s.names, err = startNames(ctx, s.dir); err != nil {
		return err
	}
	s.closers = append(s.closers, s.names.close)
	s.plan()
	for _, b := range []struct {
		name  string
		start func(ctx context.Context, o dovecot.Options) (*backend, error)
	}{{mail1, s.start1}, {mail2, s.start2}, {mail3, s.start3}, {mail4, s.start4}} {
		users := s.usersOf(b.name)
		o := dovecot.Options{Name: b.name, Users: []string{controlUser(b.name)}}
		for _, u := range users {
			o.Users = append(o.Users, u.name)
		}
		backend, err := b.start(ctx, o)
		if backend != nil {
			s.backends[b.name] = backend
			s.closers = append(s.closers, backend.close)
		}
		if err == nil {
			err = s.prepare(ctx, backend, users)
		}
		if err != nil {
			return err
		}
	}
	return s.startProxy(ctx)
}

// quotaConfig gives each user's quota a name that tells whose it is.
const quotaConfig = "plugin {\n  quota = count:" + "Quota of %u" + "\n}\n"

func (s *site) start1(ctx context.Context, o dovecot.Options) (*backend, error) {
	lib, err := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if err != nil || len(lib) == 0 {
		return nil, errors.New("libfaketime is not installed: apt-get install --yes libfaketime")
	}
	clock := filepath.Join(s.dir, "clock")
	if err := setClock(clock, 0); err != nil {
		return nil, err
	}
	o.ProcessLimit = limitOf1
	o.Config = quotaConfig + fmt.Sprintf("import_environment = TZ LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=%s FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1\n", lib[0], clock)
	server, err := dovecot.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	return &backend{Server: server, clock: clock, block: fmt.Sprintf("address = %q", server.Addr)}, nil
}

// limitOf1 is the process_limit of mail1, more than the proxy's max_open.
const limitOf1 = 20

// setClock makes a file for libfaketime.
func setClock(path string, offset time.Duration) error {
	return os.WriteFile(path, fmt.Appendf(nil, "%+d\n", int(offset/time.Second)), 0o644)
}

func (s *site) start2(ctx context.Context, o dovecot.Options) (*backend, error) {
	port, err := dovecot.ReservePort()
	if err != nil {
		return nil, err
	}
	s.closers = append(s.closers, port.Close)
	if err := s.certs.use("good.pem", "server.pem"); err != nil {
		return nil, err
	}
	_, number, _ := net.SplitHostPort(port.Addr)
	o.Config = quotaConfig + fmt.Sprintf(`ssl = yes
ssl_cert = <%s
ssl_key = <%s
service doveadm {
  inet_listener tls {
    address = 127.0.0.1
    port = %s
    ssl = yes
  }
}
`, s.certs.path("server.pem"), s.certs.path("key.pem"), number)
	b, err := s.startLinked(ctx, o, port.Addr)
	if err == nil {
		b.tlsAddr = port.Addr
		address := func(addr string) string {
			return fmt.Sprintf("address = %q\n tls {\n mode = \"implicit\"\n ca_file = %q\n }\n", addr, s.certs.path("ca.pem"))
		}
		b.block, b.other = address(b.link.Addr), address(b.tlsAddr)+"standby = true"
	}
	return b, err
}

func (s *site) start3(ctx context.Context, o dovecot.Options) (*backend, error) {
	o.Config = quotaConfig
	b, err := s.startLinked(ctx, o, "")
	if err != nil {
		return b, err
	}
	_, port, _ := net.SplitHostPort(b.link.Addr)
	b.block = fmt.Sprintf("address = %q", net.JoinHostPort(nameOf3, port))
	return b, errors.Join(b.mountDisk(), s.names.set(ctx, nameOf3, "127.0.0.1"))
}

func (s *site) start4(ctx context.Context, o dovecot.Options) (*backend, error) {
	o.Version = dovecot.V24
	b, err := s.startLinked(ctx, o, "")
	if err == nil {
		b.block, b.other = fmt.Sprintf("address = %q", b.link.Addr), fmt.Sprintf("address = %q", b.Addr)
		b.balance = `balance = "user"`
	}
	return b, err
}

// startLinked starts a server with a link in front of addr, or of its ordinary
// listener.
func (s *site) startLinked(ctx context.Context, o dovecot.Options, addr string) (*backend, error) {
	server, err := dovecot.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	if addr == "" {
		addr = server.Addr
	}
	b := &backend{Server: server}
	if b.link, err = fault.Listen("127.0.0.1:0", addr, s.random.Uint64()); err == nil {
		s.setLink(o.Name, b.link)
	}
	return b, err
}

// prepare seeds the mail and asks for what cannot be known before.
func (s *site) prepare(ctx context.Context, b *backend, users []*user) error {
	if err := b.seed(); err != nil {
		return err
	}
	c, err := doveadm.Dial(ctx, b.Addr, doveadm.ClientOptions{Password: b.Password})
	if err != nil {
		return err
	}
	defer c.Close()
	for _, u := range users {
		u.version = b.Version
		if u.guid, err = guid(c, u.name, archive); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) startProxy(ctx context.Context) error {
	s.daemon = &daemon{
		binary: absolute(s.binary), config: filepath.Join(s.dir, "proxy.hcl"), log: filepath.Join(s.dir, "proxy.log"),
	}
	s.closers = append(s.closers, s.daemon.close)
	var addrs [2]string
	for n, name := range []string{"main", "tls"} {
		var err error
		if addrs[n], err = s.daemon.listen(name); err != nil {
			return err
		}
	}
	var backends []map[string]string
	for _, name := range []string{mail1, mail2, mail3, mail4} {
		b := s.backends[name]
		backends = append(backends, map[string]string{
			"Name": name, "Password": b.Password, "User": controlUser(name), "Block": b.block, "Other": b.other, "Balance": b.balance,
		})
	}
	for n := range s.configs {
		var text bytes.Buffer
		err := configTemplate.Execute(&text, map[string]any{
			"Main": addrs[0], "TLS": addrs[1], "Dir": s.dir, "Password": clientPassword,
			"MaxOpen": 6 - n, "Backends": backends,
		})
		if err != nil {
			return err
		}
		s.configs[n] = text.String()
	}
	if err := os.WriteFile(s.daemon.config, []byte(s.configs[0]), 0o600); err != nil {
		return err
	}
	for name, addr := range map[string]string{linked: addrs[0], withTLS: addrs[1]} {
		link, err := fault.Listen("127.0.0.1:0", addr, s.random.Uint64())
		if err != nil {
			return err
		}
		s.setLink(name, link)
		s.closers = append(s.closers, link.Close)
	}
	for _, w := range s.workers {
		switch w.way.name {
		case direct:
			w.way.addr = addrs[0]
		case withTLS:
			w.way.tls = &tls.Config{RootCAs: s.certs.pool, ServerName: "127.0.0.1"}
			fallthrough
		default:
			w.way.addr = s.link(w.way.name).Addr
		}
	}
	return s.daemon.start(ctx)
}

// plan makes the workers and their users.
func (s *site) plan() {
	shards := []string{mail1, mail2, mail3, mail4}
	add := func(w worker, shards ...string) {
		n := len(s.workers) + 1
		w.ledger, w.password = s.ledger, clientPassword
		w.random = rand.New(rand.NewPCG(s.seed, uint64(n)))
		for _, shard := range shards {
			for _, letter := range "ab" {
				w.users = append(w.users, &user{name: fmt.Sprintf("u%d%c-%s", n, letter, shard), shard: shard})
			}
		}
		s.workers = append(s.workers, &w)
	}
	const pause = 60 * time.Millisecond
	// Who works at one backend alone is not held up by another's trouble.
	for n, shard := range shards {
		add(worker{way: way{name: direct}, perSession: 1, pause: pause}, shard)
		add(worker{way: way{name: []string{linked, withTLS}[n%2]}, perSession: 30, pause: pause}, shard)
	}
	// The others go everywhere.
	add(worker{way: way{name: direct}, perSession: 100, pause: pause}, shards...)
	add(worker{way: way{name: linked}, perSession: 1, pause: pause}, shards...)
	add(worker{way: way{name: direct}, perSession: 60, ahead: 8, pause: pause}, shards...)
	add(worker{way: way{name: linked}, perSession: 60, ahead: 8, pause: pause}, shards...)
	add(worker{way: way{name: withTLS}, perSession: 40, ahead: 4, pause: pause}, shards...)
	add(worker{way: way{name: direct}, username: "bulk", perSession: 80, ahead: 8, pause: pause}, shards...)
	add(worker{way: way{name: direct}, perSession: 20, ahead: 3, leaves: true, pause: 2 * pause}, shards...)
}

func (s *site) usersOf(shard string) []*user {
	var found []*user
	for _, w := range s.workers {
		for _, u := range w.users {
			if u.shard == shard {
				found = append(found, u)
			}
		}
	}
	return found
}

// close ends everything and removes it, but for the directory if keep.
func (s *site) close(keep bool) error {
	var errs []error
	if keep {
		for name, b := range s.backends {
			errs = append(errs, os.WriteFile(filepath.Join(s.dir, name+".log"), []byte(b.Log()), 0o600))
		}
	}
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	if s.dir != "" && !keep {
		// What is mounted over the system's files is one of ours.
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
