package proxy

import (
	"context"
	"sync/atomic"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/auth"
	"github.com/doveadm-proxy/doveadm-proxy/internal/penalty"
)

// LoginStat counts logins since the start.
type LoginStat struct {
	Verified  uint64 // name and password were right
	Wrong     uint64 // one of them was not
	Penalized uint64 // refused without a look at the password (login_defence)
	Busy      uint64 // not answered, because too many passwords were to be checked
}

// loginCounts are the counters behind LoginStat.
type loginCounts struct{ verified, wrong, penalized, busy atomic.Uint64 }

// Logins returns the counts so far.
func (p *Proxy) Logins() LoginStat {
	c := &p.loginStat
	return LoginStat{c.verified.Load(), c.wrong.Load(), c.penalized.Load(), c.busy.Load()}
}

func penaltyOptions(d config.LoginDefence) penalty.Options {
	return penalty.Options{Address: d.AddressFailures, Name: d.NameFailures, Recovery: d.Recovery, Exempt: d.Exempt}
}

// checkPassword verifies the password of a client who gave a name, unless there
// were too many failures: then the error is a *penalty.TooManyError.
func (s *session) checkPassword(ctx context.Context, v *auth.Verifier, name, client, password string) (auth.Verdict, error) {
	counts := &s.proxy.loginStat
	attempt, err := s.proxy.penalties.Begin(ctx, s.address, name, password)
	if err != nil {
		if penalty.IsTooMany(err) != nil {
			counts.penalized.Add(1)
		}
		return auth.Refused, err
	}
	verify := v.Verify
	if attempt.Trusted {
		verify = v.VerifyTrusted
	}
	outcome := penalty.Unknown
	defer func() { attempt.End(outcome) }()
	verdict, err := verify(ctx, client, password)
	switch {
	case err != nil:
	case verdict == auth.Refused:
		outcome = penalty.Wrong
		counts.wrong.Add(1)
	default:
		outcome = penalty.Good
		counts.verified.Add(1)
	}
	return verdict, err
}
