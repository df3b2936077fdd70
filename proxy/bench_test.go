package proxy_test

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/logs"
	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

// packet0 is a packet of a backend below version 1.4.
func packet0(data string) []byte {
	return doveadm.AppendPacket(nil, doveadm.ChannelReply, []byte(data))
}

func packetL(data string) []byte {
	return doveadm.AppendPacket(nil, doveadm.ChannelLog, []byte(data))
}

// benchmarked is a proxy with the log of the default level, thrown away, before
// a backend that answers at once. Neither it nor the client allocates.
func benchmarked(b testing.TB, output string) (s *site, replyLen int) {
	reply := packet0(output + "\n+\n")
	option := []byte("\t\tOPTION\tlog-passthrough")
	srv := newLineBackend(b, doveadm.MinorExtraFields, func(c *lineConn, line []byte) {
		if string(line) != string(option) {
			c.Write(reply)
		}
	})
	cfg := configure(b, func(c *config.Config) { first(c).Pool.MaxCommands = 0 }, srv.Addr().String())
	log := logs.New(logs.Options{Output: io.Discard, Level: hclog.Info})
	b.Cleanup(log.Close)
	p, err := proxy.New(cfg, proxy.Options{Log: log.Logger()})
	must(b, err)
	b.Cleanup(func() { p.Shutdown(b.Context()) })
	p.Serve()
	return &site{Proxy: p, cfg: cfg}, len(reply)
}

// command runs one command.
func (c *client) command(b testing.TB, line, reply []byte) {
	c.nc.SetDeadline(time.Now().Add(patience))
	if _, err := c.nc.Write(line); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(c.nc, reply); err != nil {
		b.Fatal(err)
	}
}

const quota = "User quota\tSTORAGE\t1\t1024\t0\tUser quota\tMESSAGE\t6\t-\t0\t"

// BenchmarkCommand is one command after the other over one session.
func BenchmarkCommand(b *testing.B) {
	for name, line := range map[string]string{
		"1.3": "x\tproxy-ttl=5\talice\tquota get\t-u\talice\n",
		"1.2": "\talice\tquota get\t-u\talice\n",
	} {
		b.Run(name, func(b *testing.B) {
			s, n := benchmarked(b, quota)
			c := s.login(b, client13)
			line, reply := []byte(line), make([]byte, n)
			c.command(b, line, reply)
			b.ReportAllocs()
			for b.Loop() {
				c.command(b, line, reply)
			}
		})
	}
}

// BenchmarkSessions is one command after the other over each of several
// sessions.
func BenchmarkSessions(b *testing.B) {
	s, n := benchmarked(b, quota)
	line := []byte("\talice\tquota get\t-u\talice\n")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		c := s.login(b, client13)
		reply := make([]byte, n)
		for pb.Next() {
			c.command(b, line, reply)
		}
	})
}

// BenchmarkAhead sends 100 commands for 100 users ahead.
func BenchmarkAhead(b *testing.B) {
	const commands = 100
	s, n := benchmarked(b, quota)
	var lines []byte
	for i := range commands {
		lines = fmt.Appendf(lines, "\tu%d@s1\tquota get\n", i)
	}
	c := s.login(b, client13)
	replies := make([]byte, commands*n)
	b.ReportAllocs()
	for b.Loop() {
		c.command(b, lines, replies)
	}
	b.ReportMetric(float64(commands*b.N)/b.Elapsed().Seconds(), "commands/s")
}

// BenchmarkConnect is a session for each command.
func BenchmarkConnect(b *testing.B) {
	s, n := benchmarked(b, quota)
	line, reply := []byte("\talice\tquota get\t-u\talice\n"), make([]byte, n)
	b.ReportAllocs()
	for b.Loop() {
		c := s.login(b, client13)
		c.command(b, line, reply)
		c.nc.Close()
	}
}

// BenchmarkReply is a reply of 64 MiB.
func BenchmarkReply(b *testing.B) {
	row := make([]byte, 8<<10)
	for i := range row {
		row[i] = 'x'
	}
	packet := packet0("1\t" + string(row) + "\t")
	const rows = 8 << 10
	srv := newLineBackend(b, doveadm.MinorExtraFields, func(c *lineConn, line []byte) {
		if string(line) == "\t\tOPTION\tlog-passthrough" {
			return
		}
		for range rows {
			c.Write(packet)
		}
		c.Write(plus)
	})
	cfg := configure(b, nil, srv.Addr().String())
	p, err := proxy.New(cfg, proxy.Options{Log: hclog.NewNullLogger()})
	must(b, err)
	b.Cleanup(func() { p.Shutdown(b.Context()) })
	p.Serve()
	s := &site{Proxy: p, cfg: cfg}
	c := s.login(b, client13)
	line, reply := []byte("\talice\tfetch\tuid text\tall\n"), make([]byte, 64<<10)
	b.SetBytes(int64(rows * len(packet)))
	b.ReportAllocs()
	for b.Loop() {
		c.nc.SetDeadline(time.Now().Add(patience))
		_, err := c.nc.Write(line)
		must(b, err)
		for left := rows*len(packet) + len(plus); left > 0; {
			n, err := c.nc.Read(reply)
			must(b, err)
			left -= n
		}
	}
}
