package doveadm

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// announcing makes a client's VERSION line announce another minor version. The
// doveadm command of 2.4 announces 3 and reads STREAM as well as PACKET.
type announcing struct {
	net.Conn
	minor Minor
	drip  bool // each byte is sent by itself
}

func (a announcing) Read(p []byte) (int, error) {
	n, err := a.Conn.Read(p)
	version := appendVersion(nil, serviceWantedByClient, a.minor)
	if line := p[:n]; bytes.HasPrefix(line, versionPrefix) {
		copy(line, version)
	}
	return n, err
}

func (a announcing) Write(p []byte) (int, error) {
	if !a.drip {
		return a.Conn.Write(p)
	}
	for i := range p {
		if _, err := a.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// The real doveadm command of 2.4 prints what it gets in STREAM as it prints
// the same in PACKET.
func TestDoveadmReadsStream(t *testing.T) {
	const odd = "\x03\xfe\x00L\x03\xfe\x01 \x03\x03\xfe\x03\xff\xff\xff\xff\xff"
	mail := "Subject: " + odd + "\x03\n\n" + strings.Repeat("\x03\xfeline\n", 2000) + odd
	text := AppendEscaped(nil, mail)
	tests := []struct {
		name   string
		args   []string
		reply  func(s *ServerConn) [][]byte // what is written, one after the other
		stdout string
		stderr string
		code   int
	}{
		{
			name: "quota get",
			args: []string{"-u", "ann"},
			reply: func(s *ServerConn) [][]byte {
				out := s.AppendReply(nil, []byte("User quota\tSTORAGE\t1\t1024\t0\t"))
				out = s.AppendLog(out, LogWarning, "between two rows")
				out = s.AppendLog(out, LogInfo, "03 ends this: \xff\x03")
				out = s.AppendReply(out, []byte("\x03\xfe quota\x03\tMESSAGE\t6\t-\t0\t"))
				return [][]byte{s.AppendEnd(out, Status{OK: true})}
			},
			stdout: "Quota name=User quota Type=STORAGE Value=1 Limit=1024 %=0\nQuota name=\x03\xfe quota\x03 Type=MESSAGE Value=6 Limit=- %=0\n",
			stderr: "doveadm(ann): Warning: remote(ADDR): between two rows\ndoveadm(ann): Info: remote(ADDR): 03 ends this: \xff \n",
		},
		{
			name: "fetch",
			args: []string{"-u", "ann", "text", "all"},
			reply: func(s *ServerConn) (out [][]byte) {
				// Cut behind every byte of the odd ones.
				for i := range 100 {
					out = append(out, s.AppendReply(nil, text[i:i+1]))
				}
				out = append(out, s.AppendLog(nil, LogError, "inside of a field"))
				end := s.AppendReply(nil, append(text[100:len(text):len(text)], '\t'))
				return append(out, s.AppendEnd(end, Failure(CodeNotFound)))
			},
			stdout: "text=" + mail + "\n",
			stderr: "doveadm(ann): Error: remote(ADDR): inside of a field\n",
			code:   68,
		},
	}
	for _, tc := range tests {
		for _, minor := range []Minor{MinorExtraFields, MinorStream} {
			for _, drip := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, minor %d, drip %v", tc.name, minor, drip), func(t *testing.T) {
					listener, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						t.Fatal(err)
					}
					served := make(chan error, 1)
					go func() {
						served <- func() error {
							nc, err := listener.Accept()
							if err != nil {
								return err
							}
							defer nc.Close()
							s := NewServerConn(announcing{nc, minor, drip}, 0)
							if err := s.Handshake(isSecret); err != nil {
								return err
							}
							if s.ClientMinor() != minor {
								return fmt.Errorf("the command announced %d", s.ClientMinor())
							}
							if err := s.ReadCommand(new(Command)); err != nil {
								return err
							}
							for _, p := range tc.reply(s) {
								if _, err := s.NetConn().Write(p); err != nil {
									return err
								}
							}
							if err := s.ReadCommand(new(Command)); err != io.EOF {
								return fmt.Errorf("behind the command: %v", err)
							}
							return nil
						}()
					}()
					addr := listener.Addr().String()
					c := dovecot.Client{Version: dovecot.V24, Addr: addr, Password: "secret", Options: []string{"-v", "-f", "flow"}}
					got := dovecottest.Run(t, c, tc.name, tc.args...)
					listener.Close()
					if err := <-served; err != nil {
						t.Error(err)
					}
					got.Stderr = strings.ReplaceAll(got.Stderr, addr, "ADDR")
					want := dovecot.Result{Stdout: tc.stdout, Stderr: tc.stderr, ExitCode: tc.code, Time: got.Time}
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("(-want +got):\n%.3000s", diff)
					}
				})
			}
		}
	}
}
