package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/chaos/ledger"
	"github.com/doveadm-proxy/doveadm-proxy/internal/fault"
)

// trouble is a kind of fault.
type trouble struct {
	name string
	on   []string // it hits one of these
	// part is what it works on. Two at the same part of the same target would
	// undo each other.
	part              string
	garbles, harmless bool // see ledger.Window
	make              func(s *site, target string, random *rand.Rand) action
}

// action is a fault that is going to be made. Each function may be nil but
// begin. End is called also after a begin that failed.
type action struct {
	begin  func(ctx context.Context) error
	repeat func(ctx context.Context) error // now and then while it lasts
	end    func(ctx context.Context) error
}

// Parts of targets.
const (
	processes = "processes"
	link      = "link"
	disk      = "disk"
	clock     = "clock"
)

var (
	servers = []string{mail1, mail2, mail3, mail4}
	allLink = []string{mail2, mail3, mail4, linked, withTLS}
	plain   = []string{mail3, mail4, linked} // what has no checksums of its own
)

// spread is within how many bytes a connection ends: in the login, in a small
// reply or in a large one.
const spread = 20_000

// troubles are all of them.
func troubles() []trouble {
	return []trouble{
		{name: "link: delay", on: allLink, part: link, make: onLink(fault.Fault{Delay: 20 * time.Millisecond})},
		{name: "link: jitter", on: allLink, part: link, make: onLink(fault.Fault{Jitter: 100 * time.Millisecond})},
		{name: "link: drip", on: allLink, part: link, make: onLink(fault.Fault{Drip: 32, Delay: 2 * time.Millisecond})},
		{name: "link: cut", on: allLink, part: link, make: onLink(fault.Fault{End: fault.Cut, Spread: spread})},
		{name: "link: reset", on: allLink, part: link, make: onLink(fault.Fault{End: fault.Reset, Spread: spread})},
		{name: "link: replies lost", on: []string{mail2, mail3, mail4}, part: link, make: loseReplies},
		{name: "link: silence", on: allLink, part: link, make: onLink(fault.Fault{End: fault.Silence, Spread: spread})},
		{name: "link: half-close", on: allLink, part: link, make: onLink(fault.Fault{End: fault.HalfClose, Spread: spread})},
		{name: "link: status corrupted", on: plain, part: link, make: corrupts(fault.Status, fault.ToClient)},
		{name: "link: bits, in TLS", on: []string{mail2, withTLS}, part: link, make: corrupts(fault.Bits, fault.Both)},
		{name: "link: bits of replies", on: []string{mail3, mail4}, part: link, garbles: true, make: corrupts(fault.Bits, fault.ToClient)},

		{name: "doveadm-server: SIGKILL", on: servers, part: processes, make: killServers},
		{name: "doveadm-server: SIGSTOP", on: servers, part: processes, make: stops("doveadm-server")},
		{name: "auth: SIGSTOP", on: servers, part: processes, make: stops("auth")},
		{name: "master: SIGSTOP", on: servers, part: processes, make: stops("dovecot")},
		{name: "master: SIGKILL", on: servers, part: processes, make: killMaster},
		{name: "Dovecot: SIGSTOP", on: servers, part: processes, make: stops("")},
		{name: "Dovecot: SIGKILL", on: servers, part: processes, make: killAll},
		{name: "Dovecot: restart", on: servers, part: processes, make: restart},
		{name: "Dovecot: reload", on: servers, part: processes, make: reload},
		{name: "process_limit reached", on: []string{mail1}, part: processes, make: reachLimit},
		{name: "certificate expired", on: []string{mail2}, part: processes, make: expire},
		{name: "disk full", on: []string{mail3}, part: disk, make: fillDisk},
		{name: "clock: an hour ahead", on: []string{mail1}, part: clock, make: jump(time.Hour)},
		{name: "clock: an hour back", on: []string{mail1}, part: clock, make: jump(-time.Hour)},
		{name: "name: unknown", on: []string{mail3}, part: link, make: forgetName},
		{name: "name: no server", on: []string{mail3}, part: link, make: stopNames},
		{name: "name: changes", on: []string{mail3}, part: link, make: move},

		{name: "operator: drain", on: []string{mail2, mail4}, part: ledger.Proxy, harmless: true, make: drain},
		{name: "proxy: reload", on: []string{ledger.Proxy}, part: ledger.Proxy, harmless: true, make: reloadProxy},
		{name: "proxy: restart", on: []string{ledger.Proxy}, part: ledger.Proxy, harmless: true, make: restartProxy},
		{name: "proxy: SIGKILL", on: []string{ledger.Proxy}, part: ledger.Proxy, make: killProxy},
	}
}

// onLink sets a fault in a random direction.
func onLink(f fault.Fault) func(*site, string, *rand.Rand) action {
	return func(s *site, target string, random *rand.Rand) action {
		f := f
		f.Direction = fault.Direction(random.IntN(3))
		if f.End != fault.Open && random.IntN(3) == 0 {
			f.Spread = 200 // hits logins and small replies
		}
		return set(s, target, f)
	}
}

func corrupts(c fault.Corruption, d fault.Direction) func(*site, string, *rand.Rand) action {
	return func(s *site, target string, _ *rand.Rand) action {
		return set(s, target, fault.Fault{Corrupt: c, Direction: d})
	}
}

func set(s *site, target string, f fault.Fault) action {
	return action{
		begin: func(context.Context) error { s.link(target).Set(f); return nil },
		end: func(context.Context) error {
			s.link(target).Set(fault.Fault{})
			return nil
		},
	}
}

// loseReplies resets, again and again for a moment, each connection on which a
// reply begins: what it belongs to has run.
func loseReplies(s *site, target string, _ *rand.Rand) action {
	lose := func(ctx context.Context) error {
		for range 3 {
			s.link(target).Set(fault.Fault{End: fault.Reset, Direction: fault.ToClient})
			pause(ctx, 25*time.Millisecond)
			s.link(target).Set(fault.Fault{})
			pause(ctx, 50*time.Millisecond)
		}
		return nil
	}
	return action{begin: lose, repeat: lose}
}

func killServers(s *site, target string, _ *rand.Rand) action {
	kill := func(context.Context) error { return s.backends[target].signal("doveadm-server", syscall.SIGKILL) }
	return action{begin: kill, repeat: kill, end: s.backends[target].resume}
}

func stops(name string) func(*site, string, *rand.Rand) action {
	return func(s *site, target string, _ *rand.Rand) action {
		b := s.backends[target]
		stop := func(context.Context) error { return b.signal(name, syscall.SIGSTOP) }
		return action{begin: stop, repeat: stop, end: b.resume}
	}
}

func killMaster(s *site, target string, _ *rand.Rand) action {
	b := s.backends[target]
	return action{begin: func(context.Context) error { return b.signal("dovecot", syscall.SIGKILL) }, end: b.resume}
}

func killAll(s *site, target string, _ *rand.Rand) action {
	b := s.backends[target]
	return action{begin: func(context.Context) error { return b.Kill() }, end: b.resume}
}

func restart(s *site, target string, _ *rand.Rand) action {
	b := s.backends[target]
	return action{begin: b.Restart, end: b.resume}
}

func reload(s *site, target string, _ *rand.Rand) action {
	b := s.backends[target]
	return action{begin: b.Reload, end: b.resume}
}

// reachLimit occupies all processes with connections of somebody else.
func reachLimit(s *site, target string, _ *rand.Rand) action {
	b := s.backends[target]
	var held []net.Conn
	hold := func(ctx context.Context) error {
		d := net.Dialer{Timeout: 200 * time.Millisecond}
		for len(b.Processes("doveadm-server")) < limitOf1 {
			nc, err := d.DialContext(ctx, "tcp", b.Addr)
			if err != nil {
				return nil // others were faster, and a backlog is full
			}
			held = append(held, nc)
			nc.SetDeadline(time.Now().Add(200 * time.Millisecond))
			if _, err := doveadm.NewClientConn(nc, doveadm.ClientOptions{Password: b.Password}); err != nil {
				break
			}
		}
		return nil
	}
	return action{begin: hold, repeat: hold, end: func(ctx context.Context) error {
		for _, nc := range held {
			nc.Close()
		}
		return b.resume(ctx)
	}}
}

// expire makes a certificate that is not valid any more the backend's.
func expire(s *site, target string, _ *rand.Rand) action {
	b := s.backends[target]
	use := func(name string) func(ctx context.Context) error {
		return func(ctx context.Context) error {
			if err := s.certs.use(name, "server.pem"); err != nil {
				return err
			}
			if err := b.Reload(ctx); err != nil {
				return err
			}
			// Connections that there are would live on without it.
			return b.signal("doveadm-server", syscall.SIGKILL)
		}
	}
	return action{begin: use("expired.pem"), end: use("good.pem")}
}

func fillDisk(s *site, target string, _ *rand.Rand) action {
	b := s.backends[target]
	return action{
		begin: func(context.Context) error { return b.fill() },
		end:   func(context.Context) error { return os.Remove(b.filler()) },
	}
}

func jump(d time.Duration) func(*site, string, *rand.Rand) action {
	return func(s *site, target string, _ *rand.Rand) action {
		b := s.backends[target]
		return action{
			begin: func(context.Context) error { return setClock(b.clock, d) },
			end:   func(context.Context) error { return setClock(b.clock, 0) },
		}
	}
}

// forgetName makes the name of mail3 unknown.
func forgetName(s *site, target string, _ *rand.Rand) action {
	return action{
		begin: func(ctx context.Context) error {
			err := s.names.set(ctx, nameOf3, "")
			s.link(target).Drop() // else nobody would ask
			return err
		},
		end: func(ctx context.Context) error { return s.names.set(ctx, nameOf3, "127.0.0.1") },
	}
}

func stopNames(s *site, target string, _ *rand.Rand) action {
	return action{
		begin: func(context.Context) error {
			err := s.names.signal(syscall.SIGSTOP)
			s.link(target).Drop()
			return err
		},
		end: func(context.Context) error { return s.names.signal(syscall.SIGCONT) },
	}
}

// move gives mail3 another address, at which it is while the fault lasts: its
// old one refuses, and the name says the new one.
func move(s *site, target string, _ *rand.Rand) action {
	b := s.backends[target]
	there := func(ctx context.Context, ip string) error {
		old := b.link
		_, port, _ := net.SplitHostPort(old.Addr)
		if err := old.Close(); err != nil {
			return err
		}
		var err error
		b.link, err = fault.Listen(net.JoinHostPort(ip, port), b.Addr, 0)
		if err != nil {
			return fmt.Errorf("move %s: %w", target, err)
		}
		s.setLink(target, b.link)
		return s.names.set(ctx, nameOf3, ip)
	}
	return action{
		begin: func(ctx context.Context) error { return there(ctx, "127.0.0.3") },
		end:   func(ctx context.Context) error { return there(ctx, "127.0.0.1") },
	}
}

// reloadProxy takes the other configuration over, whose pools are others.
func reloadProxy(s *site, _ string, _ *rand.Rand) action {
	return action{begin: func(context.Context) error {
		s.configs[0], s.configs[1] = s.configs[1], s.configs[0]
		if err := os.WriteFile(s.daemon.config, []byte(s.configs[0]), 0o600); err != nil {
			return err
		}
		return s.daemon.cmd.Process.Signal(syscall.SIGHUP)
	}}
}

// drain takes one of the two ways to a server out of service.
func drain(s *site, target string, random *rand.Rand) action {
	name := target
	if random.IntN(2) == 0 {
		name += "-other"
	}
	tell := func(verb string) func(context.Context) error {
		return func(ctx context.Context) error { return s.daemon.tell(ctx, verb, name) }
	}
	return action{begin: tell("drain"), end: tell("resume")}
}

// restartProxy is what systemctl restart does: the old process finishes what it
// has while the next one serves already.
func restartProxy(s *site, _ string, _ *rand.Rand) action {
	return action{begin: func(ctx context.Context) error {
		if err := s.daemon.end(syscall.SIGTERM); err != nil {
			return err
		}
		return s.daemon.start(ctx)
	}}
}

func killProxy(s *site, _ string, _ *rand.Rand) action {
	return action{
		begin: func(context.Context) error { return s.daemon.end(syscall.SIGKILL) },
		end:   s.daemon.start,
	}
}
