package main

import (
	"runtime/debug"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// memoryLimit makes the garbage collector keep to limits.max_memory. initial is
// what the environment says, for configurations that say nothing.
func memoryLimit(cfg *config.Config, initial int64) {
	limit := cfg.Limits.MaxMemory
	if limit == 0 {
		limit = initial
	}
	debug.SetMemoryLimit(limit)
}

// reportFiles says if the process may not open as many files as the
// configuration could need.
func reportFiles(log hclog.Logger, cfg *config.Config) {
	limit, sessions := proxy.MaxFiles(cfg)
	if limit == 0 || sessions >= int64(cfg.Limits.MaxSessions) {
		return
	}
	log.Warn("the limit of open files allows fewer sessions than limits.max_sessions: set LimitNOFILE= of the systemd unit (ulimit -n) to what is needed",
		"limit", limit, "needed", limit-sessions+int64(cfg.Limits.MaxSessions), "sessions", sessions, "max_sessions", cfg.Limits.MaxSessions)
}
