package proxy

import (
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// before is what is done about a command before it has a connection.
type before struct {
	name   string
	run    func()
	allocs float64
}

// beforeForwarding is all of it, for a client with rights that ask for the
// shard, and a map.
func beforeForwarding(t testing.TB) []before {
	cfg, diags := config.Parse("test.hcl", []byte(`
listener "main" { address = "127.0.0.1:0" }
client "panel" {
  password = "{PLAIN}secret"
  allow {
    commands = ["quota *", "mailbox list"]
    users    = ["*@example.com"]
  }
}
backend_defaults { password = "secret" }
shard "s1" {
  backend "b1" { address = "127.0.0.1:1" }
}
shard "s2" {
  backend "b2" { address = "127.0.0.1:2" }
}
route "match" {
  domains = ["example.org"]
  shard   = "s1"
}
route "ring" {}
`))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	p, err := New(cfg, Options{Log: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Shutdown(t.Context()) })
	s := &session{proxy: p, client: "panel"}
	snap := p.snapshot.Load()

	// Each has a task of its own, as if nothing had been done about it yet.
	commands := func(line string) (*task, func()) {
		var parsed doveadm.Command
		if err := parsed.Parse([]byte(line)); err != nil {
			t.Fatal(err)
		}
		tk := &task{session: s}
		return tk, func() {
			args, extra := tk.cmd.Args[:0], tk.cmd.Extra[:0]
			tk.cmd = parsed
			tk.cmd.Args, tk.cmd.Extra = append(args, parsed.Args...), append(extra, parsed.Extra...)
			var refused *refusal
			if tk.request, refused = prepare(&tk.cmd, doveadm.MinorExtraFields); refused != nil {
				t.Fatal(refused)
			}
		}
	}
	const line = "x\tproxy-ttl=5\talice@example.com\tquota get"
	_, plain := commands(line)
	_, named := commands(line + "\t-u\talice@example.com")
	tk, prepared := commands(line)
	prepared()
	return []before{
		{name: "prepare", run: plain},
		// The option is taken out of a copy of the arguments.
		{name: "prepare/-u", run: named, allocs: 2},
		{name: "authorize", run: func() {
			if refused := s.authorize(&tk.request); refused != nil {
				t.Fatal(refused)
			}
		}},
		{name: "route", run: func() {
			tk.request.routed = routed{}
			if _, refused := snap.shardOf(waits{tk}, &tk.request); refused != nil {
				t.Fatal(refused)
			}
		}},
	}
}

func TestBeforeForwardingAllocations(t *testing.T) {
	for _, b := range beforeForwarding(t) {
		if n := testing.AllocsPerRun(1000, b.run); n > b.allocs && !UnderRace {
			t.Errorf("%s: %v allocations, want %v", b.name, n, b.allocs)
		}
	}
}

func BenchmarkBeforeForwarding(b *testing.B) {
	for _, what := range beforeForwarding(b) {
		b.Run(what.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				what.run()
			}
		})
	}
}
