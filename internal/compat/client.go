package main

import (
	"context"
	"fmt"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// client is one of the programs that the commands are run with.
type client struct {
	raw     bool
	minor   doveadm.Minor   // of a raw client
	version dovecot.Version // of the doveadm program
}

func (c client) String() string {
	if c.raw {
		return fmt.Sprintf("protocol 1.%d", c.minor)
	}
	return "doveadm " + string(c.version)
}

// clients are all of them: every version of the protocol, and the real program
// of each release series.
func clients() (list []client) {
	for minor := range doveadm.MaxMinor + 1 {
		list = append(list, client{raw: true, minor: minor})
	}
	for _, version := range dovecot.Versions() {
		list = append(list, client{version: version})
	}
	return list
}

// can reports whether the client is able to run a case.
func (c client) can(cmd *command) bool {
	if c.raw {
		return cmd.clients != cliOnly && (len(cmd.extra) == 0 || c.minor >= doveadm.MinorExtraFields)
	}
	if cmd.clients == rawOnly {
		return false
	}
	// A program knows the commands and formats of its own release only.
	info, known := doveadm.LookupCommand(cmd.name)
	return known && info.Series&series(c.version) != 0
}

// runner runs cases as a client at one address.
type runner interface {
	run(ctx context.Context, c *command, user string) (observation, error)
	close()
}

// connect returns a runner. The server of the address is a Dovecot or, if
// proxied, the proxy.
func (c client) connect(s *site, addr string, proxied bool) runner {
	if c.raw {
		return &rawClient{addr: addr, minor: c.minor, proxied: proxied}
	}
	return &cliClient{version: c.version, config: s.cliConfig(c.version), addr: addr}
}
