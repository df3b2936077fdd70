package proxy

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A context that was derived from that of a task may ask it when the session is
// with its next command: a timer that ends does so in a goroutine of its own.
func TestContextOutlivesTask(t *testing.T) {
	s := &session{}
	one := s.nextTask()
	s.list(one, time.Now())
	derived, cancel := context.WithTimeout(waits{one}, time.Hour)
	s.unlist(one)
	if derived.Err() == nil {
		t.Error("a context derived from that of a task goes on after it")
	}
	next := s.nextTask()
	if next == one {
		t.Fatal("a task whose context was given away is used for the next command")
	}
	s.list(next, time.Now())
	cancel()
	if err := (waits{one}).Err(); !errors.Is(err, context.Canceled) {
		t.Errorf("the context of the task that ended: %v", err)
	}
	if next.live.waits != nil {
		t.Error("the next task has a context that nobody asked it for")
	}
	s.unlist(next)
	if again := s.nextTask(); again != next {
		t.Error("a task is not used again, though nobody has its context")
	}
}

// The same of a login.
func TestContextOutlivesLogin(t *testing.T) {
	s := &session{loginBy: time.Now().Add(time.Hour)}
	derived, cancel := context.WithTimeout(untilLate{s}, time.Minute)
	defer cancel()
	s.endLogin()
	if derived.Err() == nil || !errors.Is((untilLate{s}).Err(), context.Canceled) {
		t.Errorf("after the login: %v, %v", derived.Err(), (untilLate{s}).Err())
	}
}
