package config

import (
	"io/fs"
	"net"
	"net/netip"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Admin is the admin block: where the running proxy can be asked and told
// things. It counts from a start to the end of the process.
type Admin struct {
	Network   string // "unix" or "tcp"; empty: there is no admin endpoint
	Address   string
	Mode      fs.FileMode // of a UNIX socket
	StateFile string      // keeps what operators want of backends
}

// AdminSocket is where the admin endpoint is if nothing else is said.
const AdminSocket = "/run/doveadm-proxy/admin.sock"

func (a *Admin) block() block {
	return block{
		name: "admin",
		doc: "The control of the running proxy, for `doveadm-proxy status`, `backends`, `drain`, `resume` and `down`, and over HTTP for scripts: " +
			"`GET /live`, `/ready`, `/v1/status`, `/v1/backends` and `POST /v1/backends/NAME/state`. Without the block there is none. A change of the block counts from the next start.",
		example: `
admin {}`,
		attrs: []attr{
			{
				name: "address", field: endpoint(&a.Network, &a.Address), def: `"unix:` + AdminSocket + `"`,
				doc: "The path of a UNIX socket, whose permissions say who may use it; or host and port, on a loopback address. A port has no permissions, so there everything can be read and nothing changed.",
			},
			{
				name: "mode", field: socketMode(&a.Mode), def: `"0600"`,
				doc: "Permissions of the UNIX socket: who may write to it may take backends out of service.",
			},
			{
				name: "state_file", field: path(&a.StateFile, func(string) error { return nil }), def: `"/var/lib/doveadm-proxy/operator.json"`,
				doc: "What operators want of backends (`drain`, `down`) is kept here, so that it outlives a restart. The directory has to exist (`StateDirectory=` of the systemd unit makes it), and each proxy needs a file of its own.",
			},
		},
	}
}

func (l *loader) adminBlock(b *hclsyntax.Block) {
	at := l.block(l.admin.block(), b, nil)
	if l.admin.Network != "tcp" {
		return
	}
	l.admin.Mode = 0
	if at.has("mode") {
		l.errorf(at.of("mode"), "mode without a UNIX socket", "Only a UNIX socket has permissions. Remove the attribute, or write address = \"unix:/path\".")
	}
	host, _, _ := net.SplitHostPort(l.admin.Address)
	if ip, err := netip.ParseAddr(host); at.has("address") && (err != nil || !ip.Unmap().IsLoopback()) {
		l.errorf(at.of("address"), "Admin endpoint open to other hosts",
			"There is no login on it, so it may only be on this machine. Write address = \"127.0.0.1:9124\", or leave it out for a UNIX socket.")
	}
}
