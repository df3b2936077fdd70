// Command bench measures what the proxy costs and what it saves: commands a
// second, latencies, processes and CPU time, directly at real Dovecot backends
// and through the proxy, in turns in one run. It is for "make bench" and needs
// root. docs/performance.md says how to read what it prints.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

func init() {
	// The proxy gets a signal when the thread that started it ends; the first
	// thread ends with the process.
	runtime.LockOSThread()
}

// options are what the command line says.
type options struct {
	binary   string        // the proxy's
	rounds   int           // measurements of each row
	duration time.Duration // of one measurement
	clients  []int         // numbers of clients that work at the same time
	update   []string      // documents that get the results
	args     []string      // as they were given, for the report
}

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A second Ctrl-C does not wait for the cleaning up.
	context.AfterFunc(ctx, stop)
	if err := run(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	o := options{args: args}
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.StringVar(&o.binary, "proxy", "bin/doveadm-proxy", "the proxy's `binary`")
	flags.IntVar(&o.rounds, "rounds", 5, "measurements of each row")
	flags.DurationVar(&o.duration, "time", 1200*time.Millisecond, "`length` of one measurement")
	clients := flags.String("clients", "1,8,32,128", "numbers of clients that work at the same time, with commas")
	update := flags.String("update", "", "`files`, with commas, that get the results between their markers")
	short := flags.Bool("short", false, "2 rounds of 2s with 1 and 8 clients: shows that everything works, and no more")
	flags.Parse(args)

	if *short {
		o.rounds, o.duration, *clients = 2, 2*time.Second, "1,8"
	}
	if *update != "" {
		if *short {
			return o, errors.New("the figures of -short are too coarse for a document: leave out -short or -update")
		}
		o.update = strings.Split(*update, ",")
	}
	for text := range strings.SplitSeq(*clients, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 || n > maxClients {
			return o, fmt.Errorf("-clients %s: %q is not a number from 1 to %d (Dovecot's limit of 100 connections to each of %d backends, less those of the proxy)",
				*clients, text, maxClients, backends)
		}
		o.clients = append(o.clients, n)
	}
	if o.rounds < 1 || o.duration <= 0 {
		return o, errors.New("-rounds and -time have to be above 0")
	}
	return o, nil
}

// run measures and reports. A command that fails anywhere ends it.
func run(ctx context.Context, o options, stdout, progress io.Writer) error {
	// Not after two minutes of work.
	for _, path := range o.update {
		if _, err := markdown.Filled(path, (&report{}).blocks()); err != nil {
			return err
		}
	}
	load, err := os.ReadFile("/proc/loadavg") // before there is any of our own
	if err != nil {
		return err
	}
	s, err := startSite(ctx, o.binary)
	if err != nil {
		return interrupted(ctx, err)
	}
	r, err := measureAll(ctx, s, o, progress)
	if err == nil {
		r.conditions, err = conditions(ctx, s, o, string(load))
	}
	if err = errors.Join(interrupted(ctx, err), s.close()); err != nil {
		return err
	}
	fmt.Fprint(stdout, r.full())
	for _, path := range o.update {
		text, err := markdown.Filled(path, r.blocks())
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(progress, "updated %s\n", path)
	}
	return nil
}

// interrupted replaces the error of what a signal ended in the middle.
func interrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errors.New("interrupted and cleaned up")
	}
	return err
}

// measureAll measures everything once in each round, so that what else the
// machine does falls on all rows alike. The two ways of a row follow each
// other at once and take turns in being the first.
func measureAll(ctx context.Context, s *site, o options, progress io.Writer) (*report, error) {
	r := &report{}
	for _, keep := range []bool{false, true} {
		for _, clients := range o.clients {
			r.pairs = append(r.pairs, &pair{keep: keep, clients: clients})
		}
	}
	for round := range o.rounds {
		fmt.Fprintf(progress, "round %d of %d:", round+1, o.rounds)
		for _, p := range r.pairs {
			ways := []way{direct, proxied}
			if round%2 == 1 {
				slices.Reverse(ways)
			}
			for _, w := range ways {
				got, err := measure(ctx, s, w, p.keep, p.clients, o.duration)
				if err != nil {
					return nil, fmt.Errorf("%d clients, %s: %w", p.clients, title(p.keep, w), err)
				}
				p.samples[w] = append(p.samples[w], got)
			}
			fmt.Fprintf(progress, " %d", p.clients)
		}
		fmt.Fprintln(progress)
	}
	var err error
	r.memory, err = readMemory(s.proxy.Process.Pid)
	return r, err
}
