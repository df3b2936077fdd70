package main

import (
	"context"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
)

// adminClose is how long requests to the admin endpoint may take to end.
const adminClose = 2 * time.Second

// openAdmin opens the admin endpoint if there is to be one.
func (d *daemon) openAdmin() (err error) {
	d.adminBlock = d.config.Admin
	if d.adminBlock.Network == "" {
		return nil
	}
	log := d.log.Named("admin")
	d.admin, err = admin.Serve(d.config.Admin, d.proxy, admin.Options{
		Version: version, Config: d.path, Metrics: serveMetrics(newRegistry(d.proxy, d.logs), log), Logs: d.logs,
	}, log)
	return err
}

// closeAdmin ends it, and frees its address. It may be called again.
func (d *daemon) closeAdmin() {
	if d.admin == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), adminClose)
	defer cancel()
	d.admin.Close(ctx)
}

// keepAdmin says that the endpoint stays what it is until the next start.
func (d *daemon) keepAdmin(cfg *config.Config) {
	if cfg.Admin != d.adminBlock {
		d.log.Warn("the admin block has changed: that counts from the next start")
	}
}
