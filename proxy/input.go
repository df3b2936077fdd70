package proxy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// input is what a client sent behind a command that reads input: whole, and
// encoded as it came. It is in memory, and from inputMemory on in an unlinked
// file.
type input struct {
	limit  int64
	dir    string
	budget *spoolBudget
	memory []byte
	file   *os.File
	size   int64 // of both
}

// inputMemory is how much of an input stays in memory, and inputAtOnce how much
// of one a backend's socket takes without waiting.
const (
	inputMemory = spoolMemory
	inputAtOnce = 64 << 10
)

var errInputTooLarge = errors.New("the input is larger than limits.max_input")

// Write appends p.
func (in *input) Write(p []byte) (int, error) {
	if in.size+int64(len(p)) > in.limit {
		return 0, errInputTooLarge
	}
	if in.file == nil && len(in.memory)+len(p) <= inputMemory && in.budget.takeMemory(int64(len(p))) {
		in.memory = append(in.memory, p...)
		in.size += int64(len(p))
		return len(p), nil
	}
	if !in.budget.take(int64(len(p))) {
		return 0, errSpoolFull
	}
	in.size += int64(len(p))
	if in.file == nil {
		f, err := in.budget.open(in.dir)
		if err != nil {
			return 0, err
		}
		in.file = f
	}
	n, err := in.file.Write(p)
	if err != nil {
		err = fmt.Errorf("limits.spool_dir: %w", err)
	}
	return n, err
}

// short reports whether the input can be written at once.
func (in *input) short() bool { return in.file == nil && len(in.memory) <= inputAtOnce }

// copyTo calls write for the input piece by piece until it returns an error.
func (in *input) copyTo(write func(p []byte) error) error {
	if err := write(in.memory); err != nil || in.file == nil {
		return err
	}
	size := in.size - int64(len(in.memory))
	block := make([]byte, min(size, spoolMemory))
	for at := int64(0); at < size; {
		n, err := in.file.ReadAt(block[:min(size-at, int64(len(block)))], at)
		if err != nil && err != io.EOF || n == 0 {
			return fmt.Errorf("limits.spool_dir: %w", io.ErrUnexpectedEOF)
		}
		if err := write(block[:n]); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// close gives disk and budget back. Closing no input is fine.
func (in *input) close() {
	if in == nil {
		return
	}
	in.budget.used.Add(-(in.size - int64(len(in.memory))))
	in.budget.memory.Add(-int64(len(in.memory)))
	in.budget.close(in.file)
	*in = input{budget: in.budget}
}

// takeInput reads the input of t to its end before a backend hears of the
// command: a backend that refuses one leaves the input unread and takes it for
// commands. Of a refused command the input is dropped. It reports whether the
// client sent all of it.
func (s *session) takeInput(t *task) (whole bool) {
	limits := s.proxy.snapshot.Load().config.Limits
	from := slowReader{s, s.wire.ReadInput(), limits.InputTimeout}
	defer s.nc.SetReadDeadline(time.Time{})
	if t.refused == nil {
		t.input = &input{limit: limits.MaxInput, dir: limits.SpoolDir, budget: s.proxy.spool}
		err := from.copyTo(t.input)
		if err == nil {
			return true
		}
		t.input.close()
		t.input = nil
		t.refused = &refusal{denied, doveadm.CodeTempFail, err.Error()}
		if from.failed(err) {
			t.refused.outcome, t.refused.reason = clientGone, from.reason(err)
			return false
		}
	}
	return from.copyTo(io.Discard) == nil
}

// slowReader reads the input of a command from a client with a deadline for
// each piece.
type slowReader struct {
	session *session
	input   *doveadm.Input
	timeout time.Duration
}

// copyTo hands the pieces of the input to w as they arrive.
func (r slowReader) copyTo(w io.Writer) error {
	for {
		if r.timeout > 0 {
			r.session.nc.SetReadDeadline(time.Now().Add(r.timeout))
		}
		p, err := r.input.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return inputLost{err}
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
}

// inputLost is an error of the client's side.
type inputLost struct{ error }

func (r slowReader) failed(err error) bool {
	var lost inputLost
	return errors.As(err, &lost)
}

func (r slowReader) reason(err error) string {
	var lost inputLost
	errors.As(err, &lost)
	switch {
	case errors.Is(lost.error, os.ErrDeadlineExceeded):
		return fmt.Sprintf("no input for %s (limits.input_timeout)", r.timeout)
	case errors.Is(lost.error, io.ErrUnexpectedEOF):
		return "the input ends without a line of a single dot"
	}
	return "input: " + lost.Error()
}
