package fault_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/doveadm-proxy/doveadm-proxy/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// talk returns both ends of a connection through a Link.
func talk(t *testing.T, f fault.Fault) (link *fault.Link, client, server *net.TCPConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	link, err = fault.Listen("127.0.0.1:0", listener.Addr().String(), 1)
	if err != nil {
		t.Fatal(err)
	}
	link.Set(f)
	nc, err := net.Dial("tcp", link.Addr)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	client, server = nc.(*net.TCPConn), accepted.(*net.TCPConn)
	deadline := time.Now().Add(time.Minute)
	client.SetDeadline(deadline)
	server.SetDeadline(deadline)
	t.Cleanup(func() {
		client.Close()
		server.Close()
		link.Close()
	})
	return link, client, server
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// receive reads as much as want is, which must be that.
func receive(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("received %q, %v; want %q", got[:n], err, want)
	}
}

func TestFaithful(t *testing.T) {
	link, client, server := talk(t, fault.Fault{})
	text := strings.Repeat("0123456789", 100_000)
	var wg sync.WaitGroup
	wg.Go(func() { send(t, client, text) })
	wg.Go(func() { send(t, server, text) })
	wg.Go(func() { receive(t, client, text) })
	receive(t, server, text)
	wg.Wait()
	// A half-closed connection stays one.
	client.CloseWrite()
	if _, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	send(t, server, "later")
	receive(t, client, "later")
	if n := link.Len(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestDelayAndDrip(t *testing.T) {
	const delay = 20 * time.Millisecond
	_, client, server := talk(t, fault.Fault{Direction: fault.ToClient, Delay: delay, Drip: 2})
	start := time.Now()
	send(t, client, "fast")
	receive(t, server, "fast")
	send(t, server, "slowly")
	receive(t, client, "slowly")
	if took := time.Since(start); took < 3*delay {
		t.Errorf("three pieces took %s", took)
	}
}

func TestEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  fault.End
		want error
	}{
		{"cut", fault.Cut, io.EOF},
		{"reset", fault.Reset, syscall.ECONNRESET},
	} {
		t.Run(tt.name, func(t *testing.T) {
			link, client, server := talk(t, fault.Fault{Direction: fault.ToClient, End: tt.end, After: 3})
			send(t, server, "abc")
			receive(t, client, "abc")
			send(t, server, "def")
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, tt.want) {
				t.Errorf("the client sees %v", err)
			}
			if _, err := server.Read(make([]byte, 1)); !errors.Is(err, tt.want) {
				t.Errorf("the server sees %v", err)
			}
			for link.Len() > 0 {
				time.Sleep(time.Millisecond)
			}
		})
	}
}

func TestSilence(t *testing.T) {
	link, client, server := talk(t, fault.Fault{End: fault.Silence})
	send(t, client, "held back")
	server.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if n, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d, %v", n, err)
	}
	server.SetReadDeadline(time.Now().Add(time.Minute))
	link.Set(fault.Fault{})
	receive(t, server, "held back")
}

func TestHalfClose(t *testing.T) {
	_, client, server := talk(t, fault.Fault{Direction: fault.ToServer, End: fault.HalfClose, After: 2})
	send(t, client, "abc")
	receive(t, server, "ab")
	if _, err := server.Read(make([]byte, 1)); err != io.EOF {
		t.Fatal(err)
	}
	send(t, server, "goes on")
	receive(t, client, "goes on")
}

func TestCorruption(t *testing.T) {
	_, client, server := talk(t, fault.Fault{Direction: fault.ToClient, Corrupt: fault.Status})
	const reply = "a+b\t\n+\n-\n+"
	send(t, client, reply)
	receive(t, server, reply)
	// Also where a piece ends before it.
	send(t, server, reply[:5])
	receive(t, client, "a+b\t\n")
	send(t, server, reply[5:])
	receive(t, client, "*\n-\n*")
}

func TestBits(t *testing.T) {
	_, client, server := talk(t, fault.Fault{Direction: fault.ToClient, Corrupt: fault.Bits})
	sent := bytes.Repeat([]byte("-+\n"), 100_000)
	go server.Write(sent)
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(client, got); err != nil {
		t.Fatal(err)
	}
	hit := 0
	for i := range got {
		switch got[i] {
		case sent[i]:
		case sent[i] ^ 0x80:
			hit++
		default:
			t.Fatalf("byte %d is %q", i, got[i])
		}
	}
	if hit < 100 || hit > 1000 {
		t.Errorf("%d of %d bytes", hit, len(sent))
	}
}

// TestRefused: a target that is not there looks like a connection that broke.
func TestRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := listener.Addr().String()
	listener.Close()
	link, err := fault.Listen("127.0.0.1:0", target, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	client, err := net.Dial("tcp", link.Addr)
	if errors.Is(err, syscall.ECONNRESET) {
		return // so fast
	}
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.SetDeadline(time.Now().Add(time.Minute))
	if n, err := client.Read(make([]byte, 1)); n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d, %v", n, err)
	}
}

// TestClose: nothing is left, whatever hangs.
func TestClose(t *testing.T) {
	link, client, server := talk(t, fault.Fault{End: fault.Silence})
	send(t, client, "never arrives")
	if err := link.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := server.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestDrop(t *testing.T) {
	link, client, server := talk(t, fault.Fault{})
	send(t, client, "x")
	receive(t, server, "x")
	link.Drop()
	for _, c := range []net.Conn{client, server} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	}
}
