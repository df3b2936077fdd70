package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/starter"
	"github.com/doveadm-proxy/doveadm-proxy/packaging"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

// keepExceptions leaves in a director's map only the users whom its ring puts
// elsewhere: the routes of the configuration as it is about to be written decide.
func keepExceptions(site *starter.Site) error {
	mapped := site.Map
	site.Map = nil
	table, err := tableOf(*site)
	if err != nil {
		return err
	}
	defer table.Close()
	for _, row := range mapped {
		d, err := table.Route(context.Background(), row.User)
		if err != nil || d.Shard != row.Shard {
			site.Map = append(site.Map, row)
		}
	}
	site.Notes = append(site.Notes, fmt.Sprintf("the director has %d of its %d mapped users elsewhere than its hash says: these are in the map of users", len(site.Map), len(mapped)))
	return nil
}

// tableOf makes the routes of a site, through a configuration with other secrets.
func tableOf(site starter.Site) (*router.Table, error) {
	dir, err := os.MkdirTemp("", "doveadm-proxy-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if site.Cert != "" {
		site.Cert, site.Key, site.Clear = "", "", true
	}
	site.CA = ""
	if err := starter.Write(site.Files(dir, "{PLAIN}x", "x", packaging.DefaultConfig), false); err != nil {
		return nil, err
	}
	cfg, diags := config.Load(dir)
	if diags.HasErrors() {
		var problems strings.Builder
		config.WriteDiagnostics(&problems, diags, false)
		return nil, fmt.Errorf("what was read makes no valid configuration:\n%s", problems.String())
	}
	names, err := router.NewNames(cfg.Router)
	if err != nil {
		return nil, err
	}
	var shards []string
	for _, s := range cfg.Shards {
		shards = append(shards, s.Name)
	}
	return router.New(names, cfg.Routes, shards)
}
