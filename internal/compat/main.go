// Command compat runs each of many commands twice, directly at a real Dovecot
// and through the proxy, with every version of the protocol and with the real
// doveadm program of each release series, and compares what the client sees.
// It is for "make compat" and needs root. docs/compatibility.md, which it
// writes, says what is compared and what differs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime"
	"syscall"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

func init() {
	// The proxy gets a signal when the thread that started it ends; the first
	// thread ends with the process.
	runtime.LockOSThread()
}

// options are what the command line says.
type options struct {
	binary string // the proxy's
	update bool   // write the documents
	only   *regexp.Regexp
}

func main() {
	var o options
	flag.StringVar(&o.binary, "proxy", "bin/doveadm-proxy", "the proxy's `binary`")
	flag.BoolVar(&o.update, "update", false, "write what was found into "+document+" and the totals into "+readme)
	only := flag.String("run", "", "run only what matches this `regexp`, by its client, backend and case as a difference names them: \"protocol 1.0 on Dovecot 2.3: mailbox list\"")
	flag.Parse()
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		fmt.Fprintf(os.Stderr, "compat: -run: %v\n", err)
		os.Exit(2)
	}
	if *only == "" {
		o.only = nil
	} else if o.update {
		fmt.Fprintln(os.Stderr, "compat: -update: the documents are about all cases, leave out -run")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A second Ctrl-C does not wait for the cleaning up.
	context.AfterFunc(ctx, stop)
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "compat: %v\n", err)
		os.Exit(1)
	}
}

// run runs everything and prints the matrix. An unexplained difference is an
// error, and so are an explanation that explained nothing and documents that
// say something else.
func run(ctx context.Context, o options, stdout io.Writer) error {
	m, err := compare(ctx, o.binary, selectJobs(o.only), stdout)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\n%s\n%s%s", m.table(), m.summary(), m.report())
	if n := m.total(unexplained); n > 0 {
		return fmt.Errorf("%d unexplained differences", n)
	}
	if o.only != nil {
		return nil
	}
	if stale := m.stale(explanations()); len(stale) > 0 {
		return fmt.Errorf("these explanations explain nothing any more, remove them: %q", stale)
	}
	if o.update {
		return m.writeDocuments()
	}
	return m.checkDocuments()
}

// compare runs jobs on servers and a proxy of their own.
func compare(ctx context.Context, binary string, jobs []job, progress io.Writer) (*matrix, error) {
	start := time.Now()
	s, err := startSite(ctx, binary)
	if err != nil {
		return nil, interrupted(ctx, err)
	}
	m := newMatrix(clients())
	left := map[cell]int{}
	for _, j := range jobs {
		left[cell{j.client, j.backend}]++
	}
	err = runJobs(ctx, s, jobs, explanations(), func(f finding) {
		m.add(f)
		if left[f.cell]--; left[f.cell] == 0 {
			fmt.Fprintf(progress, "%5.0fs %s on Dovecot %s: %d cases, %d unexplained\n", time.Since(start).Seconds(),
				f.cell.client, f.cell.backend, m.cases(f.cell), m.counts[f.cell][unexplained])
		}
	})
	return m, errors.Join(interrupted(ctx, err), s.close())
}

// selectJobs returns all jobs, or those whose names match.
func selectJobs(only *regexp.Regexp) (jobs []job) {
	for _, c := range clients() {
		for _, version := range dovecot.Versions() {
			for _, cmd := range allCases(version) {
				name := fmt.Sprintf("%s on Dovecot %s: %s", c, version, cmd.title)
				if c.can(&cmd) && (only == nil || only.MatchString(name)) {
					jobs = append(jobs, job{c, version, &cmd})
				}
			}
		}
	}
	return jobs
}

// interrupted replaces the error of what a signal ended in the middle.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted and cleaned up")
	}
	return err
}
