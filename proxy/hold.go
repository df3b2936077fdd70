package proxy

import (
	"errors"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/moves"
)

// openMoves becomes a member of those who share the database of moved users.
func (p *Proxy) openMoves(c config.Moves) (err error) {
	if c.Driver == "" {
		return nil
	}
	p.moves, err = moves.Start(c, moves.Options{Log: p.log.Named("moves"), Cut: p.cutCommands})
	return err
}

func (p *Proxy) closeMoves() {
	if p.moves != nil {
		p.moves.Close()
	}
}

// configureMoves takes over what may change at a reload.
func (p *Proxy) configureMoves(c config.Moves) {
	switch {
	case p.moves == nil && c.Driver == "":
	case p.moves != nil && p.moves.Serves(c):
		p.moves.Configure(c)
	default:
		p.log.Warn("the database of moved users stays as it is until the next start: driver, path, dsn, name and lease of the moves block do not change at a reload")
	}
}

// stale returns an error if it is not sure that the exceptions are all of them.
func (p *Proxy) stale() error {
	if p.moves == nil {
		return nil
	}
	return p.moves.Gate.Fresh()
}

// cutCommands ends all that backends are asked for, without waiting.
func (p *Proxy) cutCommands(error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.sessions {
		s.mu.Lock()
		for t := s.latest; t != nil; t = t.live.next {
			if t.live.conn != nil {
				t.live.conn.Cut()
			}
		}
		s.mu.Unlock()
	}
}

// enter lets the command begin when none of its users is on hold. It returns
// for how long it has waited.
func (t *task) enter(snap *snapshot) (waited time.Duration, refused *refusal) {
	p := t.session.proxy
	if p.moves == nil || t.cmd.User == "" {
		return 0, nil
	}
	users := [2]string{snap.names.User(t.cmd.User)}
	n := 1
	if other := t.request.info.Effects(t.cmd.Args).OtherUser; other != "" {
		if users[1] = snap.names.User(other); users[1] != users[0] {
			n = 2
		}
	}
	start := time.Now()
	for _, user := range users[:n] {
		err := p.moves.Gate.Enter(waits{t}, user)
		if err == nil {
			t.entered[t.within] = user
			t.within++
			continue
		}
		t.depart()
		waited = time.Since(start)
		if why := t.session.wasCut(); why != nil {
			return waited, &refusal{clientGone, doveadm.CodeTempFail, why.Error()}
		}
		if by := t.wasKilled(); by != nil {
			return waited, &refusal{ended, doveadm.CodeTempFail, by.Error()}
		}
		if errors.Is(err, moves.ErrStale) {
			return waited, &refusal{noRoute, doveadm.CodeTempFail, err.Error()}
		}
		return waited, &refusal{onHold, doveadm.CodeTempFail, err.Error()}
	}
	return time.Since(start), nil
}

// depart ends what enter began: no backend has to do with the command any more.
func (t *task) depart() {
	for ; t.within > 0; t.within-- {
		t.session.proxy.moves.Gate.Leave(t.entered[t.within-1])
	}
}
