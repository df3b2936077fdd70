package proxy

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/auth"
	"github.com/doveadm-proxy/doveadm-proxy/internal/watch"
)

const (
	// oldReminder is how often the log says at most that a client still logs
	// in with its old password.
	oldReminder = time.Hour
	// oldUnused is how long nobody has to log in with an old password until
	// the log says that it can be removed. Jobs that run once a day do so
	// within it.
	oldUnused = 25 * time.Hour
)

// clientPasswords are the passwords of one client.
type clientPasswords struct {
	path   string
	file   *watch.Files[auth.Passwords] // nil: they stand in the configuration
	loaded auth.Passwords               // as the configuration was loaded
	usage  *oldPasswordUsage            // outlives a reload
}

// newClientPasswords returns those of c, which was what the same client had
// before, or nil.
func newClientPasswords(c config.Client, loaded auth.Passwords, was *clientPasswords, log hclog.Logger) *clientPasswords {
	w := &clientPasswords{path: c.PasswordFile, loaded: loaded}
	if was != nil {
		w.usage = was.usage
	} else {
		w.usage = &oldPasswordUsage{old: loaded.Old, since: time.Now()}
	}
	if c.PasswordFile != "" {
		w.file = watch.New(watch.Options[auth.Passwords]{
			Name: "Password files", Log: log.With("client", c.Name),
			Build: func(contents map[string][]byte) (auth.Passwords, error) {
				current, old, err := config.ParsePasswords(contents[c.PasswordFile])
				if err != nil {
					return auth.Passwords{}, err
				}
				return parsePasswords(current, old)
			},
		}, c.PasswordFile)
	}
	return w
}

// parsePasswords reads the passwords of a client. old may be empty.
func parsePasswords(current, old config.Secret) (p auth.Passwords, err error) {
	if p.Current, err = auth.ParseHash(current.Reveal()); err != nil || old.Empty() {
		return p, err
	}
	p.Old, err = auth.ParseHash(old.Reveal())
	return p, err
}

// now returns the passwords that are valid now.
func (w *clientPasswords) now() auth.Passwords {
	if w.file != nil {
		if v, err := w.file.Value(); err == nil {
			return v
		}
	}
	return w.loaded
}

// loggedIn is told of each login of the client. log returns where to say what
// there is to say.
func (w *clientPasswords) loggedIn(client string, by auth.Verdict, log func() hclog.Logger) {
	w.usage.loggedIn(client, by, w.now(), log)
}

// logAge tells how old the passwords are.
func (w *clientPasswords) logAge(client string, log hclog.Logger) {
	if !log.IsDebug() {
		return
	}
	args := []any{"client", client, "old_password", w.now().HasOld()}
	if w.file != nil {
		args = append(args, "file", w.path, "age", time.Since(w.file.Changed()).Round(time.Second))
	}
	log.Debug("password", args...)
}

// oldPasswordUsage is what is known about logins with the old password of a
// client.
type oldPasswordUsage struct {
	mu     sync.Mutex // guards what follows; nothing else is done under it
	old    auth.Hash
	since  time.Time // that it is known
	used   time.Time // the last login with it; zero: none
	told   time.Time // the last that the log says
	held   int       // logins with it since then
	unused bool      // the log says that nobody uses it
}

// loggedIn is told of each login of a client whose passwords are now. It tells
// now and then who uses the old one, and once that nobody does any more.
func (u *oldPasswordUsage) loggedIn(client string, by auth.Verdict, now auth.Passwords, log func() hclog.Logger) {
	u.mu.Lock()
	at := time.Now()
	if !u.old.Equal(now.Old) {
		u.old, u.since = now.Old, at
		u.used, u.told, u.held, u.unused = time.Time{}, time.Time{}, 0, false
	}
	reminder, unused, others := false, false, 0
	switch {
	case by == auth.ByOld:
		u.used, u.unused = at, false
		if reminder = u.told.IsZero() || at.Sub(u.told) >= oldReminder; reminder {
			others, u.told, u.held = u.held, at, 0
		} else {
			u.held++
		}
	case now.HasOld() && !u.unused && at.Sub(u.since) >= oldUnused && at.Sub(u.used) >= oldUnused:
		u.unused, unused = true, true
	}
	last := u.used
	u.mu.Unlock()

	switch {
	case reminder:
		log().Warn("login with the old password: the client is to be given the new one", "client", printable(client), "others_meanwhile", others)
	case unused && last.IsZero():
		log().Info("nobody uses the old password any more: remove it", "client", printable(client))
	case unused:
		log().Info("nobody uses the old password any more: remove it", "client", printable(client), "last_used", last.UTC().Format(time.DateTime))
	}
}

// Password is what is known about the password of a client or of a backend,
// without the password. One of Client and Backend is set.
type Password struct {
	Client  string
	Backend string
	File    string    // that it is read from; empty: the configuration
	Changed time.Time // when the file was written; zero: unknown
	HasOld  bool      // an old one is valid too: it is being replaced
	// OldUsed is the last login of the client with the old one; zero: none
	// since the proxy knows of it.
	OldUsed time.Time
	// OldInUse: the backend takes the old one, and not yet the new one.
	OldInUse bool
}

// Passwords returns what is known about all passwords: those of the clients by
// name, then those of the backends.
func (p *Proxy) Passwords() []Password {
	snap := p.snapshot.Load()
	var all []Password
	for _, name := range slices.Sorted(maps.Keys(snap.clients)) {
		w := snap.clients[name].passwords
		if snap.clients[name].Password.Empty() {
			continue
		}
		s := Password{Client: name, File: w.path, HasOld: w.now().HasOld()}
		if w.file != nil {
			s.Changed = w.file.Changed()
		}
		w.usage.mu.Lock()
		s.OldUsed = w.usage.used
		w.usage.mu.Unlock()
		all = append(all, s)
	}
	for _, name := range slices.Sorted(maps.Keys(snap.pools)) {
		s := snap.pools[name].Password()
		all = append(all, Password{Backend: name, File: s.File, Changed: s.Changed, HasOld: s.HasOld, OldInUse: s.UsesOld})
	}
	return all
}
