package doveadmtest_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm/doveadmtest"
)

func TestPipeCarriesMoreThanItHolds(t *testing.T) {
	a, b := doveadmtest.Pipe()
	want := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	go func() {
		a.Write(want)
		a.Close()
	}()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v, want the %d written", len(got), err, len(want))
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("reading from a closed end: %v", err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("writing to a closed end: %v", err)
	}
	b.Close()
}

func TestPipeDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := doveadmtest.Pipe()
		defer a.Close()
		defer b.Close()
		start := time.Now()
		a.SetDeadline(start.Add(time.Hour))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Hour {
			t.Errorf("read: %v after %v", err, time.Since(start))
		}
		a.SetDeadline(start.Add(2 * time.Hour))
		n, err := a.Write(make([]byte, 100_000))
		if n != 64<<10 || !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 2*time.Hour {
			t.Errorf("write: %d, %v after %v", n, err, time.Since(start))
		}
		a.SetDeadline(time.Time{})
		go b.Write([]byte("late"))
		if n, err := a.Read(make([]byte, 10)); n != 4 || err != nil {
			t.Errorf("read without deadline: %d, %v", n, err)
		}
		b.Write([]byte("there"))
		a.SetReadDeadline(time.Unix(1, 0))
		if _, err := a.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read behind the deadline: %v", err)
		}
	})
}
