package proxy

import (
	"errors"
	"fmt"
	"io"
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

// spoolBudget bounds what all spools have together.
type spoolBudget struct {
	limit       atomic.Int64 // bytes in files
	used        atomic.Int64
	memoryLimit atomic.Int64 // bytes in memory
	memory      atomic.Int64
	files       atomic.Int64 // that are open
}

func (b *spoolBudget) configure(limit, memoryLimit int64) {
	b.limit.Store(limit)
	b.memoryLimit.Store(memoryLimit)
}

// takeMemory reports whether n bytes more may be in memory. The rest goes to
// files.
func (b *spoolBudget) takeMemory(n int64) bool {
	if b.memory.Add(n) <= b.memoryLimit.Load() {
		return true
	}
	b.memory.Add(-n)
	return false
}

func (b *spoolBudget) open(dir string) (*os.File, error) {
	f, err := unlinkedFile(dir)
	if err == nil {
		b.files.Add(1)
	}
	return f, err
}

// close closes a file of open; nil is fine.
func (b *spoolBudget) close(f *os.File) {
	if f != nil {
		b.files.Add(-1)
		f.Close()
	}
}

func (b *spoolBudget) take(n int64) bool {
	if b.used.Add(n) <= b.limit.Load() {
		return true
	}
	b.used.Add(-n)
	return false
}

// unlinkedFile returns a new file without a name: it is gone when it is
// closed, or when the process ends.
func unlinkedFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "doveadm-proxy-")
	if err != nil {
		return nil, fmt.Errorf("limits.spool_dir: %w", err)
	}
	os.Remove(f.Name())
	return f, nil
}

// spool holds what a client has not read yet of a reply, in memory and then in
// an unlinked file, and writes it to the client from a goroutine of its own,
// once it is its turn. The task that made it calls write, then finish or
// abandon.
type spool struct {
	session      *session
	turn         <-chan struct{} // nil: at once
	writeTimeout time.Duration
	dir          string
	budget       *spoolBudget
	done         chan struct{} // the goroutine has ended

	// mu guards what follows. The file is read and written without it: by
	// write behind end, by the goroutine before it.
	mu       sync.Mutex
	changed  sync.Cond
	given    chan struct{} // closed by abandon, for a spool whose turn never comes
	memory   []byte        // comes before what is in the file
	held     int           // bytes of memory that count: these, and those that are being sent
	file     *os.File      // nil until memory is full
	begin    int64         // of the unread part of the file
	end      int64         // of the written part, and what it takes of the budget
	finished bool          // nothing more is written
	writing  bool          // the goroutine writes to the client
	err      error
}

func newSpool(s *session, turn <-chan struct{}) *spool {
	limits := s.proxy.snapshot.Load().config.Limits
	sp := &spool{
		session:      s,
		turn:         turn,
		given:        make(chan struct{}),
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
	if s.begin == s.end && len(s.memory)+len(p) <= spoolMemory && s.budget.takeMemory(int64(len(p))) {
		s.memory = append(s.memory, p...)
		s.held += len(p)
		s.changed.Signal()
		return nil
	}
	if !s.budget.take(int64(len(p))) {
		return errSpoolFull
	}
	if s.file == nil {
		f, err := s.budget.open(s.dir)
		if err != nil {
			s.budget.used.Add(-int64(len(p)))
			return err
		}
		s.file = f
	}
	if s.end > 0 && s.begin == s.end {
		// All read: begin anew, so that the file does not grow for ever.
		if err := s.file.Truncate(0); err != nil {
			s.budget.used.Add(-int64(len(p)))
			return fmt.Errorf("limits.spool_dir: %w", err)
		}
		s.budget.used.Add(-s.end)
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
	s.mu.Lock()
	s.finished = true
	if s.err == nil {
		s.err = errAbandoned
	}
	s.changed.Signal()
	if s.writing {
		s.session.nc.SetWriteDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	close(s.given)
	<-s.done
	s.release()
}

var errAbandoned = errors.New("reply abandoned")

// release gives disk and budget back.
func (s *spool) release() {
	s.budget.used.Add(-s.end)
	s.budget.memory.Add(-int64(s.held))
	s.budget.close(s.file)
}

// drain writes to the client until everything is written or the client fails.
func (s *spool) drain() {
	defer close(s.done)
	if s.turn != nil {
		select {
		case <-s.turn:
		case <-s.given:
			return
		}
	}
	if s.session.broken.Load() {
		s.fail(errSessionOver)
		return
	}
	var block []byte
	for {
		p, err := s.next(&block)
		if p == nil {
			if err != nil {
				s.fail(err)
			}
			return
		}
		if err := s.send(p); err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *spool) send(p []byte) error {
	nc := s.session.nc
	for len(p) > 0 {
		n := min(len(p), writePiece)
		s.mu.Lock()
		err := s.err
		if err == nil {
			s.writing = true
			nc.SetWriteDeadline(time.Now().Add(s.writeTimeout))
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
		s.session.writing.Lock()
		s.session.partial = true
		_, err = nc.Write(p[:n])
		s.session.writing.Unlock()
		s.mu.Lock()
		s.writing = false
		s.mu.Unlock()
		if err != nil {
			return explainWrite(err, s.writeTimeout)
		}
		p = p[n:]
	}
	return nil
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
	s.budget.memory.Add(-int64(s.held - len(s.memory)))
	s.held = len(s.memory)
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
	s.mu.Unlock()
	return p, nil
}
