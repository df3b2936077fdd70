package admin

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/auth"
	"github.com/doveadm-proxy/doveadm-proxy/internal/identity"
	"github.com/doveadm-proxy/doveadm-proxy/internal/penalty"
	"github.com/doveadm-proxy/doveadm-proxy/internal/watch"
)

const (
	// addressFailures wrong passwords or tokens of an address are too many; none
	// of them counts any more after failureRecovery.
	addressFailures = 20
	failureRecovery = 10 * time.Minute
	// checkTimeout is how long a password may wait for its check.
	checkTimeout = 10 * time.Second
	// tokenName stands for all tokens among the names that failures are counted
	// of. No user is called so: HTTP Basic has no NUL.
	tokenName = "\x00token"
)

// users knows who may use the endpoint.
type users struct {
	all       []user
	verifier  *auth.Verifier
	penalties *penalty.Table
	accounts  bool   // there are users who are known by their account
	challenge string // how a browser or a script can say who it is; empty: it cannot
	log       hclog.Logger
}

// user is one of them.
type user struct {
	config.AdminUser
	role  Role
	token auth.Hash // the zero Hash: none
}

func newUsers(configured []config.AdminUser, log hclog.Logger) (*users, error) {
	u := &users{penalties: penalty.New(), log: log}
	u.penalties.Configure(penalty.Options{Address: addressFailures, Recovery: failureRecovery})
	sources := map[string]auth.Source{}
	tokens := false
	for _, c := range configured {
		one := user{AdminUser: c}
		if err := one.role.UnmarshalText([]byte(c.Role)); err != nil {
			return nil, fmt.Errorf("user %q: %w", c.Name, err)
		}
		if !c.Token.Empty() {
			var err error
			if one.token, err = auth.ParseHash(c.Token.Reveal()); err != nil {
				return nil, fmt.Errorf("user %q: token: %w", c.Name, err)
			}
			tokens = true
		}
		if !c.Password.Empty() {
			source, err := passwordsOf(c, log)
			if err != nil {
				return nil, fmt.Errorf("user %q: password: %w", c.Name, err)
			}
			sources[c.Name] = source
		}
		u.accounts = u.accounts || c.HasAccount()
		u.all = append(u.all, one)
	}
	u.verifier = auth.NewVerifier(sources, auth.NewCache(auth.CacheOptions{}))
	switch {
	case len(sources) > 0:
		u.challenge = `Basic realm="doveadm-proxy", charset="UTF-8"`
	case tokens:
		u.challenge = `Bearer realm="doveadm-proxy"`
	}
	return u, nil
}

// passwordsOf returns where the passwords of a user come from.
func passwordsOf(c config.AdminUser, log hclog.Logger) (auth.Source, error) {
	loaded, err := parsePasswords(c.Password, c.OldPassword)
	if err != nil || c.PasswordFile == "" {
		return func() auth.Passwords { return loaded }, err
	}
	file := watch.New(watch.Options[auth.Passwords]{
		Name: "Password files", Log: log.With("user", c.Name),
		Build: func(contents map[string][]byte) (auth.Passwords, error) {
			current, old, err := config.ParsePasswords(contents[c.PasswordFile])
			if err != nil {
				return auth.Passwords{}, err
			}
			return parsePasswords(current, old)
		},
	}, c.PasswordFile)
	return func() auth.Passwords {
		if v, err := file.Value(); err == nil {
			return v
		}
		return loaded
	}, nil
}

func parsePasswords(current, old config.Secret) (p auth.Passwords, err error) {
	if p.Current, err = auth.ParseHash(current.Reveal()); err != nil || old.Empty() {
		return p, err
	}
	p.Old, err = auth.ParseHash(old.Reveal())
	return p, err
}

// refusal is why a request is not looked at: who sends it says to be somebody,
// and that is not true or could not be checked.
type refusal struct {
	code int
	err  error
}

// identify says who sends a request.
func (u *users) identify(r *http.Request) (Caller, *refusal) {
	a := arrivalOf(r.Context())
	if a.entrance.Network == "unix" {
		return u.byAccount(a.account), nil
	}
	if header := r.Header.Get("Authorization"); header != "" {
		return u.bySecret(r)
	}
	caller := Caller{From: r.RemoteAddr}
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		cert := r.TLS.PeerCertificates[0]
		if i := slices.IndexFunc(u.all, func(u user) bool { return u.hasCertificate(cert) }); i >= 0 {
			caller.Name, caller.Role = u.all[i].Name, u.all[i].role
			return caller, nil
		}
	}
	if a.entrance.Loopback() { // everybody on the machine may look
		caller.Role = Viewer
	}
	return caller, nil
}

// byAccount returns who is at a UNIX socket. Its mode says who may write to it;
// that is enough unless there are users to tell apart.
func (u *users) byAccount(account *identity.Account) Caller {
	c := Caller{From: "local"}
	if account != nil {
		c.Name = accountName(account.UID)
	}
	switch {
	case !u.accounts:
		c.Role = Admin
	case account == nil:
	default:
		if i := slices.IndexFunc(u.all, func(u user) bool { return u.hasAccount(account) }); i >= 0 {
			c.Name, c.Role = u.all[i].Name, u.all[i].role
		} else if account.UID == 0 || account.UID == uint32(os.Geteuid()) {
			c.Role = Admin
		}
	}
	return c
}

// accountName names an account that no user block names. It asks no directory,
// which could be slow or away.
func accountName(uid uint32) string {
	if uid == 0 {
		return "root"
	}
	return "uid " + strconv.FormatUint(uint64(uid), 10)
}

func (u *user) hasAccount(a *identity.Account) bool {
	return slices.ContainsFunc(u.UnixUsers, func(c config.Account) bool { return c.ID == a.UID }) ||
		slices.ContainsFunc(u.UnixGroups, func(c config.Account) bool { return c.ID == a.GID })
}

func (u *user) hasCertificate(cert *x509.Certificate) bool {
	return u.TLSSubject != "" && cert.Subject.String() == u.TLSSubject ||
		slices.ContainsFunc(u.TLSNames, func(name string) bool { return identity.IsFor(cert, name) })
}

// bySecret returns who has the password or the token of a request.
func (u *users) bySecret(r *http.Request) (Caller, *refusal) {
	caller := Caller{From: r.RemoteAddr}
	name, secret, basic := r.BasicAuth()
	if !basic {
		kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(kind, "Bearer") {
			return caller, &refusal{http.StatusUnauthorized, errors.New("the Authorization of the request is neither Basic nor Bearer")}
		}
		name, secret = tokenName, strings.TrimSpace(token)
	}
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	attempt, err := u.penalties.Begin(ctx, from.Addr(), name, secret)
	if tooMany := penalty.IsTooMany(err); tooMany != nil {
		if tooMany.Tell {
			u.log.Warn("login refused", "from", r.RemoteAddr, "reason", tooMany.Error(), "others_meanwhile", tooMany.Others)
		}
		return caller, &refusal{http.StatusTooManyRequests, err}
	}
	if err != nil {
		return caller, &refusal{http.StatusServiceUnavailable, fmt.Errorf("the password could not be checked: %w", err)}
	}
	outcome := penalty.Unknown
	defer func() { attempt.End(outcome) }()
	var found *user
	if basic {
		found, err = u.byPassword(ctx, name, secret, attempt.Trusted)
	} else {
		found, err = u.byToken(secret)
	}
	switch {
	case err != nil:
		return caller, &refusal{http.StatusServiceUnavailable, fmt.Errorf("the password could not be checked: %w", err)}
	case found == nil:
		outcome = penalty.Wrong
		u.log.Warn("login refused", "from", r.RemoteAddr, "reason", "wrong name, password or token")
		return caller, &refusal{http.StatusUnauthorized, errors.New("wrong name, password or token")}
	}
	outcome = penalty.Good
	caller.Name, caller.Role = found.Name, found.role
	return caller, nil
}

func (u *users) byPassword(ctx context.Context, name, password string, trusted bool) (*user, error) {
	verify := u.verifier.Verify
	if trusted {
		verify = u.verifier.VerifyTrusted
	}
	verdict, err := verify(ctx, name, password)
	if err != nil || verdict == auth.Refused {
		return nil, err
	}
	return &u.all[slices.IndexFunc(u.all, func(u user) bool { return u.Name == name })], nil
}

// byToken compares with all tokens, whichever is the right one.
func (u *users) byToken(token string) (found *user, err error) {
	for i := range u.all {
		if u.all[i].Token.Empty() || token == "" {
			continue
		}
		ok, err := u.all[i].token.Match(token)
		if err != nil {
			return nil, err
		}
		if ok && found == nil {
			found = &u.all[i]
		}
	}
	return found, nil
}
