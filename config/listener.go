package config

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// Listener is one listener block.
type Listener struct {
	Name        string
	Network     string      // "tcp" or "unix"
	Address     string      // host:port, or the path of the socket
	Mode        fs.FileMode // of a UNIX socket
	Client      string      // sessions start authenticated as this client; empty: they log in
	MaxSessions int         // 0: only limits.max_sessions counts
}

func (n *Listener) block() block {
	return block{
		name: "listener", label: "name", many: true,
		doc: "Where clients connect. At least one is needed. This version does not speak TLS: listen on the loopback address, on a UNIX socket or on a network that you trust, " +
			"or put a TLS terminator in front.",
		example: `
listener "main" {
  address = "127.0.0.1:24245"
}

listener "local" {
  address = "unix:/run/doveadm-proxy/doveadm.sock"
  mode    = "0600"
  client  = "operator"
}`,
		attrs: []attr{
			{
				name: "address", field: endpoint(&n.Network, &n.Address), required: true, example: `"127.0.0.1:24245"`,
				doc: "Host and port (`0.0.0.0:24245` and `[::]:24245` are all addresses; port 0 is any free one, which the log tells), or the path of a UNIX socket.",
			},
			{
				name: "mode", field: socketMode(&n.Mode), def: `"0600"`,
				doc: "Permissions of a UNIX socket: who may write to it may connect.",
			},
			{
				name: "client", field: text(&n.Client), example: `"operator"`,
				doc: "Only of a UNIX socket: a session starts as this `client`, without a login. Without the attribute clients log in.",
			},
			{
				name: "max_sessions", field: count(&n.MaxSessions, 0), def: `0`,
				doc: "Client connections to this listener at the same time. 0: only `max_sessions` of `limits` counts.",
			},
		},
		later: []later{
			{"tls", "Remove the block. Listen on the loopback address, a UNIX socket or a network that you trust, or put a TLS terminator (stunnel, HAProxy) in front."},
			{"proxy_protocol", "Remove the block, and switch the PROXY protocol off in the balancer: its header would be taken for a broken client."},
		},
	}
}

// socketMode is a file mode in octal.
func socketMode(to *fs.FileMode) field {
	return field{
		takes: "an octal file mode in quotes",
		set: func(v value) *problem {
			s, ok := v.is.(string)
			if !ok {
				return wrong("")
			}
			n, err := strconv.ParseUint(s, 8, 32)
			if err != nil || n > 0o777 {
				return wrong("Three octal digits after a 0.")
			}
			if n == 0 {
				return wrong("With this mode nobody could connect.")
			}
			*to = fs.FileMode(n)
			return nil
		},
		get: func() cty.Value {
			if *to == 0 {
				return cty.NilVal
			}
			return cty.StringVal(fmt.Sprintf("%04o", uint32(*to)))
		},
	}
}

func (l *loader) listener(b *hclsyntax.Block) {
	n := new(placed[Listener])
	n.at = l.block(n.value.block(), b, nil)
	n.value.Name = label(b)
	if n.value.Network == "tcp" {
		n.value.Mode = 0
		if n.at.has("mode") {
			l.errorf(n.at.of("mode"), "mode without a UNIX socket", "Only a UNIX socket has permissions. Remove the attribute, or write address = \"unix:/path\".")
		}
		if n.at.has("client") {
			l.errorf(n.at.of("client"), "No login on a TCP port",
				"With this attribute everybody who reaches the port is let in without a password. It is for UNIX sockets, whose mode says who may connect. "+
					"Remove the attribute, or write address = \"unix:/path\".")
		}
	}
	l.listeners = append(l.listeners, n)
}

func (l *loader) checkListeners() {
	if len(l.listeners) == 0 {
		l.missing(l.end(), "No listener", "Nobody can connect. Add a block: listener \"main\" { address = \"127.0.0.1:24245\" }")
	}
	names := map[string]hcl.Range{}
	addresses := map[string]*placed[Listener]{}
	for _, n := range l.listeners {
		l.unique("listener", n.value.Name, &n.at, names)
		switch first, ok := addresses[n.value.Address]; {
		case n.value.Address == "" || n.value.Network == "tcp" && strings.HasSuffix(n.value.Address, ":0"):
		case ok:
			l.errorf(n.at.of("address"), "Address used twice",
				"The listener at %s has the same address. Remove one of the two, or change its address.", position(first.at.header))
		default:
			addresses[n.value.Address] = n
		}
		l.known("client", n.at.attrs["client"], n.value.Client, l.clientNames())
	}
}
