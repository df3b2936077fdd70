package main

import (
	"context"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/chaos/ledger"
)

const (
	// controlEvery is how often each backend is asked past the proxy.
	controlEvery = 300 * time.Millisecond
	// controlSlow is a sixth of what the proxy waits for a greeting. Who asks
	// directly and waits so long has a backend, or a machine, that is too busy:
	// otherwise it takes some ten milliseconds.
	controlSlow = time.Second
	// controlTimeout ends the asking.
	controlTimeout = 10 * time.Second
)

// control asks b directly until ctx ends. Where that is slow, and no fault is the
// reason, it is written into the books: the proxy can be no faster.
func (s *site) control(ctx context.Context, b *backend) {
	for ctx.Err() == nil {
		asked := time.Now()
		if err := askDirectly(ctx, b); ctx.Err() == nil && (err != nil || time.Since(asked) > controlSlow) && !s.ledger.Excused(b.Name, asked) {
			w := s.ledger.Begin(ledger.Window{Fault: "slow for direct clients, too", Targets: []string{b.Name}, From: asked, Machine: true})
			s.ledger.End(w)
		}
		pause(ctx, controlEvery)
	}
}

// controlUser is not one of the workers'. Dovecot refuses "mailbox create" as done
// already if a "quota get" of the same user comes across the unfinished mailbox.
func controlUser(server string) string { return "control-" + server }

func askDirectly(ctx context.Context, b *backend) error {
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	c, err := doveadm.Dial(ctx, b.Addr, doveadm.ClientOptions{Password: b.Password})
	if err != nil {
		return err
	}
	defer c.Close()
	reply, err := c.Do(ctx, &doveadm.Command{User: controlUser(b.Name), Name: "quota get"})
	if err != nil {
		return err
	}
	return reply.Close()
}
