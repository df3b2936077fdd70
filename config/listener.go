package config

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
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
	TLS         ListenerTLS

	// InsecureClearText lets clients of other hosts log in without TLS.
	InsecureClearText bool
}

func (n *Listener) block() block {
	return block{
		name: "listener", label: "name", many: true,
		doc: "Where clients connect. At least one is needed. A login in clear text is accepted on UNIX sockets and from the loopback addresses of this machine (127.0.0.0/8, ::1); " +
			"clients on other hosts need a `tls` block, or `insecure_clear_text`.",
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
			{
				name: "insecure_clear_text", field: toggle(&n.InsecureClearText), def: `false`,
				doc: "`true`: clients on other hosts may log in without TLS. Whoever can listen on the way then gets their passwords, and all mail that they fetch.",
			},
		},
		blocks: []block{n.TLS.block()},
		later: []later{
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
	l.listenerTLS(n, b)
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

// listenerTLS looks at how a listener protects logins.
func (l *loader) listenerTLS(n *placed[Listener], b *hclsyntax.Block) {
	v := &n.value
	i := slices.IndexFunc(b.Body.Blocks, func(inner *hclsyntax.Block) bool { return inner.Type == "tls" })
	if i < 0 {
		v.TLS = ListenerTLS{} // without the defaults of a block that is not there
	} else {
		l.keyPair(v.TLS.CertFile, v.TLS.KeyFile, &n.at)
	}
	switch {
	case v.Network == "unix" && i >= 0:
		l.errorf(b.Body.Blocks[i].DefRange(), "tls on a UNIX socket", "What goes through a UNIX socket does not leave the machine. Remove the block, or write address = \"host:port\".")
	case v.Network == "unix" && v.InsecureClearText:
		l.errorf(n.at.of("insecure_clear_text"), "insecure_clear_text on a UNIX socket", "Nobody on another host reaches a UNIX socket. Remove the attribute.")
	case v.InsecureClearText && (v.TLS.Mode == TLSImplicit || v.TLS.Mode == TLSStartTLSRequired):
		l.errorf(n.at.of("insecure_clear_text"), "insecure_clear_text where all is encrypted",
			"With mode = %q in the tls block nobody logs in in clear text. Remove one of the two, or write mode = %q.", v.TLS.Mode, TLSStartTLS)
	case v.Network == "tcp" && i < 0 && !v.InsecureClearText && isPublic(v.Address):
		l.warnf(n.at.of("address"), "Clients on other hosts cannot log in",
			"They would have to send their passwords in clear text. Write a tls block, or address = \"127.0.0.1:24245\" if they are all on this machine. Where the network is private, insecure_clear_text = true allows it.")
	}
}

// Loopback reports whether only this machine can connect to an address: unix: and
// a path, or host:port where the host is localhost or a loopback address.
func Loopback(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// isPublic reports whether other hosts reach a listener's address, as far as
// it says so.
func isPublic(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip, notIP := netip.ParseAddr(host)
	return err == nil && (host == "" || notIP == nil && !ip.Unmap().IsLoopback())
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
