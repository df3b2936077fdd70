package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

func newServe() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve --config FILE|DIR",
		Short: "Run the proxy in the foreground",
		Long: `Runs until SIGTERM or SIGINT, which close the listeners and let running commands
end within limits.drain_timeout; a second one ends at once. SIGHUP reads the
configuration again: all of it is taken over, or nothing if it is not valid.
The log goes to standard error.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Signals are caught before anything is announced, so that none
			// is lost.
			signals := make(chan os.Signal, 4)
			signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
			defer signal.Stop(signals)
			return serve(path, cmd.ErrOrStderr(), signals)
		},
	}
	configFlag(cmd, &path)
	return cmd
}

// daemon is a running serve.
type daemon struct {
	path   string
	log    hclog.Logger
	config *config.Config
	proxy  *proxy.Proxy
	admin  *admin.Server // nil without an admin block

	adminBlock config.Admin // of the start
}

func serve(path string, stderr io.Writer, signals <-chan os.Signal) error {
	cfg, err := load(stderr, path)
	if err != nil {
		return err
	}
	d := &daemon{path: path, config: cfg, log: newLogger(cfg.Log, stderr)}
	sockets, err := activated()
	if err != nil {
		return &exitError{exitNo, err}
	}
	d.proxy, err = proxy.New(cfg, proxy.Options{Log: d.log, Sockets: sockets})
	if err != nil {
		return &exitError{exitNo, err}
	}
	if err := d.openAdmin(); err != nil {
		return &exitError{exitNo, errors.Join(err, d.proxy.Shutdown(context.Background()))}
	}
	defer d.closeAdmin()
	d.proxy.Serve()
	d.log.Info("ready", "version", version, "config", path, "pid", os.Getpid())
	d.notify("READY=1", "STATUS="+summary(cfg))

	watchdog := d.startWatchdog()
	d.handle(signals)
	watchdog()
	return d.shutdown(signals)
}

// handle serves signals until one asks to stop.
func (d *daemon) handle(signals <-chan os.Signal) {
	for sig := range signals {
		if sig != syscall.SIGHUP {
			d.log.Info("stopping", "signal", sig.String())
			return
		}
		d.reload()
	}
}

// reload takes the configuration over, or none of it.
func (d *daemon) reload() {
	d.notifyReloading()
	cfg, diags := config.Load(d.path)
	for _, p := range config.Problems(diags) {
		if p.Severity == "error" {
			d.log.Error("configuration problem", "at", place(p), "problem", p.Summary, "remedy", p.Detail)
		} else {
			d.log.Warn("configuration problem", "at", place(p), "problem", p.Summary, "remedy", p.Detail)
		}
	}
	err := error(nil)
	if diags.HasErrors() {
		err = errors.New("the configuration has errors")
	} else {
		err = d.proxy.Reload(cfg)
	}
	if err != nil {
		d.log.Error("reload failed: the old configuration keeps serving", "config", d.path, "error", err)
		d.notify("READY=1", "STATUS=reload failed, the old configuration keeps serving: "+err.Error())
		return
	}
	d.keepAdmin(cfg)
	d.config = cfg
	d.log.SetLevel(hclog.LevelFromString(cfg.Log.Level))
	d.log.Info("reloaded", "config", d.path)
	d.notify("READY=1", "STATUS="+summary(cfg))
}

func place(p config.Problem) string {
	if p.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// shutdown drains. A second signal that asks to stop ends it.
func (d *daemon) shutdown(signals <-chan os.Signal) error {
	d.notify("STOPPING=1")
	ctx, cancel := context.WithTimeout(context.Background(), d.config.Limits.DrainTimeout)
	defer cancel()
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- d.proxy.Shutdown(ctx) }()
	for {
		select {
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				continue
			}
			d.log.Warn("second signal: ending at once", "signal", sig.String())
			return &exitError{code: exitTempFail}
		case err := <-done:
			if err != nil {
				d.log.Error("stopped, but not everything ended by itself", "error", err, "took", time.Since(start))
				return &exitError{code: exitTempFail}
			}
			d.log.Info("stopped", "took", time.Since(start))
			return nil
		}
	}
}

func newLogger(c config.Log, w io.Writer) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{
		Name:       "doveadm-proxy",
		Level:      hclog.LevelFromString(c.Level),
		Output:     w,
		JSONFormat: c.Format == "json",
	})
}

// activated returns the sockets that systemd has opened, by name
// (FileDescriptorName of the socket unit, which is the name of the listener
// block).
func activated() (map[string]net.Listener, error) {
	byName, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("socket activation: %w", err)
	}
	sockets := make(map[string]net.Listener)
	for name, listeners := range byName {
		if len(listeners) != 1 || listeners[0] == nil {
			return nil, fmt.Errorf("socket activation: %d sockets are named %q: give each FileDescriptorName= the name of one listener block", len(listeners), name)
		}
		sockets[name] = listeners[0]
	}
	return sockets, nil
}
