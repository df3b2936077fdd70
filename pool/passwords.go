package pool

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/watch"
)

// passwords are those of a backend: the current one, and while it is being
// replaced the old one, which the backend takes until its configuration is
// changed. A refused login is followed by another with the other password, so
// that the order in which the two sides change does not matter.
type passwords struct {
	log    hclog.Logger
	static pair
	files  *watch.Files[pair] // nil: they stand in the configuration

	mu     sync.Mutex    // guards what follows
	worked config.Secret // what the backend took last
	told   pair          // whose rotation the log knows of
}

// pair is the passwords at one moment.
type pair struct {
	current, old config.Secret // old may be empty
}

func (p pair) equal(o pair) bool { return p.current.Equal(o.current) && p.old.Equal(o.old) }

// without returns what is in p and not in o.
func (p pair) without(o pair) pair {
	in := func(s config.Secret) bool { return s.Equal(o.current) || s.Equal(o.old) }
	switch {
	case in(p.current) && in(p.old):
		return pair{}
	case in(p.current):
		return pair{current: p.old}
	case in(p.old):
		return pair{current: p.current}
	}
	return p
}

func newPasswords(b config.Backend, log hclog.Logger) *passwords {
	p := &passwords{log: log, static: pair{b.Password, b.OldPassword}}
	if b.PasswordFile != "" {
		p.files = watch.New(watch.Options[pair]{
			Name: "Password files", Log: log,
			Build: func(contents map[string][]byte) (pair, error) {
				current, old, err := config.ParsePasswords(contents[b.PasswordFile])
				return pair{current, old}, err
			},
		}, b.PasswordFile)
	}
	return p
}

// now returns the passwords as they are, fresh with a look at the file however
// short ago the last one was.
func (p *passwords) now(fresh bool) pair {
	if p.files == nil {
		return p.static
	}
	look := p.files.Value
	if fresh {
		look = p.files.Fresh
	}
	if v, err := look(); err == nil {
		return v
	}
	return p.static // what the configuration was loaded with
}

// each tries the passwords until one is not refused: that which worked last
// first, else the current one before the old one. If all are refused, the file
// may have changed just now.
func (p *passwords) each(login func(config.Secret) (*doveadm.ClientConn, error)) (*doveadm.ClientConn, error) {
	now := p.now(false)
	c, err := p.try(now, now, login)
	if errors.Is(err, ErrBackendLogin) && p.files != nil {
		changed := p.now(true)
		if more := changed.without(now); !more.current.Empty() {
			return p.try(more, changed, login)
		}
	}
	return c, err
}

// try logs in with one of order, which are of now.
func (p *passwords) try(order, now pair, login func(config.Secret) (*doveadm.ClientConn, error)) (*doveadm.ClientConn, error) {
	p.mu.Lock()
	if !order.old.Empty() && p.worked.Equal(order.old) {
		order = pair{order.old, order.current}
	}
	p.mu.Unlock()
	c, err := login(order.current)
	used := order.current
	if errors.Is(err, ErrBackendLogin) && !order.old.Empty() {
		c, err = login(order.old)
		used = order.old
	}
	if err == nil {
		p.took(used, now)
	}
	return c, err
}

// took remembers what the backend took, and tells how far a rotation is.
func (p *passwords) took(s config.Secret, now pair) {
	p.mu.Lock()
	changed := !p.worked.Equal(s) || !p.told.equal(now)
	p.worked, p.told = s, now
	p.mu.Unlock()
	switch {
	case now.old.Empty() || !changed:
	case s.Equal(now.old):
		p.log.Warn("backend refuses the new password and takes the old one: its doveadm_password is still to be changed")
	default:
		p.log.Info("backend takes the new password: the old one is not used any more, remove it when all backends do")
	}
}

// Password is what is known about the password of a backend, without it.
type Password struct {
	File    string    // that it is read from; empty: the configuration
	Changed time.Time // when the file was written; zero: unknown
	HasOld  bool      // it is being replaced
	UsesOld bool      // the backend takes the old one, and not yet the new one
}

func (p *passwords) state(file string) Password {
	now := p.now(false)
	s := Password{File: file, HasOld: !now.old.Empty()}
	if p.files != nil {
		s.Changed = p.files.Changed()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.UsesOld = s.HasOld && p.worked.Equal(now.old)
	return s
}

// Password returns what is known about the backend's password.
func (p *Pool) Password() Password {
	if p.dialer == nil {
		return Password{}
	}
	return p.dialer.passwords.state(p.dialer.backend.PasswordFile)
}
