package config

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/zclconf/go-cty/cty"
)

// write makes the files of a directory, readable for the owner only.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// mustLoad loads a configuration that has no problem.
func mustLoad(t *testing.T, path string) *Config {
	t.Helper()
	cfg, diags := Load(path)
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	return cfg
}

func mustParse(t *testing.T, src string) *Config {
	t.Helper()
	cfg, diags := Parse("test.hcl", []byte(src))
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	return cfg
}

func diff(want, got *Config) string {
	return cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}))
}

// The defaults are those of the design, and one shard needs no route.
func TestLoadDefaults(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"proxy.hcl":        strings.ReplaceAll(minimal, "/etc/doveadm-proxy", dir),
		"secrets/doveadm":  "{PLAIN}one\n",
		"secrets/backends": "\n  two \r\n",
	})
	want := &Config{
		Log:       Log{Level: "info", Format: "text"},
		Listeners: []Listener{{Name: "main", Network: "tcp", Address: "127.0.0.1:24245"}},
		Clients:   []Client{{Name: "doveadm", Password: NewSecret("{PLAIN}one"), PasswordFile: filepath.Join(dir, "secrets/doveadm"), Priority: "interactive", PipelineDepth: 16}},
		Shards: []Shard{{Name: "s1", Balance: BalanceOrder, SlowStart: 30 * time.Second, Weight: 100, Backends: []Backend{{
			Name:     "mail1",
			Address:  "10.0.1.1:24245",
			Username: "doveadm",
			Password: NewSecret("two"), PasswordFile: filepath.Join(dir, "secrets/backends"),
			TLS: BackendTLS{Mode: TLSOff},
			Pool: Pool{
				MaxOpen: 8, MaxIdle: 8, MinIdle: 0, IdleTimeout: 30 * time.Second, MaxLifetime: 5 * time.Minute,
				MaxCommands: 1000, AcquireTimeout: 10 * time.Second, MaxWaiting: 1000, MaxBulk: 2, MaxTunnels: 4, MinActive: 1,
			},
			Breaker: Breaker{Failures: 5, Open: 10 * time.Second, Probes: 1},
			Timeouts: Timeouts{
				Connect: 5 * time.Second, Handshake: 5 * time.Second, Reply: 0, Write: time.Minute, Tunnel: 11 * time.Minute,
				Quick:  CommandTimeouts{5 * time.Minute, 5 * time.Minute, 30 * time.Minute},
				Normal: CommandTimeouts{30 * time.Minute, 30 * time.Minute, 0},
			},
			HealthCheck: HealthCheck{Timeout: 5 * time.Second, Fall: 3, Rise: 2},
		}}}},
		Router: Router{UsernameFormat: "%Lu"},
		Routes: []Route{{Kind: "ring", Shards: []string{"s1"}, Ring: Ring{Algorithm: RingRendezvous}}},
		Limits: Limits{
			MaxSessions: 10000, HandshakeTimeout: 5 * time.Second, IdleTimeout: 0, WriteTimeout: time.Minute,
			DrainTimeout: 30 * time.Second, OverlapTimeout: time.Hour, InputTimeout: 5 * time.Minute, MaxInput: 1 << 30, MaxSpool: 10 << 30, SpoolDir: "/var/tmp",
		},
		LoginDefence: LoginDefence{AddressFailures: 20, NameFailures: 200, Recovery: 10 * time.Minute},
		Referrals:    Referrals{MaxHops: 4},
	}
	if diff := diff(want, mustLoad(t, filepath.Join(dir, "proxy.hcl"))); diff != "" {
		t.Error(diff)
	}
}

// The files of a directory are one configuration, in the order of their names;
// paths are relative to the file they stand in.
func TestLoadDirectory(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"10-clients.hcl":  `client "a" { password_file = "secret" }`,
		"20-shards.hcl":   "shard \"s1\" {\n  backend \"b1\" { address = \"h1:1\" }\n}\nroute \"match\" {\n  users = [\"first\"]\n  shard = \"s1\"\n}\n",
		"30-more.hcl":     "shard \"s2\" {\n  backend \"b2\" { address = \"h2:1\" }\n}\nroute \"ring\" {}\n",
		"40-listener.hcl": "listener \"main\" { address = \"127.0.0.1:1\" }\nbackend_defaults { password = file(\"sub/../secret\") }\n",
		"secret":          "{PLAIN}x",
		".hidden.hcl":     "nonsense",
		"notes.txt":       "nonsense",
		"old.hcl.bak":     "nonsense",
	})
	cfg := mustLoad(t, dir)
	var routes []string
	for _, r := range cfg.Routes {
		routes = append(routes, r.Kind)
	}
	if diff := cmp.Diff([]string{"match", "ring"}, routes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"s1", "s2"}, cfg.Routes[1].Shards); diff != "" {
		t.Errorf("shards of a ring that names none: %s", diff)
	}
	if cfg.Clients[0].Password.Reveal() != "{PLAIN}x" || cfg.Shards[1].Backends[0].Password.Reveal() != "{PLAIN}x" {
		t.Error("passwords are not those of the file")
	}

	// A problem is in its own file, and a block that stands once stands so over all.
	write(t, dir, map[string]string{
		"50-log.hcl": "log {}\n",
		"60-log.hcl": "log {\n  level = \"x\"\n}\nlog {}\n",
	})
	_, diags := Load(dir)
	var got []string
	for _, p := range Problems(diags) {
		got = append(got, filepath.Base(p.File)+": "+p.Summary)
	}
	want := []string{"60-log.hcl: Second log block", "60-log.hcl: Second log block"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoadUnreadable(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"empty/notes.txt":        "",
		"odd/directory.hcl/file": "",
		"large.hcl":              strings.Repeat("#", maxFile+1),
	})
	for path, want := range map[string]string{
		"nonexistent": "Cannot read the configuration",
		"empty":       "No configuration file",
		"odd":         "Cannot read the configuration",
		"large.hcl":   "Cannot read the configuration",
	} {
		path = filepath.Join(dir, path)
		cfg, diags := Load(path)
		if cfg != nil || len(diags) != 1 || diags[0].Summary != want || !strings.Contains(diags[0].Detail, path) {
			t.Errorf("%s: %v", path, diags)
		}
		var sb strings.Builder
		if err := WriteDiagnostics(&sb, diags, false); err != nil || !strings.Contains(sb.String(), path) {
			t.Errorf("%s is shown as %q, %v", path, &sb, err)
		}
	}
}

// full has everything a configuration may have, none of it as by default.
const full = `
log {
  level  = "debug"
  format = "json"
}
admin {
  mode       = "0660"
  state_file = "/x//y"
}
audit {
  to       = "syslog"
  max_size = "1MiB"
  keep     = 1
  on_error = "refuse"
}
login_defence {
  address_failures = 0
  exempt           = ["192.0.2.0/24"]
}
limits {
  max_sessions      = 7

  max_sessions_per_address = 6
  max_memory               = "2MiB"

  handshake_timeout = "1s"
  idle_timeout      = "1h30m"
  write_timeout     = "1500ms"
  drain_timeout     = "0s"
  input_timeout     = "2s"
  max_input         = "5B"
  max_spool         = "3MiB"
  spool_dir         = "/"
}
listener "tcp" {
  address      = "[::1]:024245"
  max_sessions = 3
}
listener "any" {
  address             = ":0"
  insecure_clear_text = true
}
listener "unix" {
  address = "unix:/run//x"
  mode    = "0666"
  client  = "c$${x}"
}
client "c$${x}" {
  password = "{PLAIN}a\"b\\c$${d}%%{e}ü "
}
client "d" {
  password       = "{ssha256.hex}00"
  pipeline_depth = 1
  priority       = "bulk"
  max_sessions   = 4
  max_commands   = 2
}
referrals {
  networks = ["10.0.1.7/24", "2001:db8::/32"]
  max_hops = 0
}
shard "s1" {
  balance    = "least-busy"
  slow_start = "0s"
  backend "b1" {
    address = "mail1.example:1"
  }
  backend "b2" {
    address  = "10.0.0.2:65535"
    standby  = true
    username = "other"
    password = "other"
    health_check {
      fall = 1
    }
    tls {
      mode                 = "starttls"
      server_name          = "10.0.0.2"
      insecure_skip_verify = true
    }
    pool {
      max_open = 3
    }
    breaker {
      probes = 4
    }
    timeouts {
      reply = "1m"
    }
  }
}
shard "s2" {
  weight = 50
  backend "b3" {
    address = "[2001:db8::3]:1"
    tls {
      mode = "off"
    }
    health_check {
      interval = "0s"
      user     = "u"
    }
  }
}
backend_defaults {
  username = "proxy"
  password = "$${env(\"X\")}"
  tls {
    mode        = "implicit"
    server_name = "mail.example"
    pin         = "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
  }
  health_check {
    timeout = "1s"
    rise    = 1
  }
  pool {
    max_open        = 20
    idle_timeout    = "0s"
    max_lifetime    = "0s"
    max_commands    = 0
    acquire_timeout = "0s"
    max_waiting     = 0
    max_bulk        = 2
    max_tunnels     = 0
    adaptive        = true
    min_active      = 2
  }
  breaker {
    failures = 2
    open     = "1ms"
  }
  timeouts {
    connect   = "0s"
    handshake = "0s"
    write     = "2h"
    tunnel    = "0s"
    quick {
      first_reply = "1s"
      reply       = "0s"
    }
    normal {
      command = "3s"
    }
    slow {
      reply = "4s"
    }
  }
}
route "match" {
  users = ["*@a", "b?c", "ünï"]
  shard = "s2"
}
route "file" {
  path = "/etc/hostname"
}
route "ring" {
  algorithm     = "director"
  username_hash = "%Ln"
  tag           = "eu"
  domains       = ["*.a"]
  regex         = ["x.*"]
  server "10.0.0.2" {
    shard  = "s2"
    vhosts = 7
    tag    = "eu"
  }
  server "2001:db8:0::3" {
    shard  = "s1"
    tag    = "eu"
    down   = true
  }
}
route "ring" {
  shards = ["s2", "s1"]
}
`

func TestParseFull(t *testing.T) {
	cfg := mustParse(t, full)
	pool := Pool{MaxOpen: 20, MaxIdle: 20, MaxBulk: 2, Adaptive: true, MinActive: 2}
	breaker := Breaker{Failures: 2, Open: time.Millisecond, Probes: 1}
	timeouts := Timeouts{
		Write:  2 * time.Hour,
		Quick:  CommandTimeouts{time.Second, 0, 30 * time.Minute},
		Normal: CommandTimeouts{30 * time.Minute, 30 * time.Minute, 3 * time.Second},
		Slow:   CommandTimeouts{0, 4 * time.Second, 0},
	}
	tls := BackendTLS{Mode: TLSImplicit, ServerName: "mail.example", Pin: "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}
	check := HealthCheck{Interval: 10 * time.Second, Timeout: time.Second, Fall: 3, Rise: 1}
	b1 := Backend{
		Name: "b1", Address: "mail1.example:1", Username: "proxy", Password: NewSecret(`${env("X")}`),
		TLS: tls, Pool: pool, Breaker: breaker, Timeouts: timeouts, HealthCheck: check,
	}
	b2, b3 := b1, b1
	b2.Name, b2.Address, b2.Username, b2.Password = "b2", "10.0.0.2:65535", "other", NewSecret("other")
	b2.Pool.MaxOpen, b2.Pool.MaxIdle, b2.Breaker.Probes, b2.Timeouts.Reply = 3, 3, 4, time.Minute
	b2.Timeouts.Normal.FirstReply, b2.Timeouts.Normal.Reply, b2.Timeouts.Slow.FirstReply = time.Minute, time.Minute, time.Minute
	b2.TLS.Mode, b2.TLS.ServerName, b2.TLS.InsecureSkipVerify = TLSStartTLS, "10.0.0.2", true
	b2.Standby, b2.HealthCheck.Fall = true, 1
	b3.HealthCheck.Interval, b3.HealthCheck.User = 0, "u"
	b3.Name, b3.Address, b3.TLS.Mode = "b3", "[2001:db8::3]:1", TLSOff
	want := &Config{
		Log: Log{"debug", "json"},
		Listeners: []Listener{
			{Name: "tcp", Network: "tcp", Address: "[::1]:24245", MaxSessions: 3},
			{Name: "any", Network: "tcp", Address: ":0", InsecureClearText: true},
			{Name: "unix", Network: "unix", Address: "/run/x", Mode: 0o666, Client: "c${x}"},
		},
		Clients: []Client{
			{Name: "c${x}", Password: NewSecret(`{PLAIN}a"b\c${d}%{e}ü `), Priority: PriorityInteractive, PipelineDepth: 16},
			{Name: "d", Password: NewSecret("{ssha256.hex}00"), Priority: PriorityBulk, MaxSessions: 4, MaxCommands: 2, PipelineDepth: 1},
		},
		Shards: []Shard{{"s1", []Backend{b1, b2}, BalanceLeastBusy, 0, 100}, {"s2", []Backend{b3}, BalanceOrder, 30 * time.Second, 50}},
		Router: Router{UsernameFormat: "%Lu"},
		Routes: []Route{
			{Kind: "match", Match: Match{Users: []string{"*@a", "b?c", "ünï"}}, Shard: "s2"},
			{Kind: "file", Path: "/etc/hostname", Format: MapText},
			{Kind: "ring", Shards: []string{"s2", "s1"}, Match: Match{Domains: []string{"*.a"}, Regex: []string{"x.*"}}, Ring: Ring{Algorithm: RingDirector, UsernameHash: "%Ln", Tag: "eu", Servers: []RingServer{
				{Address: netip.MustParseAddr("10.0.0.2"), Shard: "s2", VHosts: 7, Tag: "eu"},
				{Address: netip.MustParseAddr("2001:db8::3"), Shard: "s1", VHosts: 100, Tag: "eu", Down: true},
			}}},
			{Kind: "ring", Shards: []string{"s2", "s1"}, Ring: Ring{Algorithm: RingRendezvous, Weights: []int{50, 100}}},
		},
		Limits: Limits{
			MaxSessions: 7, MaxPerAddress: 6, MaxMemory: 2 << 20,
			HandshakeTimeout: time.Second, IdleTimeout: 90 * time.Minute, WriteTimeout: 1500 * time.Millisecond,
			OverlapTimeout: time.Hour, InputTimeout: 2 * time.Second, MaxInput: 5, MaxSpool: 3 << 20, SpoolDir: "/",
		},
		LoginDefence: LoginDefence{NameFailures: 200, Recovery: 10 * time.Minute, Exempt: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		Audit:        Audit{To: AuditSyslog, Path: "/dev/log", Mode: 0o640, MaxSize: 1 << 20, Keep: 1, Buffer: 4 << 20, Refuse: true},
		Referrals:    Referrals{Networks: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("2001:db8::/32")}},
		Admin:        Admin{Network: "unix", Address: AdminSocket, Mode: 0o660, StateFile: "/x/y"},
	}
	if diff := diff(want, cfg); diff != "" {
		t.Error(diff)
	}
}

// revealed is what Print writes, with the secrets.
func revealed(t *testing.T, cfg *Config) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := printWith(&b, cfg, func(v cty.Value) cty.Value { return v }); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPrint(t *testing.T) {
	cfg := mustParse(t, full)
	text := revealed(t, cfg)
	if diff := diff(cfg, mustParse(t, string(text))); diff != "" {
		t.Errorf("what was printed loads as another configuration:\n%s\n%s", diff, text)
	}

	var b bytes.Buffer
	if err := Print(&b, cfg); err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"{PLAIN}", "ssha256", "other\"\n    pool", "env("} {
		if bytes.Contains(b.Bytes(), []byte(secret)) {
			t.Errorf("Print shows %q:\n%s", secret, &b)
		}
	}
	// Five masks: two clients, three backends. None of them is a password.
	_, diags := Parse("test.hcl", b.Bytes())
	if len(diags) != 5 {
		t.Errorf("%d problems with masks for passwords: %v", len(diags), diags)
	}
	for _, d := range diags {
		if !strings.Contains(d.Detail, masked) {
			t.Errorf("not about the mask: %v", d)
		}
	}
}

// A configuration that loads is printed as one that loads the same.
func FuzzParse(f *testing.F) {
	// Short ones: the fuzzer spends its time on making each input shorter.
	for _, src := range []string{
		small,
		small + "log {\n  level = \"debug\"\n",
		small + "route \"ring\" {\n  shards = [\"s\"]\n}\n",
		small + "referrals { networks = [\"10.0.0.1/8\"] }\n",
		small + "client \"d\" {\n  tls_subject = \"CN=d\"\n  allow { users = [\"@a\"] }\n  deny {}\n}\n",
		small + "limits {\n  max_spool = \"3KiB\"\n  idle_timeout = \"1h5s\"\n}\n",
		"listener \"x {\n  address = \"unix:/x\n  mode = \"0600\"\n}\n",
		"client \"x\" {\n  password = env(\"HOME\")\n  password = \"$${a}%%{b}\\n\"\n",
		"backend_defaults {\n  pool { max_open = -1e3 }\n  password = <<-A\n    b\n  A\n}\n}\n",
	} {
		f.Add([]byte(src))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		cfg, diags := Parse("fuzz.hcl", src)
		if (cfg == nil) != diags.HasErrors() {
			t.Fatalf("configuration %v, errors %v", cfg != nil, diags.HasErrors())
		}
		if err := WriteDiagnostics(&bytes.Buffer{}, diags, true); err != nil {
			t.Fatal(err)
		}
		for _, p := range Problems(diags) {
			if p.Line < 1 || p.Column < 1 || p.Summary == "" || p.Detail == "" {
				t.Errorf("problem without a place or a remedy: %+v", p)
			}
		}
		if cfg == nil {
			return
		}
		text := revealed(t, cfg)
		again, diags := Parse("fuzz.hcl", text)
		if diags.HasErrors() {
			t.Fatalf("%v, in what was printed:\n%s", diags, text)
		}
		if diff := diff(cfg, again); diff != "" {
			t.Errorf("%s\nin what was printed:\n%s", diff, text)
		}
	})
}

const small = `
listener "main" { address = "127.0.0.1:1" }
client "c" { password = "{PLAIN}x" }
shard "s" {
  backend "b" {
    address  = "h:1"
    password = "y"
  }
}
`

// A health_check block switches the checks on where it stands and for those
// who inherit it; interval = "0s" switches them off again.
func TestHealthCheckBlock(t *testing.T) {
	for _, test := range []struct {
		defaults, backend string
		want              time.Duration
	}{
		{"", "", 0},
		{"health_check {}", "", 10 * time.Second},
		{"", "health_check {}", 10 * time.Second},
		{"health_check {\n interval = \"3s\"\n}", "", 3 * time.Second},
		{"health_check {\n interval = \"3s\"\n}", "health_check {\n fall = 1\n}", 3 * time.Second},
		{"health_check {}", "health_check {\n interval = \"0s\"\n}", 0},
		{"health_check {\n interval = \"0s\"\n}", "health_check {\n interval = \"1s\"\n}", time.Second},
	} {
		cfg := mustParse(t, `
listener "main" { address = "127.0.0.1:1" }
client "c" { password = "{PLAIN}x" }
shard "s1" {
  backend "b1" {
    address = "h1:1"
    `+test.backend+`
  }
}
backend_defaults {
  password = "x"
  `+test.defaults+`
}`)
		if got := cfg.Shards[0].Backends[0].HealthCheck.Interval; got != test.want {
			t.Errorf("defaults %q, backend %q: every %v, want %v", test.defaults, test.backend, got, test.want)
		}
	}
}
