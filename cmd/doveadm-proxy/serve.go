package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
	"github.com/doveadm-proxy/doveadm-proxy/internal/logs"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

func newServe() *cobra.Command {
	var path string
	var overlap bool
	cmd := &cobra.Command{
		Use:   "serve --config FILE|DIR",
		Short: "Run the proxy in the foreground",
		Long: `Runs until SIGTERM or SIGINT, which close the listeners and let running commands
end within limits.drain_timeout; a second one ends at once. SIGHUP reads the
configuration again: all of it is taken over, or nothing if it is not valid.
The log goes to standard error.

With --overlap, which the systemd unit uses, SIGTERM ends this process as soon
as the next one may start. Sessions and their commands go on in a second process
for up to limits.overlap_timeout.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Signals are caught before anything is announced, so that none
			// is lost.
			signals := make(chan os.Signal, 4)
			signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
			defer signal.Stop(signals)
			parent, err := findParent()
			if err != nil {
				return &exitError{exitNo, err}
			}
			if overlap && parent == nil {
				signal.Notify(signals, syscall.SIGABRT, syscall.SIGQUIT)
				return superviseServer(cmd.ErrOrStderr(), signals)
			}
			return serve(path, cmd.ErrOrStderr(), signals, parent)
		},
	}
	cmd.Flags().BoolVar(&overlap, "overlap", false, "let running commands go on in a process of their own after SIGTERM")
	configFlag(cmd, &path)
	return cmd
}

// daemon is a running serve.
type daemon struct {
	path   string
	logs   *logs.System
	log    hclog.Logger // its root
	config *config.Config
	proxy  *proxy.Proxy
	parent *parent       // nil without --overlap
	memory int64         // the memory limit that the environment sets, in bytes
	admin  *admin.Server // nil without an admin block

	adminBlock config.Admin // of the start

	reloads  chan chan<- *admin.ReloadResult // wanted by the admin endpoint; each is answered once
	stopping chan struct{}                   // closed when none is answered any more
}

func serve(path string, stderr io.Writer, signals <-chan os.Signal, parent *parent) error {
	if err := keepMemory(); err != nil {
		return &exitError{exitNo, err}
	}
	cfg, err := load(stderr, path)
	if err != nil {
		return err
	}
	d := &daemon{
		path: path, config: cfg, logs: newLogger(cfg.Log, stderr), parent: parent,
		reloads: make(chan chan<- *admin.ReloadResult), stopping: make(chan struct{}),
	}
	defer d.logs.Close()
	d.log = d.logs.Logger()
	o := proxy.Options{Log: d.log}
	if o.Sockets, o.Kept, err = activated(); err != nil {
		return &exitError{exitNo, err}
	}
	if parent != nil {
		o.Keep, o.Forget = storeListener, unstoreListener
	}
	d.memory = debug.SetMemoryLimit(-1)
	memoryLimit(cfg, d.memory)
	reportFiles(d.log, cfg)
	d.proxy, err = proxy.New(cfg, o)
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
	close(d.stopping)
	watchdog()
	return d.shutdown(signals)
}

// handle serves signals until one asks to stop.
func (d *daemon) handle(signals <-chan os.Signal) {
	var parentGone <-chan struct{}
	if d.parent != nil {
		parentGone = d.parent.gone
	}
	for {
		select {
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				d.log.Info("stopping", "signal", sig.String())
				return
			}
			d.reload()
		case done := <-d.reloads:
			done <- d.reload()
		case <-parentGone:
			d.log.Error("stopping: the parent process has ended")
			return
		}
	}
}

// reload takes the configuration over, or none of it.
func (d *daemon) reload() *admin.ReloadResult {
	d.notifyReloading()
	d.proxy.ReopenAudit() // whatever becomes of the configuration
	cfg, diags := config.Load(d.path)
	result := &admin.ReloadResult{Problems: config.Problems(diags)}
	for _, p := range result.Problems {
		if p.Severity == "error" {
			d.log.Error("configuration problem", "at", place(p), "problem", p.Summary, "remedy", p.Detail)
		} else {
			d.log.Warn("configuration problem", "at", place(p), "problem", p.Summary, "remedy", p.Detail)
		}
	}
	err := error(nil)
	if diags.HasErrors() {
		err = errors.New("the configuration has errors")
		d.proxy.ReloadFailed(err)
	} else {
		memoryLimit(cfg, d.memory)
		err = d.proxy.Reload(cfg)
	}
	if err != nil {
		memoryLimit(d.config, d.memory)
		d.log.Error("reload failed: the old configuration keeps serving", "config", d.path, "error", err)
		d.notify("READY=1", "STATUS=reload failed, the old configuration keeps serving: "+err.Error())
		result.Error = err.Error()
		return result
	}
	d.keepAdmin(cfg)
	d.config = cfg
	reportFiles(d.log, cfg)
	d.log.SetLevel(hclog.LevelFromString(cfg.Log.Level))
	d.log.Info("reloaded", "config", d.path)
	d.notify("READY=1", "STATUS="+summary(cfg))
	result.OK = true
	return result
}

// wantReload has the configuration read again, for the admin endpoint.
func (d *daemon) wantReload(ctx context.Context) (*admin.ReloadResult, error) {
	done := make(chan *admin.ReloadResult, 1)
	select {
	case d.reloads <- done:
	case <-d.stopping:
		return nil, errors.New("the proxy is stopping")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case result := <-done:
		return result, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the reload goes on, its result will be in the log: %w", ctx.Err())
	}
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
	timeout := d.config.Limits.DrainTimeout
	drain := d.proxy.Shutdown
	if d.parent != nil {
		timeout, drain = d.config.Limits.OverlapTimeout, d.makeRoom
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- drain(ctx) }()
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

// makeRoom drains for the next process, which starts as soon as the listeners
// are free. From then on systemd must hear nothing from here: it would take it
// for the next process's word.
func (d *daemon) makeRoom(ctx context.Context) error {
	return d.proxy.Drain(ctx, proxy.Drain{
		Released: func() {
			d.log.Info("the next process may start; sessions here go on until they are done")
			d.closeAdmin() // the next process opens its own
			d.parent.release()
		},
		Quiet: overlapQuiet,
		Busy:  d.config.Limits.OverlapTimeout / 2,
	})
}

// overlapQuiet is how long a session has to be silent before a process that
// has been replaced closes it. Nobody waits for that.
const overlapQuiet = 10 * time.Second

// newLogger returns the log of a process whose standard error is w.
func newLogger(c config.Log, w io.Writer) *logs.System {
	stderr, isFile := w.(*os.File)
	return logs.New(logs.Options{
		Name:    "doveadm-proxy",
		Level:   hclog.LevelFromString(c.Level),
		Output:  w,
		JSON:    c.Format == "json",
		Journal: isFile && logs.IsJournal(stderr),
	})
}

// activated returns the sockets that systemd has opened, by name
// (FileDescriptorName of the socket unit, which is the name of the listener
// block), and those that an earlier process stored there, by key.
func activated() (sockets, kept map[string]net.Listener, err error) {
	byName, err := activation.ListenersWithNames()
	if err != nil {
		return nil, nil, fmt.Errorf("socket activation: %w", err)
	}
	sockets, kept = make(map[string]net.Listener), make(map[string]net.Listener)
	for name, listeners := range byName {
		if key := fromStored.Replace(name); key != name && listeners[0] != nil {
			kept[key] = listeners[0]
			for _, same := range listeners[1:] {
				same.Close()
			}
			continue
		}
		if len(listeners) != 1 || listeners[0] == nil {
			return nil, nil, fmt.Errorf("socket activation: %d sockets are named %q: give each FileDescriptorName= the name of one listener block", len(listeners), name)
		}
		sockets[name] = listeners[0]
	}
	return sockets, kept, nil
}
