// Command chaos runs the proxy between clients and real Dovecot backends while
// all of them, and what is between them, fail in every way that can be made. It
// keeps books of every command and compares them with what is found at the
// backends in the end, see package ledger. It is for "make chaos" and needs
// root. docs/faults.md says how to read what it prints.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

func init() {
	// Children get a signal when the thread that started them ends; the first
	// thread ends with the process.
	runtime.LockOSThread()
}

// options are what the command line says.
type options struct {
	binary string
	seed   uint64
	length time.Duration
	only   string
	memory int64 // bytes
	keep   bool

	isolate bool
	ratio   float64
	fast    time.Duration
}

func main() {
	o := parse(os.Args[1:])
	if os.Getenv(inside) == "" {
		os.Exit(private())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A second Ctrl-C does not wait for the cleaning up.
	context.AfterFunc(ctx, stop)
	// Process ids are others here.
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		fmt.Fprintf(os.Stderr, "chaos: mount /proc: %v\n", err)
		os.Exit(1)
	}
	work := run
	if o.isolate {
		work = runIsolated
	}
	ok, err := work(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintf(os.Stderr, "chaos: %v\n", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func parse(args []string) options {
	var o options
	flags := flag.NewFlagSet("chaos", flag.ExitOnError)
	flags.StringVar(&o.binary, "proxy", "bin/doveadm-proxy", "the proxy's `binary`")
	flags.Uint64Var(&o.seed, "seed", 0, "of everything random; 0: another one each time")
	flags.DurationVar(&o.length, "time", 10*time.Minute, "`length` of the load")
	flags.StringVar(&o.only, "only", "", "make only faults whose names contain this `text`")
	mebibytes := flags.Int64("memory", 256, "`MiB` that the proxy may use at most")
	flags.BoolVar(&o.keep, "keep", false, "keep the directory with the proxy's log also if all was well")
	flags.BoolVar(&o.isolate, "isolate", false, "instead of all that, stop one of four backends and measure what the others notice")
	flags.Float64Var(&o.ratio, "ratio", 1.2, "with -isolate: how much `longer` than before the slowest in a hundred commands may take")
	flags.DurationVar(&o.fast, "fast", 5*time.Millisecond, "with -isolate: how long the proxy may take for a command behind an open breaker, 99 times in a hundred")
	flags.Parse(args)
	o.memory = *mebibytes << 20
	if !slices.ContainsFunc(troubles(), func(t trouble) bool { return strings.Contains(t.name, o.only) }) {
		fmt.Fprintf(os.Stderr, "chaos: -only %q: no fault has that in its name\n", o.only)
		os.Exit(2)
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	return o
}

// inside is set in the environment of the process that has namespaces of its own.
const inside = "DOVEADM_PROXY_CHAOS"

// private runs this program again where what it mounts is seen by nobody else
// and where no process outlives it, however it ends.
func private() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGTERM}
	// A signal from the terminal reaches the other one, too, which cleans up.
	signal.Ignore(os.Interrupt, syscall.SIGHUP)
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(1, exit.ExitCode())
	}
	fmt.Fprintf(os.Stderr, "chaos: start with namespaces of its own: %v (this needs root)\n", err)
	return 1
}

// run makes the faults and reports. It returns whether all was well.
func run(ctx context.Context, o options, out io.Writer) (ok bool, err error) {
	s := newSite(o)
	keep := true
	defer func() {
		err = errors.Join(err, s.close(keep))
		if keep && s.dir != "" {
			fmt.Fprintf(out, "\nThe logs of the proxy and the backends are in %s\n", s.dir)
		}
	}()
	fmt.Fprintf(out, "seed %d\n", o.seed)
	if err := s.start(ctx); err != nil {
		return false, err
	}
	begun := time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(out, "%7.2fs  "+format+"\n", append([]any{time.Since(begun).Seconds()}, args...)...)
	}
	idle, err := s.daemon.descriptors()
	if err != nil {
		return false, err
	}
	if err := s.load(ctx, say); err != nil {
		return false, err
	}
	r, err := s.inspect(ctx, idle)
	if err != nil {
		return false, err
	}
	fmt.Fprint(out, "\n", r)
	if ctx.Err() != nil {
		return false, errors.New("interrupted, and all of it up to then is above")
	}
	keep = o.keep || !r.ok()
	return r.ok(), nil
}

// load lets all workers work while faults are made.
func (s *site) load(ctx context.Context, say func(string, ...any)) error {
	workers, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, w := range s.workers {
		wg.Go(func() { w.run(workers) })
	}
	for _, b := range s.backends {
		wg.Go(func() { s.control(workers, b) })
	}
	watch := s.watchMachine(workers)
	faults, cancel := context.WithTimeout(ctx, s.length)
	err := newSchedule(s).run(faults, say)
	cancel()
	say("all faults have ended")
	if err == nil {
		pause(ctx, afterwards)
	}
	stop()
	wg.Wait()
	watch()
	say("all clients have ended: %d commands", s.ledger.Len())
	return err
}

// afterwards is how long clients work on when the last fault is over.
const afterwards = time.Second
