package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

// A command gets dearer the more its connection has served on some releases of
// Dovecot, and a new connection costs a process. So there is a number of
// commands after which replacing it is cheapest. "bench age" measures both.

const (
	ageStep  = 250 // commands between two looks at the CPU time
	ageFresh = 100 // connections to find out what one costs
)

// ages is what one release costs by the age of the connection, in CPU time of
// all of its processes.
type ages struct {
	version string
	start   time.Duration   // of a connection, beyond that of its command
	step    []time.Duration // of a command, from ageStep to ageStep
}

// mean is what a command costs where a connection is replaced after n of them.
// n is a multiple of ageStep.
func (a *ages) mean(n int) time.Duration {
	sum := a.start
	for _, d := range a.step[:n/ageStep] {
		sum += d * ageStep
	}
	return sum / time.Duration(n)
}

// best is the number of commands with the lowest mean.
func (a *ages) best() int {
	best := ageStep
	for n := ageStep; n <= len(a.step)*ageStep; n += ageStep {
		if a.mean(n) < a.mean(best) {
			best = n
		}
	}
	return best
}

func runAge(ctx context.Context, args []string, stdout, _ io.Writer) error {
	flags := flag.NewFlagSet("bench age", flag.ContinueOnError)
	commands := flags.Int("commands", 20000, "`number` of commands on one connection")
	update := flags.String("update", "", "`file` that gets the table between its markers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *commands < ageStep {
		return fmt.Errorf("-commands is less than %d", ageStep)
	}
	var all []*ages
	for _, version := range dovecot.Versions() {
		a, err := measureAges(ctx, version, *commands)
		if err != nil {
			return err
		}
		all = append(all, a)
	}
	table := ageTable(all)
	fmt.Fprint(stdout, table)
	if *update == "" {
		return nil
	}
	return markdown.Fill(*update, map[string]string{"connection age": table})
}

func measureAges(ctx context.Context, version dovecot.Version, commands int) (a *ages, err error) {
	const user = "u0@age"
	server, err := dovecot.Start(ctx, dovecot.Options{Version: version, Name: "age", Users: []string{user}, Password: password})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	if err := server.Seed(mailsPerUser); err != nil {
		return nil, err
	}
	pid, err := masterPID(server)
	if err != nil {
		return nil, err
	}
	run := func(c *doveadm.ClientConn, n int) error {
		for range n {
			reply, err := c.Do(ctx, &doveadm.Command{Name: "quota get", User: user})
			if err == nil {
				err = reply.Close()
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	// spent is the CPU time of what f has done.
	spent := func(f func() error) (time.Duration, error) {
		before, err := cpuTime(pid)
		if err != nil {
			return 0, err
		}
		if err := f(); err != nil {
			return 0, err
		}
		after, err := cpuTime(pid)
		return after - before, err
	}
	dial := func() (*doveadm.ClientConn, error) {
		return doveadm.Dial(ctx, server.Addr, doveadm.ClientOptions{Username: "doveadm", Password: password, Minor: doveadm.MaxMinor})
	}

	a = &ages{version: string(version)}
	fresh := func() error {
		for range ageFresh {
			c, err := dial()
			if err != nil {
				return err
			}
			if err := errors.Join(run(c, 1), c.Close()); err != nil {
				return err
			}
		}
		// Ended processes count in their parent when it has waited for them.
		return waitForEnd(ctx, pid)
	}
	if err := fresh(); err != nil { // the first ones make files
		return nil, err
	}
	whole, err := spent(fresh)
	if err != nil {
		return nil, err
	}
	c, err := dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := run(c, 1); err != nil {
		return nil, err
	}
	for n := 0; n+ageStep <= commands; n += ageStep {
		took, err := spent(func() error { return run(c, ageStep) })
		if err != nil {
			return nil, err
		}
		a.step = append(a.step, took/ageStep)
	}
	a.start = whole/ageFresh - a.step[0]
	return a, nil
}

// waitForEnd waits until Dovecot has no doveadm process any more that serves
// somebody. One that waits for the next connection may be left.
func waitForEnd(ctx context.Context, pid int) error {
	for range 100 {
		n, err := countProcesses(pid, "doveadm-server")
		if err != nil || n <= 1 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return errors.New("doveadm processes of Dovecot do not end")
}

// ageTable shows what a command costs at some ages, and what one costs on
// average where connections are replaced after so many.
func ageTable(all []*ages) string {
	var b strings.Builder
	b.WriteString("| commands |")
	for _, a := range all {
		fmt.Fprintf(&b, " %s: the next one | all of them, with the connection |", a.version)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|---|", len(all)) + "\n")
	for _, n := range []int{250, 500, 1000, 1500, 2000, 3000, 5000, 7500, 10000, 15000, 20000} {
		if n > len(all[0].step)*ageStep {
			break
		}
		fmt.Fprintf(&b, "| %d |", n)
		for _, a := range all {
			fmt.Fprintf(&b, " %d | %d |", a.step[n/ageStep-1].Microseconds(), a.mean(n).Microseconds())
		}
		b.WriteByte('\n')
	}
	b.WriteString("\nMicroseconds of CPU time of all processes of Dovecot, for a `quota get`.")
	for _, a := range all {
		fmt.Fprintf(&b, " %s: a connection costs %d more than a command on it; cheapest is to replace it after %d commands", a.version, a.start.Microseconds(), a.best())
		if a.best() == len(a.step)*ageStep {
			b.WriteString(" or more")
		}
		b.WriteByte('.')
	}
	return b.String() + "\n"
}
