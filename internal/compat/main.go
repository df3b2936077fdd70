// Command compat runs each of many commands twice, directly at a real Dovecot
// and through the proxy, with every version of the protocol and with the real
// doveadm program of each release series, and compares what the client sees.
// It is for "make compat" and needs root. docs/compatibility.md, whose tables it
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
	"slices"
	"strings"
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
	binary string         // the proxy's
	only   *regexp.Regexp // names of the comparisons to run; all if nil
}

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "compat: %v\n", err)
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

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("compat", flag.ExitOnError)
	flags.StringVar(&o.binary, "proxy", "bin/doveadm-proxy", "the proxy's `binary`")
	only := flags.String("run", "", "run only the comparisons whose names match this `regexp`, and leave the documents as they are; "+
		"the names begin with client and backend, as in \"protocol 1.0 on Dovecot 2.3: mailbox list\"")
	flags.Parse(args)
	if *only != "" {
		if o.only, err = regexp.Compile(*only); err != nil {
			return o, fmt.Errorf("-run: %w", err)
		}
	}
	return o, nil
}

// run runs everything, prints the matrix and fills the documents. An
// unexplained difference is an error, and so is an explanation that explained
// nothing.
func run(ctx context.Context, o options, stdout io.Writer) error {
	jobs := allJobs()
	if o.only != nil {
		jobs = slices.DeleteFunc(jobs, func(j job) bool { return !o.only.MatchString(j.String()) })
		if len(jobs) == 0 {
			return fmt.Errorf("-run: no comparison has a name that matches %q", o.only)
		}
	} else if err := checkDocuments(); err != nil {
		return err // not after the work
	}
	m, err := compare(ctx, o.binary, jobs, stdout)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\n%s\n%s", m.table(), m.summary())
	if n := m.total(unexplained); n > 0 {
		return fmt.Errorf("%d unexplained differences", n)
	}
	if o.only != nil {
		return nil
	}
	if stale := m.stale(explanations()); len(stale) > 0 {
		return fmt.Errorf("these explanations explain nothing, remove them: %q", stale)
	}
	return m.writeDocuments()
}

// compare runs jobs on servers and a proxy of their own. What is unexplained is
// printed at once.
func compare(ctx context.Context, binary string, jobs []job, progress io.Writer) (*matrix, error) {
	start := time.Now()
	s, err := startSite(ctx, binary)
	if err != nil {
		return nil, interrupted(ctx, err)
	}
	m := newMatrix(clients())
	for _, version := range dovecot.Versions() {
		if m.releases[version], err = release(ctx, version); err != nil {
			return nil, errors.Join(interrupted(ctx, err), s.close())
		}
	}
	left := map[cell]int{}
	for _, j := range jobs {
		left[cell{j.client, j.backend}]++
	}
	err = runJobs(ctx, s, jobs, explanations(), func(f finding) {
		m.add(f)
		if f.verdict == unexplained {
			fmt.Fprint(progress, f)
		}
		if left[f.cell]--; left[f.cell] == 0 {
			fmt.Fprintf(progress, "%5.0fs %s on Dovecot %s: %d cases, %d unexplained\n", time.Since(start).Seconds(),
				f.cell.client, f.cell.backend, m.cases(f.cell), m.counts[f.cell][unexplained])
		}
	})
	return m, errors.Join(interrupted(ctx, err), s.close())
}

// allJobs are all comparisons, in a fixed order.
func allJobs() (jobs []job) {
	for _, c := range clients() {
		for _, version := range dovecot.Versions() {
			for _, cmd := range allCases(version) {
				if c.can(&cmd) {
					jobs = append(jobs, job{c, version, &cmd})
				}
			}
		}
	}
	return jobs
}

// release returns what a version says of itself, "2.3.19.1".
func release(ctx context.Context, version dovecot.Version) (string, error) {
	cmd, err := dovecot.Command(ctx, version, "dovecot", "--version")
	if err != nil {
		return "", err
	}
	result, err := dovecot.Run(ctx, cmd)
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(strings.TrimSpace(result.Stdout), " ")
	if !strings.HasPrefix(name, string(version)+".") {
		return "", fmt.Errorf("dovecot --version of %s: %+v", version, result)
	}
	return name, nil
}

// interrupted replaces the error of what a signal ended in the middle.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted and cleaned up")
	}
	return err
}
