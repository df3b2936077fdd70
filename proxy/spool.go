package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// errSpoolFull ends a reply that a slow client lets grow over the limit.
var errSpoolFull = errors.New("the client reads too slowly: limits.max_spool is reached")

// spoolMemory is how much of a reply waits in memory before the rest goes to
// a file.
const spoolMemory = 256 << 10

// spoolBudget bounds the bytes in the files of all spools together.
type spoolBudget struct {
	limit atomic.Int64
	used  atomic.Int64
}

func (b *spoolBudget) take(n int64) bool {
	if b.used.Add(n) <= b.limit.Load() {
		return true
	}
	b.used.Add(-n)
	return false
}

// spool holds what a client has not read yet, in memory and then in an
// unlinked file, and writes it to the client from a goroutine of its own. The
// session that made it calls write, then finish or abandon.
type spool struct {
	nc           net.Conn
	writeTimeout time.Duration
	dir          string
	budget       *spoolBudget
	done         chan struct{} // the goroutine has ended

	// mu guards what follows. The file is read and written without it: by
	// write behind end, by the goroutine before it.
	mu       sync.Mutex
	changed  sync.Cond
	memory   []byte   // comes before what is in the file
	file     *os.File // nil until memory is full
	begin    int64    // of the unread part of the file
	end      int64    // of the written part
	finished bool     // nothing more is written
	err      error
}

func newSpool(s *session) *spool {
	limits := s.proxy.snapshot.Load().config.Limits
	sp := &spool{
		nc:           s.nc,
		writeTimeout: limits.WriteTimeout,
		dir:          limits.SpoolDir,
		budget:       s.proxy.spool,
		done:         make(chan struct{}),
	}
	sp.changed.L = &sp.mu
	go sp.drain() // joined by finish and abandon
	return sp
}

// write takes p without waiting for the client.
func (s *spool) write(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if s.begin == s.end && len(s.memory)+len(p) <= spoolMemory {
		s.memory = append(s.memory, p...)
		s.changed.Signal()
		return nil
	}
	if !s.budget.take(int64(len(p))) {
		return errSpoolFull
	}
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "doveadm-proxy-")
		if err != nil {
			s.budget.used.Add(-int64(len(p)))
			return fmt.Errorf("limits.spool_dir: %w", err)
		}
		os.Remove(f.Name())
		s.file = f
	}
	if s.begin == s.end {
		// All read: begin anew, so that the file does not grow for ever.
		s.begin, s.end = 0, 0
	}
	at := s.end
	s.mu.Unlock()
	_, err := s.file.WriteAt(p, at)
	s.mu.Lock()
	s.end += int64(len(p))
	if err != nil {
		return fmt.Errorf("limits.spool_dir: %w", err)
	}
	s.changed.Signal()
	return nil
}

// finish returns when the client's socket has everything.
func (s *spool) finish() error {
	s.mu.Lock()
	s.finished = true
	s.changed.Signal()
	s.mu.Unlock()
	<-s.done
	s.release()
	return s.err
}

// abandon drops what the client has not read. The session closes the
// connection after it, so the client sees no reply that only seems whole.
func (s *spool) abandon() {
	s.nc.SetWriteDeadline(time.Unix(1, 0))
	s.mu.Lock()
	s.finished = true
	if s.err == nil {
		s.err = errAbandoned
	}
	s.changed.Signal()
	s.mu.Unlock()
	<-s.done
	s.release()
}

var errAbandoned = errors.New("reply abandoned")

// release gives disk and budget back.
func (s *spool) release() {
	s.budget.used.Add(-(s.end - s.begin))
	if s.file != nil {
		s.file.Close()
	}
}

// drain writes to the client until everything is written or the client fails.
func (s *spool) drain() {
	defer close(s.done)
	var block []byte
	for {
		p, err := s.next(&block)
		if p == nil {
			if err != nil {
				s.fail(err)
			}
			return
		}
		s.nc.SetWriteDeadline(time.Now().Add(s.writeTimeout))
		if _, err := s.nc.Write(p); err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *spool) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
}

// next waits for bytes and takes them: the memory's, then the file's. It
// returns nil at the end.
func (s *spool) next(block *[]byte) ([]byte, error) {
	s.mu.Lock()
	for s.err == nil && len(s.memory) == 0 && s.begin == s.end && !s.finished {
		s.changed.Wait()
	}
	if s.err != nil {
		s.mu.Unlock()
		return nil, nil
	}
	if len(s.memory) > 0 {
		p := s.memory
		s.memory = nil
		s.mu.Unlock()
		return p, nil
	}
	begin, n := s.begin, min(s.end-s.begin, spoolMemory)
	s.mu.Unlock()
	if n == 0 {
		return nil, nil
	}
	if *block == nil {
		*block = make([]byte, spoolMemory)
	}
	p := (*block)[:n]
	if _, err := s.file.ReadAt(p, begin); err != nil && err != io.EOF {
		return nil, fmt.Errorf("limits.spool_dir: %w", err)
	}
	s.mu.Lock()
	s.begin += n
	s.budget.used.Add(-n)
	s.mu.Unlock()
	return p, nil
}
