package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/moves"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

// copier copies the mail of a user from one shard to another by Dovecot's own
// "doveadm backup": the backend of the old shard runs it, and connects to that of
// the new one. What is on the new shard becomes what is on the old one.
type copier struct {
	user     string // as backends know it
	from, to *backend
	target   string // as Dovecot writes it
	maxHold  time.Duration
	settings config.Moves
	report   func(detail string)
}

func newCopier(p *Proxy, snap *snapshot, m MoveUser, move moves.Move) (*copier, error) {
	if move.From == "" {
		return nil, errors.New("no route names a shard for the user, so there is no mail to copy: use \"user move\"")
	}
	c := &copier{
		user: m.User, from: snap.shards[move.From].inOrder(m.User)[0], to: snap.shards[move.To].inOrder(m.User)[0],
		maxHold: m.MaxHold, settings: snap.config.Moves, report: func(string) {},
	}
	if c.maxHold == 0 {
		c.maxHold = c.settings.MaxHold
	}
	if move.Report != nil {
		c.report = func(detail string) { move.Report(moves.StepCopy, detail) }
	}
	switch c.to.config.TLS.Mode {
	case config.TLSImplicit:
		c.target = "tcps:" + c.to.address
	case config.TLSStartTLS:
		return nil, fmt.Errorf("backend %s is reached by STARTTLS, which Dovecot's backup does not speak: copy the mail by hand, then use \"user move\"", c.to.Name())
	default:
		c.target = "tcp:" + c.to.address
	}
	return c, nil
}

// copy makes passes while commands go on, until one is so short that the next
// can be made while they wait.
func (c *copier) copy(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.settings.CopyTimeout, fmt.Errorf("the copy was not done within moves.copy_timeout (%s)", c.settings.CopyTimeout))
	defer cancel()
	// The counts are looked at here, too, because Dovecot remembers the sizes
	// of mails that it has looked at once.
	const share = 4 // of the hold, for a pass and the counts together
	short := false
	for pass := 1; pass <= c.settings.MaxPasses && !short; pass++ {
		start := time.Now()
		err := c.pass(ctx)
		took := time.Since(start)
		var status *doveadm.StatusError
		switch {
		case err != nil && (!errors.As(err, &status) || pass == c.settings.MaxPasses || status.Status.Code == doveadm.CodeNoUser):
			return err
		case err != nil:
			c.report(fmt.Sprintf("pass %d of at most %d, %s: another one is needed: %v", pass, c.settings.MaxPasses, took.Round(time.Millisecond), err))
			continue
		}
		difference, err := c.compare(ctx)
		if err != nil {
			return err
		}
		took = time.Since(start)
		short = took < c.maxHold/share
		note := ""
		if difference != "" {
			note = ", and the two sides differ: " + difference
		}
		c.report(fmt.Sprintf("pass %d of at most %d took %s%s", pass, c.settings.MaxPasses, took.Round(time.Millisecond), note))
		if pass == c.settings.MaxPasses && took > c.maxHold {
			return fmt.Errorf("the last pass of the copy, with the counts, took %s, and commands must not wait for longer than %s (max_hold)", took.Round(time.Millisecond), c.maxHold)
		}
	}
	return nil
}

// copyHeld copies what has changed since, and compares.
func (c *copier) copyHeld(ctx context.Context) error {
	if err := c.pass(ctx); err != nil {
		return err
	}
	difference, err := c.compare(ctx)
	if err == nil && difference != "" {
		err = fmt.Errorf("what was copied differs from what is there, so the user stays: %s", difference)
	}
	return err
}

// pass makes both sides equal, as far as mail does not arrive meanwhile.
func (c *copier) pass(ctx context.Context) error {
	// The lock keeps two passes apart, should one that was given up still run: it
	// would undo what has changed on the new shard since.
	args := append([]string{"-l", "5"}, c.settings.SyncOptions...)
	args = append(args, c.target)
	_, err := ask(ctx, c.from, pool.Fresh, doveadm.Command{User: c.user, Name: "backup", Args: args})
	return err
}

// countedFields are what both sides must have the same of, in each mailbox.
const countedFields = "messages uidnext uidvalidity unseen vsize guid"

// compare returns the first difference between both sides; empty: there is none.
func (c *copier) compare(ctx context.Context) (string, error) {
	type answer struct {
		counts map[string]string
		err    error
	}
	there := make(chan answer, 1)
	go func() {
		counts, err := c.counts(ctx, c.to)
		there <- answer{counts, err}
	}()
	here, err := c.counts(ctx, c.from)
	other := <-there
	if err := errors.Join(err, other.err); err != nil {
		return "", err
	}
	for _, name := range slices.Sorted(maps.Keys(here)) {
		copied, ok := other.counts[name]
		switch {
		case !ok:
			return fmt.Sprintf("mailbox %q is not on %s", name, c.to.Name()), nil
		case copied != here[name]:
			return fmt.Sprintf("mailbox %q (%s) has %s on %s and %s on %s", name, countedFields, here[name], c.from.Name(), copied, c.to.Name()), nil
		}
	}
	for _, name := range slices.Sorted(maps.Keys(other.counts)) {
		if _, ok := here[name]; !ok {
			return fmt.Sprintf("mailbox %q is not on %s", name, c.from.Name()), nil
		}
	}
	return "", nil
}

// counts returns what is counted of each mailbox on a backend.
func (c *copier) counts(ctx context.Context, on *backend) (map[string]string, error) {
	cmd := doveadm.Command{User: c.user, Name: "mailbox status", Args: []string{countedFields, "*"}}
	fields, err := ask(ctx, on, pool.Shared, cmd)
	if err != nil {
		return nil, err
	}
	info, _ := doveadm.LookupCommand(cmd.Name)
	columns, _ := info.Columns(cmd.Args)
	if len(fields)%columns != 0 {
		return nil, fmt.Errorf("backend %s: %q: %d fields are no rows of %d", on.Name(), cmd.Name, len(fields), columns)
	}
	counts := make(map[string]string)
	for row := range slices.Chunk(fields, columns) {
		counts[row[0]] = strings.Join(row[1:], " ")
	}
	return counts, nil
}

// ask runs a command of the proxy's own on a backend and returns the fields of
// its reply. The error has what the backend logged.
func ask(ctx context.Context, b *backend, use pool.Use, cmd doveadm.Command) (fields []string, err error) {
	var logs []string
	defer func() {
		if closedByPeer(err) {
			err = fmt.Errorf("it closed the connection without an answer, as Dovecot does when it cannot reach the other backend (its log says why): %w", err)
		}
		if err != nil {
			err = fmt.Errorf("backend %s: %q: %w", b.Name(), cmd.Name, err)
			if len(logs) > 0 {
				err = fmt.Errorf("%w: %s", err, printable(strings.Join(logs, "; ")))
			}
		}
	}()
	conn, err := b.Acquire(ctx, use)
	if err != nil {
		return nil, err
	}
	after := pool.Abandoned
	defer func() {
		conn.Client().OnLog(nil)
		conn.Release(after)
	}()
	const most = 5
	conn.Client().OnLog(func(_ doveadm.LogLevel, text string) {
		if len(logs) < most {
			logs = append(logs, text)
		}
	})
	reply, err := conn.Client().Do(ctx, &cmd)
	if err != nil {
		return nil, err
	}
	for reply.Next() {
		text, err := reply.Text()
		if err != nil {
			return nil, err
		}
		fields = append(fields, text)
	}
	err = reply.Close()
	var status *doveadm.StatusError
	switch {
	case err == nil && use == pool.Shared:
		after = pool.Reusable
	case err == nil || errors.As(err, &status):
		after = pool.Answered
	}
	return fields, err
}
