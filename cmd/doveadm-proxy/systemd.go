package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// notify tells systemd, if it runs us, the state of the daemon (sd_notify(3)).
func (d *daemon) notify(lines ...string) {
	for i, line := range lines {
		lines[i] = strings.ReplaceAll(line, "\n", " ")
	}
	if _, err := sd.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		d.log.Warn("cannot notify systemd", "error", err)
	}
}

// notifyReloading begins a reload as Type=notify-reload wants it, with the
// time by which systemd tells this reload from an earlier one.
func (d *daemon) notifyReloading() {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	d.notify("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

// startWatchdog proves to systemd's watchdog, if it is on, that the proxy
// accepts connections. The returned function stops it.
func (d *daemon) startWatchdog() (stop func()) {
	limit, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("watchdog is off", "error", err)
	}
	if err != nil || limit == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { d.watch(ctx, limit/3) })
	return func() {
		cancel()
		wg.Wait()
	}
}

func (d *daemon) watch(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		probe, cancel := context.WithTimeout(ctx, interval)
		err := d.proxy.Check(probe)
		cancel()
		switch {
		case err == nil:
			d.notify("WATCHDOG=1")
		case ctx.Err() == nil:
			d.log.Error("self-check failed", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
