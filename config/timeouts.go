package config

import "time"

// Timeouts are the deadlines of a backend's connections by phase; 0: none.
type Timeouts struct {
	Connect   time.Duration // TCP connection
	Handshake time.Duration // greeting and login
	Reply     time.Duration // between two reads of a reply
	Write     time.Duration // one write of a request
	Tunnel    time.Duration // without a byte in either direction of a tunnel
}

func (t *Timeouts) block() block {
	return block{
		name: "timeouts",
		doc:  "How long the proxy waits for a backend in each phase. `0s` is without limit.",
		example: `
backend_defaults {
  timeouts {
    connect = "2s"
    reply   = "10m"
  }
}`,
		attrs: []attr{
			{
				name: "connect", field: duration(&t.Connect, 0), def: `"5s"`,
				doc: "For the TCP connection.",
			},
			{
				name: "handshake", field: duration(&t.Handshake, 0), def: `"5s"`,
				doc: "For Dovecot's greeting and the login. Dovecot greets late or not at all when all processes of its doveadm service are busy.",
			},
			{
				name: "reply", field: duration(&t.Reply, 0), def: `"0s"`,
				doc: "Between two pieces of a reply. Some commands are silent for a long time while they work (`force-resync`, `index`, a search in a large mailbox): a limit ends them.",
			},
			{
				name: "write", field: duration(&t.Write, 0), def: `"60s"`,
				doc: "For the backend to take a piece of a request.",
			},
			{
				name: "tunnel", field: duration(&t.Tunnel, 0), def: `"11m"`,
				doc: "Without a byte in either direction between `doveadm sync` or `backup` and the backend. Dovecot itself gives up after ten minutes.",
			},
		},
	}
}
