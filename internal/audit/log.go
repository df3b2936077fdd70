package audit

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// retryPause is how long nothing is written after a failure.
	retryPause = time.Second
	// keptScratch and keptQueue are the largest buffers that are used again.
	keptScratch = 64 << 10
	keptQueue   = 1 << 20
)

// Log takes records and writes them to the sink it is told to use, none at
// first. All methods may be called from any goroutine.
type Log struct {
	log     hclog.Logger
	on      atomic.Bool
	scratch sync.Pool     // of *[]byte
	wake    chan struct{} // there is something for the writer
	stop    chan struct{}
	writer  sync.WaitGroup
	closing sync.Once

	// using guards sink, and is held while it is written to. It comes before mu.
	using sync.Mutex
	sink  *Sink

	mu      sync.Mutex // guards what follows
	queue   []byte     // lines to be written
	waiting int        // records to be written, those of the writer too
	held    int        // bytes that the writer has, and could not write yet
	buffer  int64      // of the sink in use
	refuse  bool       // likewise
	failure error      // why the last attempt to write failed
	losing  int        // records lost since the log said so; 0: none
	stat    Stat
}

// Stat counts the records since the start.
type Stat struct {
	Written uint64
	Lost    uint64
	Waiting int  // now
	Failing bool // the last attempt to write failed
}

// New returns a log that is off, until Use. Close ends it.
func New(log hclog.Logger) *Log {
	l := &Log{
		log:     log,
		scratch: sync.Pool{New: func() any { return new([]byte) }},
		wake:    make(chan struct{}, 1),
		stop:    make(chan struct{}),
	}
	l.writer.Go(l.write)
	return l
}

// On reports whether there is a sink. Without one Add does nothing.
func (l *Log) On() bool { return l.on.Load() }

// Use makes the log write to sink from now on, and closes the one before. What
// is still to be written goes to the new one. nil switches the log off.
func (l *Log) Use(sink *Sink) {
	l.using.Lock()
	old := l.sink
	l.sink = sink
	l.mu.Lock()
	l.failure = nil
	if sink != nil {
		l.buffer, l.refuse = sink.buffer, sink.refuse
	}
	l.mu.Unlock()
	l.on.Store(sink != nil)
	l.using.Unlock()
	old.Close()
	l.nudge()
}

// Reopen opens a file anew: it may have been renamed. If that fails, what is
// open stays in use.
func (l *Log) Reopen() {
	l.using.Lock()
	var err error
	if l.sink != nil {
		err = l.sink.reopen()
	}
	l.using.Unlock()
	if err != nil {
		l.log.Error("audit log cannot be opened anew: what is open stays in use", "error", err)
	}
	l.nudge()
}

// ErrRefused is why no command may run.
var ErrRefused = errors.New("the audit log cannot be written, and without its record no command runs (audit.on_error)")

// Refused returns ErrRefused while a log with on_error = "refuse" cannot be
// written.
func (l *Log) Refused() error {
	if !l.on.Load() {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse && (l.failure != nil || int64(len(l.queue)+l.held) > l.buffer) {
		return ErrRefused
	}
	return nil
}

// Add takes a record, which it does not keep. It never waits for a disk.
//
// With on_error = "continue" it is lost if the buffer is full. With "refuse" no
// command is begun then, and the records of those that were begun before find
// a place in any case; there are not more of them than commands at work.
func (l *Log) Add(r *Record) {
	if !l.on.Load() {
		return
	}
	line := l.scratch.Get().(*[]byte)
	*line = r.appendTo((*line)[:0])
	l.mu.Lock()
	full := int64(len(l.queue)+l.held+len(*line)) > l.buffer
	first := false
	if full && !(l.refuse && r.ran()) {
		l.stat.Lost++
		l.losing++
		first = l.losing == 1
	} else {
		l.queue = append(l.queue, *line...)
		l.waiting++
	}
	l.mu.Unlock()
	if cap(*line) <= keptScratch {
		l.scratch.Put(line)
	}
	if first {
		l.log.Error("audit records are lost: more wait to be written than audit.buffer holds")
	}
	l.nudge()
}

// Stat returns the counts so far.
func (l *Log) Stat() Stat {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.stat
	s.Waiting, s.Failing = l.waiting, l.failure != nil
	return s
}

func (l *Log) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Close writes what is left, as far as that works at once, and ends the log. It
// may be called again.
func (l *Log) Close() {
	l.closing.Do(l.close)
}

func (l *Log) close() {
	l.on.Store(false)
	close(l.stop)
	l.writer.Wait()
	l.mu.Lock()
	lost := l.waiting
	l.mu.Unlock()
	if lost > 0 {
		l.log.Error("audit records are lost: they could not be written before the end", "records", lost)
	}
	l.using.Lock()
	defer l.using.Unlock()
	l.sink.Close()
}

// write is the writer: it takes all that waits and writes it at once. After a
// failure it keeps what is not written and tries again.
func (l *Log) write() {
	var batch []byte // of a buffer that is used again
	var left []byte  // of batch: not yet written
	pause := time.NewTimer(0)
	defer pause.Stop()
	for stopping := false; ; {
		if len(left) == 0 {
			batch = l.take(batch)
			left = batch
		}
		if len(left) > 0 {
			n, err := l.flush(left)
			written := left[:n]
			left = left[n:]
			l.flushed(written, len(left), err)
			if err == nil {
				continue
			}
		}
		switch {
		case stopping:
			return
		case len(left) > 0:
			pause.Reset(retryPause)
			select {
			case <-pause.C:
			case <-l.stop:
				stopping = true
			}
		default:
			select {
			case <-l.wake:
			case <-l.stop:
				stopping = true
			}
		}
	}
}

// take returns what waits to be written, and leaves the writer's last buffer
// for what comes.
func (l *Log) take(last []byte) []byte {
	if cap(last) > keptQueue {
		last = nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	batch := l.queue
	l.queue, l.held = last[:0], len(batch)
	return batch
}

// flush writes lines and returns how many bytes of them.
func (l *Log) flush(lines []byte) (int, error) {
	l.using.Lock()
	defer l.using.Unlock()
	if l.sink == nil {
		return len(lines), nil // switched off
	}
	n, err := l.sink.write(lines[:len(lines):len(lines)])
	if err != nil {
		err = fmt.Errorf("%s: %w", l.sink.name, err)
	}
	return n, err
}

// flushed books what became of lines, and tells when it begins to fail and when
// it works again.
func (l *Log) flushed(lines []byte, left int, err error) {
	records := bytes.Count(lines, []byte{'\n'})
	l.mu.Lock()
	l.stat.Written += uint64(records)
	l.waiting -= records
	l.held = left
	was, lost := l.failure, 0
	l.failure = err
	if err == nil && (was != nil || l.losing > 0) {
		lost, l.losing = l.losing, 0
	}
	refuse := l.refuse
	l.mu.Unlock()
	switch {
	case err != nil && was == nil && refuse:
		l.log.Error("audit log cannot be written: commands are refused until it can (audit.on_error)", "error", err)
	case err != nil && was == nil:
		l.log.Error("audit log cannot be written: records wait in the buffer, and are lost when it is full (audit.on_error)", "error", err)
	case err == nil && was != nil:
		l.log.Info("audit log is written again", "lost", lost)
	case lost > 0:
		l.log.Error("audit records were lost: the buffer was full", "lost", lost)
	}
}
