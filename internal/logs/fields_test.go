package logs

import (
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// FuzzLog: what Log writes by itself are the bytes of hclog.
func FuzzLog(f *testing.F) {
	for _, text := range []string{"", "alice@example.org", "quota get", "a\"b", "tab\tbell\a", "two\nlines", "umlaut ä", "\x00\x1b[31m", "\x7f", "\xff\xfe", "\u200b", "\U0001f4e7", "\U000e0001", "-", ",", "~", " "} {
		f.Add(text, text, int64(len(text)), int64(1234567))
	}
	f.Fuzz(func(t *testing.T, a, b string, number, duration int64) {
		fields := []Field{Text("user", a), Text("command", b), Number("bytes", number), Millis("wait_ms", time.Duration(duration)), True("retried")}
		var args []any
		for i := range fields {
			args = append(args, fields[i].key, fields[i].value())
		}
		for _, o := range []Options{{Level: hclog.Info}, {Level: hclog.Info, Journal: true}, {Level: hclog.Info, JSON: true}, {Level: hclog.Warn}} {
			_, log, out := newLog(o)
			log.Log(hclog.Info, CommandMessage, args...)
			want := out.take()
			Log(log, hclog.Info, CommandMessage, fields...)
			if got := out.take(); got != want {
				t.Errorf("%q\nand not\n%q", got, want)
			}
		}
	})
}

// TestLogOrdinary: lines that Log does not write by itself are not lost.
func TestLogOrdinary(t *testing.T) {
	_, log, out := newLog(Options{Level: hclog.Info})
	Log(log, hclog.Debug, CommandMessage, Text("user", "alice"))
	if got := out.take(); got != "" {
		t.Errorf("a debug line at level info: %q", got)
	}
	Log(log.With("session", 7), hclog.Info, CommandMessage, Text("user", "alice"), Millis("wait_ms", 1500*time.Microsecond))
	if got := out.take(); got != "[INFO]  doveadm-proxy: command: session=7 user=alice wait_ms=1.500\n" {
		t.Errorf("with implied fields: %q", got)
	}
	Log(log, hclog.Error, CommandMessage, Text("outcome", "lost"), Number("bytes", 12))
	if got := out.take(); got != "[ERROR] doveadm-proxy: command: outcome=lost bytes=12\n" {
		t.Errorf("an error: %q", got)
	}
	var text strings.Builder
	Log(hclog.New(&hclog.LoggerOptions{Output: &text, DisableTime: true}), hclog.Info, CommandMessage, True("retried"))
	if text.String() != "[INFO]  command: retried=true\n" {
		t.Errorf("another logger: %q", &text)
	}
	_, log, out = newLog(Options{Level: hclog.Info, JSON: true})
	Log(log, hclog.Info, CommandMessage, Text("user", "alice"), Number("bytes", 3))
	if got := out.take(); !strings.Contains(got, `"bytes":3`) || !strings.Contains(got, `"user":"alice"`) {
		t.Errorf("JSON: %q", got)
	}
}

// TestLogTime: the time stands where hclog has it, in its form.
func TestLogTime(t *testing.T) {
	digits := regexp.MustCompile("[0-9]+")
	for _, json := range []bool{false, true} {
		out := new(output)
		log := New(Options{Name: "doveadm-proxy", Level: hclog.Info, Output: out, JSON: json}).Logger()
		log.Info(CommandMessage, "user", "alice")
		want := out.take()
		Log(log, hclog.Info, CommandMessage, Text("user", "alice"))
		if got := out.take(); digits.ReplaceAllString(got, "0") != digits.ReplaceAllString(want, "0") {
			t.Errorf("%q\nand not\n%q", got, want)
		}
	}
}

// logCommand writes a line like those of commands.
func logCommand(log hclog.Logger) {
	Log(log, hclog.Info, CommandMessage,
		Text("peer", "192.0.2.7:51234"), Number("session", 42), Text("client", "panel"), Text("user", "alice@example.org"),
		Text("command", "quota get"), Text("outcome", "answered"), Text("status", "+"), Text("shard", "s1"), Text("backend", "mail1"),
		Millis("wait_ms", 12*time.Microsecond), Millis("duration_ms", 1834*time.Microsecond), Number("bytes", 57))
}

func TestLogAllocations(t *testing.T) {
	for _, json := range []bool{false, true} {
		log := New(Options{Name: "doveadm-proxy", Level: hclog.Info, Output: io.Discard, JSON: json}).Logger()
		if n := testing.AllocsPerRun(1000, func() { logCommand(log) }); n >= 1 && !underRace {
			t.Errorf("JSON %v: %v allocations for a line", json, n)
		}
	}
}

// BenchmarkLine is the line of a command.
func BenchmarkLine(b *testing.B) {
	for name, o := range map[string]Options{
		"text": {Level: hclog.Info}, "json": {Level: hclog.Info, JSON: true}, "off": {Level: hclog.Warn},
	} {
		b.Run(name, func(b *testing.B) {
			o.Name, o.Output = "doveadm-proxy", io.Discard
			log := New(o).Logger()
			b.ReportAllocs()
			for b.Loop() {
				logCommand(log)
			}
		})
	}
}
