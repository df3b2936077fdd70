// Command bench measures what the proxy costs and what it saves, beside direct
// connections, HAProxy, nginx and Dovecot's own doveadm proxy, in turns in one
// run: at real Dovecots and at a null backend, which does nothing. It is for
// "make bench" and needs root. docs/performance.md says how to read what it
// prints.
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
	"strings"
	"syscall"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/markdown"
)

func init() {
	// The children get a signal when the thread that started them ends; the
	// first thread ends with the process.
	runtime.LockOSThread()
}

// options are what the command line says.
type options struct {
	binary   string        // the proxy's
	rounds   int           // measurements of each row
	duration time.Duration // of one measurement
	works    []work
	update   []string // documents that get the results
	command  string   // as the report names it
	load     string   // of the machine before
}

// modes are what else the program measures, by the word for it.
var modes = map[string]func(ctx context.Context, args []string, stdout, progress io.Writer) error{
	"age":         runAge,
	"concurrency": runConcurrency,
	"profile":     runProfile,
	"scale":       runScale,
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "null" {
		fmt.Fprintf(os.Stderr, "null backend: %v\n", runNull(os.Args[2:]))
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == "plain" {
		fmt.Fprintf(os.Stderr, "plain relay: %v\n", runPlain(os.Args[2:]))
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A second Ctrl-C does not wait for the cleaning up.
	context.AfterFunc(ctx, stop)
	if len(os.Args) > 1 && modes[os.Args[1]] != nil {
		if err := modes[os.Args[1]](ctx, os.Args[2:], os.Stdout, os.Stderr); err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(2)
	}
	if err := run(ctx, o, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&o.binary, "proxy", "bin/doveadm-proxy", "the proxy's `binary`")
	long := flags.Bool("long", false, "the long form: everything, 5 rounds of 2s")
	flags.IntVar(&o.rounds, "rounds", 0, "measurements of each row")
	flags.DurationVar(&o.duration, "time", 0, "`length` of one measurement")
	flags.BoolVar(&verbose, "v", false, "tell each measurement as it is made")
	only := flags.String("only", "", "measure what has a name that this `expression` matches, of the long form too")
	update := flags.String("update", "", "`files`, with commas, that get the results between their markers")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	o.command = "make bench"
	if *long {
		o.command = "make bench-long"
	}
	if *only != "" {
		o.command += fmt.Sprintf(" BENCH='-only %s'", *only)
	}
	rounds, duration := 3, 400*time.Millisecond
	if *long {
		rounds, duration = 5, 2*time.Second
	}
	if o.rounds == 0 {
		o.rounds = rounds
	}
	if o.duration == 0 {
		o.duration = duration
	}
	if o.rounds < 1 || o.duration <= 0 {
		return o, errors.New("-rounds and -time have to be above 0")
	}
	if *update != "" {
		o.update = strings.Split(*update, ",")
	}
	var err error
	o.works, err = chosen(!*long, *only)
	return o, err
}

// run measures and reports. A command that fails anywhere ends it.
func run(ctx context.Context, o options, stdout, progress io.Writer) error {
	// Not after all the work.
	for _, path := range o.update {
		if _, err := markdown.Filled(path, (&report{}).blocks()); err != nil {
			return err
		}
	}
	load, err := os.ReadFile("/proc/loadavg") // before there is any of our own
	if err != nil {
		return err
	}
	o.load = string(load)
	s, err := startSite(ctx, o.binary, o.works)
	if err != nil {
		return interrupted(ctx, err)
	}
	r, err := measureAll(ctx, s, o, progress)
	if err == nil {
		r.conditions, err = conditions(ctx, s, o)
	}
	if err = errors.Join(interrupted(ctx, err), s.close()); err != nil {
		return err
	}
	fmt.Fprint(stdout, r.full())
	for _, path := range o.update {
		if err := markdown.Fill(path, r.blocks()); err != nil {
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
