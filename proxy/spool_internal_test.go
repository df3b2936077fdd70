package proxy

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

// spooled is a spool with a client behind it and all that it takes from a
// session.
type spooled struct {
	*spool
	client net.Conn
	budget *spoolBudget
	dir    string
}

func newSpooled(t *testing.T, limits config.Limits, turn <-chan struct{}) *spooled {
	client, nc := doveadmtest.Pipe()
	t.Cleanup(func() { client.Close(); nc.Close() })
	limits.SpoolDir = t.TempDir()
	p := &Proxy{spool: &spoolBudget{}}
	p.spool.limit.Store(limits.MaxSpool)
	p.snapshot.Store(&snapshot{config: &config.Config{Limits: limits}})
	sp := newSpool(&session{proxy: p, nc: nc}, turn)
	return &spooled{sp, client, p.spool, limits.SpoolDir}
}

// disk returns the bytes that the spool has on disk.
func (s *spooled) disk(t *testing.T) int64 {
	t.Helper()
	if left, err := os.ReadDir(s.dir); err != nil || len(left) > 0 {
		t.Errorf("the spool directory has %v, %v", left, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		return 0
	}
	info, err := s.file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return min(info.Size(), info.Sys().(*syscall.Stat_t).Blocks*512)
}

// gone checks that the spool has given everything back.
func (s *spooled) gone(t *testing.T) {
	t.Helper()
	if used := s.budget.used.Load(); used != 0 {
		t.Errorf("%d bytes of the budget are left", used)
	}
	if s.file != nil {
		if _, err := s.file.Stat(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("the file is still open: %v", err)
		}
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) > 0 {
		t.Errorf("the spool directory has %v, %v", left, err)
	}
}

// TestSpoolKeepsOrder writes pieces of all sizes to clients that read with
// pauses of all lengths.
func TestSpoolKeepsOrder(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 1<<20)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for range 12 {
		seed := rand.Uint64()
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			sizes := []int{1, 10, 1000, 50_000, spoolMemory - 1, spoolMemory, spoolMemory + 1, 2 * spoolMemory}
			pauses := []time.Duration{0, 0, time.Microsecond, time.Millisecond, time.Second}
			s := newSpooled(t, config.Limits{MaxSpool: 1 << 30, WriteTimeout: time.Hour}, nil)

			var want, got bytes.Buffer
			read := make(chan error)
			readPauses := rand.New(rand.NewPCG(seed, 1))
			go func() {
				block := make([]byte, 100_000)
				for {
					n, err := s.client.Read(block[:1+readPauses.IntN(len(block))])
					got.Write(block[:n])
					if err != nil {
						read <- err
						return
					}
					time.Sleep(pauses[readPauses.IntN(len(pauses))])
				}
			}()
			for want.Len() < 2<<20 {
				at := random.IntN(len(noise) / 2)
				piece := noise[at:][:1+random.IntN(sizes[random.IntN(len(sizes))])]
				want.Write(piece)
				if err := s.write(piece); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				time.Sleep(pauses[random.IntN(len(pauses))])
				if disk, used := s.disk(t), s.budget.used.Load(); disk > used {
					t.Errorf("seed %d: %d bytes on disk, %d of the budget", seed, disk, used)
				}
			}
			if err := s.finish(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			s.session.nc.Close()
			if err := <-read; err != io.EOF {
				t.Errorf("seed %d: %v", seed, err)
			}
			if !bytes.Equal(got.Bytes(), want.Bytes()) {
				t.Errorf("seed %d: the client read %d bytes that are not the %d written", seed, got.Len(), want.Len())
			}
			s.gone(t)
		})
	}
}

// TestSpoolWaitsForItsTurn and writes nothing before.
func TestSpoolWaitsForItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turn := make(chan struct{})
		s := newSpooled(t, config.Limits{MaxSpool: 1 << 30, WriteTimeout: time.Second}, turn)
		large := bytes.Repeat([]byte("large"), spoolMemory)
		for _, p := range [][]byte{[]byte("small"), large} {
			if err := s.write(p); err != nil {
				t.Fatal(err)
			}
		}
		s.client.SetReadDeadline(time.Now().Add(time.Hour))
		if n, err := s.client.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("before its turn: %d bytes, %v", n, err)
		}
		close(turn)
		s.client.SetReadDeadline(time.Time{})
		got := make([]byte, 5+len(large))
		if _, err := io.ReadFull(s.client, got); err != nil || !bytes.Equal(got, append([]byte("small"), large...)) {
			t.Errorf("in its turn: %v", err)
		}
		if err := s.finish(); err != nil {
			t.Error(err)
		}
		s.gone(t)
	})
}

// TestSpoolEnds early, in all the ways that there are.
func TestSpoolEnds(t *testing.T) {
	large := bytes.Repeat([]byte("large"), spoolMemory)
	fill := func(t *testing.T, s *spooled) {
		t.Helper()
		for range 4 {
			if err := s.write(large); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
	}
	for name, test := range map[string]func(t *testing.T){
		"abandoned": func(t *testing.T) {
			s := newSpooled(t, config.Limits{MaxSpool: 1 << 30, WriteTimeout: time.Hour}, nil)
			fill(t, s)
			begin := time.Now()
			s.abandon()
			if took := time.Since(begin); took != 0 {
				t.Errorf("took %v", took)
			}
			s.gone(t)
		},
		"abandoned before its turn": func(t *testing.T) {
			s := newSpooled(t, config.Limits{MaxSpool: 1 << 30, WriteTimeout: time.Hour}, make(chan struct{}))
			fill(t, s)
			s.abandon()
			s.gone(t)
		},
		"client gone": func(t *testing.T) {
			s := newSpooled(t, config.Limits{MaxSpool: 1 << 30, WriteTimeout: time.Hour}, nil)
			fill(t, s)
			s.client.Close()
			synctest.Wait()
			if err := s.write(large); !errors.Is(err, syscall.EPIPE) {
				t.Errorf("write: %v", err)
			}
			if err := s.finish(); !errors.Is(err, syscall.EPIPE) {
				t.Errorf("finish: %v", err)
			}
			s.gone(t)
		},
		"write_timeout": func(t *testing.T) {
			s := newSpooled(t, config.Limits{MaxSpool: 1 << 30, WriteTimeout: time.Minute}, nil)
			fill(t, s)
			begin := time.Now()
			// As long as it takes something, it is not given up.
			for range 10 {
				time.Sleep(59 * time.Second)
				if _, err := io.ReadFull(s.client, make([]byte, writePiece)); err != nil {
					t.Fatal(err)
				}
			}
			err := s.finish()
			if err == nil || !strings.Contains(err.Error(), "limits.write_timeout") || time.Since(begin) != 10*59*time.Second+time.Minute {
				t.Errorf("%v after %v", err, time.Since(begin))
			}
			s.gone(t)
		},
		"max_spool": func(t *testing.T) {
			s := newSpooled(t, config.Limits{MaxSpool: int64(3 * len(large)), WriteTimeout: time.Hour}, nil)
			for range 3 {
				if err := s.write(large); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				if err := s.write([]byte("x")); err != errSpoolFull {
					t.Errorf("got %v, want %v", err, errSpoolFull)
				}
			}
			s.abandon()
			s.gone(t)
		},
		"session ended": func(t *testing.T) {
			turn := make(chan struct{})
			s := newSpooled(t, config.Limits{MaxSpool: 1 << 30, WriteTimeout: time.Hour}, turn)
			fill(t, s)
			s.session.broken.Store(true)
			close(turn)
			if err := s.finish(); err != errSessionOver {
				t.Errorf("got %v, want %v", err, errSessionOver)
			}
			s.session.nc.Close()
			if got, err := io.ReadAll(s.client); err != nil || len(got) > 0 {
				t.Errorf("the client got %d bytes, %v", len(got), err)
			}
			s.gone(t)
		},
		"no directory": func(t *testing.T) {
			s := newSpooled(t, config.Limits{MaxSpool: 1 << 30, WriteTimeout: time.Hour}, nil)
			if err := os.Remove(s.dir); err != nil {
				t.Fatal(err)
			}
			if err := s.write(large); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "limits.spool_dir: ") {
				t.Errorf("got %v", err)
			}
			s.abandon()
			if err := os.Mkdir(s.dir, 0o700); err != nil {
				t.Fatal(err)
			}
			s.gone(t)
		},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
	}
}
