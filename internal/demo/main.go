// Command demo shows the proxy at work: it starts three real Dovecot backends
// and the proxy in front of them, and walks through it with the real doveadm
// command. Everything it shows it also checks; its exit code is 1 if anything
// is not as it says. It is for "make demo" and needs root.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func init() {
	// The proxy gets a signal when the thread that started it ends; the first
	// thread ends with the process.
	runtime.LockOSThread()
}

func main() {
	binary := flag.String("proxy", "bin/doveadm-proxy", "the proxy's binary")
	keep := flag.Bool("keep", false, "keep everything running until Ctrl-C")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// A second Ctrl-C does not wait for the cleaning up.
	context.AfterFunc(ctx, stop)
	if err := run(ctx, *binary, *keep); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary string, keep bool) error {
	s, err := startSite(ctx, binary)
	if err != nil {
		return interrupted(ctx, err)
	}
	if err := walk(ctx, s); err != nil {
		if ctx.Err() == nil {
			fmt.Printf("\nThe proxy's log:\n%s", s.proxyLog())
		}
		return errors.Join(interrupted(ctx, err), s.close())
	}
	if keep {
		s.invite()
		<-ctx.Done()
		say("Cleaning up.")
		s.stopByHand()
		return s.close()
	}
	if err := s.close(); err != nil {
		return err
	}
	say(`All of this was checked while it was shown, and is cleaned up now.
To keep it running and try by hand: make demo KEEP=1`)
	return nil
}

// interrupted replaces the error of what a signal ended in the middle.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("interrupted and cleaned up")
	}
	return err
}
