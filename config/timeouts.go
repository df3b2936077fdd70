package config

import "time"

// Timeouts are the deadlines of a backend's connections by phase; 0: none.
type Timeouts struct {
	Connect   time.Duration // TCP connection
	Handshake time.Duration // greeting and login
	Reply     time.Duration // what those of the classes below are, where they say nothing and this was set
	Write     time.Duration // one write of a request
	Tunnel    time.Duration // without a byte in either direction of a tunnel

	Quick, Normal, Slow CommandTimeouts // by class of the command
}

// CommandTimeouts are the deadlines of the commands of one class; 0: none.
type CommandTimeouts struct {
	FirstReply time.Duration // from the request, with its input, to the first byte
	Reply      time.Duration // between two reads of a reply
	Command    time.Duration // from the request to the end of the reply
}

func (t *CommandTimeouts) block(class, commands, reply, command string) block {
	return block{
		name: class, in: "timeouts",
		doc: "The timeouts of " + commands + ". [commands.md](commands.md) tells the class of each command. When one is over the client gets `-TEMPFAIL` with the reason; the backend may still be at work.",
		attrs: []attr{
			{
				name: "first_reply", field: duration(&t.FirstReply, 0), def: reply,
				doc: "From the request, and its input where there is one, to the first byte of the reply. `0s`: no limit. Where nothing is said, `reply` of the block around counts if that is set.",
			},
			{
				name: "reply", field: duration(&t.Reply, 0), def: reply,
				doc: "Between two pieces of the reply. `0s`: no limit. Where nothing is said, `reply` of the block around counts if that is set.",
			},
			{
				name: "command", field: duration(&t.Command, 0), def: command,
				doc: "From the request to the end of the reply. `0s`: no limit.",
			},
		},
	}
}

// settle fills in what follows from reply. at is the place of the block around
// the timeouts.
func (t *Timeouts) settle(at *place) {
	if !at.inherits("timeouts.reply") {
		return
	}
	for class, c := range map[string]*CommandTimeouts{"quick": &t.Quick, "normal": &t.Normal, "slow": &t.Slow} {
		if !at.inherits("timeouts." + class + ".first_reply") {
			c.FirstReply = t.Reply
		}
		if !at.inherits("timeouts." + class + ".reply") {
			c.Reply = t.Reply
		}
	}
}

func (t *Timeouts) block() block {
	return block{
		name: "timeouts",
		doc:  "How long the proxy waits for a backend in each phase. `0s` is without limit.",
		example: `
backend_defaults {
  timeouts {
    connect = "2s"
    quick {
      first_reply = "30s"
    }
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
				doc: "If it is written, even as `0s`: for the first byte of a reply and between two pieces of it, for commands of all classes that do not say otherwise in the blocks below.",
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
		blocks: []block{
			t.Quick.block("quick", "commands that read or write a setting, an index or the state of a process (`quota get`, `mailbox list`, `sieve get`, `who`). They take moments, but for locks that others hold, for which Dovecot waits two minutes", `"5m"`, `"30m"`),
			t.Normal.block("normal", "commands that read or write mail (`fetch`, `search`, `save`, `copy`, `expunge`, `mailbox status`), and those that the proxy does not know", `"30m"`, `"0s"`),
			t.Slow.block("slow", "commands that go through whole mailboxes and say nothing until they are done (`index`, `force-resync`, `purge`, `import`, `sync`)", `"0s"`, `"0s"`),
		},
	}
}
