package config

import (
	"math"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"
)

func TestDuration(t *testing.T) {
	for src, want := range map[string]string{ // what is written again; empty: refused
		`"500ms"`: "500ms", `"10s"`: "10s", `"60s"`: "1m", `"90m"`: "1h30m", `"1h0m5s"`: "1h0m5s", `"24h"`: "24h", `"0s"`: "0s", `"1.5s"`: "1.5s",
		`"10"`: "", `10`: "", `"1d"`: "", `"-1s"`: "", `""`: "", `"s"`: "", `["10s"]`: "", `null`: "", `true`: "", `"9999999h"`: "",
	} {
		var d time.Duration
		f := duration(&d, 0)
		p := f.set(constant(src))
		if (p == nil) != (want != "") {
			t.Errorf("%s: %v", src, p)
			continue
		}
		if p == nil && f.get().AsString() != want {
			t.Errorf("%s is written again as %s, want %s", src, f.get().AsString(), want)
		}
	}
	var d time.Duration
	if duration(&d, 1).set(constant(`"0s"`)) == nil {
		t.Error("0s is taken for a duration above 0")
	}
}

func TestSize(t *testing.T) {
	for src, want := range map[string]int64{ // 0: refused
		`"1B"`: 1, `"1KiB"`: 1 << 10, `"3 MiB"`: 3 << 20, `"10GiB"`: 10 << 30, `"7TiB"`: 7 << 40, `"8388607TiB"`: 8388607 << 40, `"9223372036854775807B"`: math.MaxInt64,
		`"0B"`: 0, `"1"`: 0, `1`: 0, `"1GB"`: 0, `"1G"`: 0, `"1.5GiB"`: 0, `"-1GiB"`: 0, `"+1GiB"`: 0, `"GiB"`: 0, `"8388608TiB"`: 0, `"9223372036854775808B"`: 0, `""`: 0,
	} {
		var n int64
		f := size(&n)
		p := f.set(constant(src))
		if (p == nil) != (want != 0) || n != want {
			t.Errorf("%s: %d, want %d: %v", src, n, want, p)
			continue
		}
		if p == nil {
			if again, p := parseSize(f.get().AsString()); p != nil || again != n {
				t.Errorf("%s is written again as %s, which is %d", src, f.get().AsString(), again)
			}
		}
	}
}

func TestAddress(t *testing.T) {
	for _, c := range []struct{ src, endpoint, hostPort string }{ // empty: refused
		{"127.0.0.1:24245", "127.0.0.1:24245", "127.0.0.1:24245"},
		{"mail1.example:1", "mail1.example:1", "mail1.example:1"},
		{"mail1.example.:1", "mail1.example.:1", "mail1.example.:1"},
		{"[::1]:65535", "[::1]:65535", "[::1]:65535"},
		{"[fe80::1%eth0]:1", "[fe80::1%eth0]:1", "[fe80::1%eth0]:1"},
		{"h:024245", "h:24245", "h:24245"},
		{":24245", ":24245", ""},
		{"h:0", "h:0", ""},
		{"unix:/run/x", "unix:/run/x", ""},
		{"unix:/run//a/../x", "unix:/run/x", ""},
		{"unix:x", "", ""},
		{"unix:", "", ""},
		{"/run/x", "", ""},
		{"h", "", ""},
		{"h:", "", ""},
		{"h:http", "", ""},
		{"h:65536", "", ""},
		{"h:-1", "", ""},
		{"::1:24245", "", ""},
		{"10.0.0:1", "", ""},
		{"10.0.0.256:1", "", ""},
		{"a b:1", "", ""},
		{"-a:1", "", ""},
		{"a..b:1", "", ""},
		{"ü:1", "", ""},
		{"tcp://h:1", "", ""},
		{"", "", ""},
	} {
		var network, address, to string
		check := func(kind string, f field, want string) {
			got := ""
			if p := f.set(value{is: c.src}); p == nil {
				got = f.get().AsString()
			} else if f.get() != cty.NilVal {
				t.Errorf("%s %q is refused and taken", kind, c.src)
			}
			if got != want {
				t.Errorf("%s %q: %q, want %q", kind, c.src, got, want)
			}
		}
		check("listener", endpoint(&network, &address), c.endpoint)
		check("backend", hostPort(&to), c.hostPort)
	}
}
