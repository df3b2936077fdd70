package acceptance

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// TestBadInput: each piece of bad input ends with a closed connection and a
// log line that names the peer and the reason, and disturbs nothing else.
func TestBadInput(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, 1, dovecot.Options{})
	p := startProxy(t, plain, func(addr string) string {
		return c.config(addr, "", "limits {\n handshake_timeout = \"3s\"\n}")
	})
	const version = "VERSION\tdoveadm-server\t1\t2\n"
	plainLogin := func(text string) string {
		return version + "PLAIN\t" + base64.StdEncoding.EncodeToString([]byte(text)) + "\n"
	}
	login := plainLogin("\x00doveadm\x00" + clientPassword)
	greeting := "VERSION\tdoveadm-client\t1\t4\n-\n"
	wide := strings.Repeat("x", 1<<20+1)

	for _, tt := range []struct {
		name, send string
		answer     string // that the client reads before the end
		logged     string
	}{
		{"not a greeting", "HELLO\n", "", "not a doveadm client"},
		{"another service", "VERSION\tauth\t1\t2\n", "", "not a doveadm client"},
		{"another major", "VERSION\tdoveadm-server\t2\t0\n", "", "not a doveadm client"},
		{"binary", "\x00\xff\x01\x02\n", "", "not a doveadm client"},
		{"HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "", "not a doveadm client"},
		{"greeting too long", "VERSION\t" + wide[:9000], "", "handshake line longer than"},
		{"command before login", version + "\tu1-1\tquota get\n", greeting + "-\n", "login by another mechanism"},
		{"bad base64", version + "PLAIN\t$$$$\n", greeting + "-\n", "not valid base64"},
		{"STARTTLS", version + "STARTTLS\n", greeting + "-\n", "STARTTLS where it is not offered"},
		{"login in two parts", plainLogin("doveadm\x00" + clientPassword), greeting + "-\n", "not of the form"},
		{"authorization id", plainLogin("x\x00doveadm\x00" + clientPassword), greeting + "-\n", "authorization id"},
		{"wrong password", plainLogin("\x00doveadm\x00wrong"), greeting + "-\n", "wrong name or password"},
		{"wrong name", plainLogin("\x00root\x00" + clientPassword), greeting + "-\n", "wrong name or password"},
		{"empty password", plainLogin("\x00doveadm\x00"), greeting + "-\n", "wrong name or password"},
		{"name to forge a log line", plainLogin("\x00a\n2026-01-01 [INFO] forged\x00p"), greeting + "-\n", `client="\"a\n2026`},
		{"empty line", login + "\n", greeting + "+\n" + logPacket("doveadm-proxy: doveadm client: No command given"), "No command given"},
		{"two fields", login + "\tu1-1\n", greeting + "+\n" + logPacket("doveadm-proxy: doveadm client: No command given"), "No command given"},
		{"unknown flag", login + "Q\tu1-1\tquota get\n", greeting + "+\n" + logPacket("doveadm-proxy: doveadm client: Unknown flag: Q"), "Unknown flag: Q"},
		{"NUL", login + "\tu1-1\tquota\x00get\n", greeting + "+\n" + logPacket("doveadm-proxy: doveadm client: NUL byte in command"), "NUL byte"},
		{"escaped NUL", login + "\tu1-1\tquota get\t\x010\n", greeting + "+\n" + logPacket("doveadm-proxy: doveadm client: NUL byte in command"), "NUL byte"},
		{"line too long", login + "\tu1-1\tquota get\t" + wide, greeting + "+\n" + logPacket("doveadm-proxy: doveadm client: command line is longer than 1048576 bytes"), "longer than 1048576"},
		{"half a command", login + "\tu1-1\tquo", greeting + "+\n", ""},
		{"broken escapes", login + "\tnobody\x01\tmailbox list\t\x01", greeting + "+\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nc, err := net.Dial("tcp", p.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			nc.SetDeadline(time.Now().Add(20 * time.Second))
			go func() {
				io.WriteString(nc, tt.send)
				nc.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(nc)
			if string(got) != tt.answer || err != nil {
				t.Errorf("read %q (%v), want %q", got, err, tt.answer)
			}
			if tt.logged != "" {
				waitLine(t, p, nc.LocalAddr().String(), tt.logged)
			}
		})
	}

	t.Run("TLS to a plain port", func(t *testing.T) {
		nc, err := net.Dial("tcp", p.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(20 * time.Second))
		if err := tls.Client(nc, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil {
			t.Error("the handshake succeeded")
		}
		waitLine(t, p, nc.LocalAddr().String(), "TLS handshake on a listener without TLS")
	})

	t.Run("a thousand that say nothing", func(t *testing.T) {
		before := peakMemory(t, p)
		var silent []net.Conn
		for range 1000 {
			nc, err := net.Dial("tcp", p.Addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			silent = append(silent, nc)
		}
		if err := mustBeQuota(loginOnce(t.Context(), p.Addr, "u1-1", "quota get")); err != nil {
			t.Errorf("a command beside them: %v", err)
		}
		for _, nc := range silent {
			nc.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Fatalf("read from the proxy: %v", err)
			}
		}
		waitLine(t, p, silent[999].LocalAddr().String(), "not logged in within handshake_timeout")
		after := peakMemory(t, p)
		t.Logf("resident at most before %d MiB, after %d MiB", before, after)
		if after > before+40 {
			t.Errorf("memory went from %d to %d MiB", before, after)
		}
	})

	if err := mustBeQuota(loginOnce(t.Context(), p.Addr, "u1-1", "quota get")); err != nil {
		t.Errorf("a command after all that: %v", err)
	}
	// No secret has been logged.
	for _, secret := range []string{clientPassword, c.servers[0].Password, base64.StdEncoding.EncodeToString([]byte(clientPassword))} {
		if strings.Contains(p.Log(), secret) {
			t.Errorf("the log has the secret %q", secret)
		}
	}
}

// logPacket is an error line of the log channel.
func logPacket(text string) string {
	text = "\x04" + text + "\n"
	return "L\x00\x00\x00" + string([]byte{byte(len(text))}) + text
}

// waitLine waits until the log has one line with both texts.
func waitLine(t *testing.T, p *proxyProcess, peer, text string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for line := range strings.Lines(p.Log()) {
			if strings.Contains(line, peer) && strings.Contains(line, text) {
				return
			}
		}
	}
	t.Errorf("no line of the log has %q and %q", peer, text)
}
