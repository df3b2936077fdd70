package acceptance

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// seedBig gives a user mail of n megabytes, in messages of one each.
func seedBig(t *testing.T, s *dovecot.Server, user string, n int) {
	t.Helper()
	line := strings.Repeat("0123456789abcdef", 4)[:63] + "\n"
	message := []byte("From: a@example.net\nSubject: big\n\n" + strings.Repeat(line, 1<<20/64))
	messages := make([][]byte, n)
	for i := range messages {
		messages[i] = message
	}
	if err := s.SaveMail(user, "INBOX", messages...); err != nil {
		t.Fatal(err)
	}
}

// status runs a command and returns the code of the failure, "+" if it
// succeeded, and what the log channel said.
func status(t *testing.T, addr, user, name string, args ...string) (code string, logs []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := doveadm.Dial(ctx, addr, doveadm.ClientOptions{
		Password: clientPassword, Minor: doveadm.MaxMinor,
		OnLog: func(_ doveadm.LogLevel, text string) { logs = append(logs, text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Asks for the log channel by itself.
	_, err = runCommand(ctx, c, user, name, args...)
	var failed *doveadm.StatusError
	switch {
	case err == nil:
		return "+", logs
	case errors.As(err, &failed):
		return failed.Status.Code, logs
	}
	t.Fatal(err)
	return "", nil
}

// TestBackendKilledInReply kills a backend in the middle of a reply: no
// success, no harm to the others, and a log that tells the story in order.
func TestBackendKilledInReply(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, 1, dovecot.Options{})
	victim := c.servers[0]
	seedBig(t, victim, "u1-1", 60)
	p := startProxy(t, racy, func(addr string) string {
		return c.config(addr, "breaker {\n failures = 3\n open = \"1s\"\n}", "")
	})

	for _, minor := range []doveadm.Minor{doveadm.MinorBase, doveadm.MinorMultiplex, doveadm.MinorExtraFields} {
		client, err := dial(t.Context(), p.Addr, minor)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		client.NetConn().SetDeadline(time.Now().Add(60 * time.Second))
		reply, err := client.Do(t.Context(), &doveadm.Command{User: "u1-1", Name: "fetch", Args: []string{"uid text", "all"}})
		if err != nil {
			t.Fatal(err)
		}
		if !reply.Next() {
			t.Fatal(reply.Err())
		}
		if err := victim.Kill(); err != nil {
			t.Fatal(err)
		}
		fields := 1
		for reply.Next() {
			if _, err := io.Copy(io.Discard, reply); err != nil {
				t.Fatal(err)
			}
			fields++
		}
		var failed *doveadm.StatusError
		if err := reply.Err(); !errors.As(err, &failed) || failed.Status.Code != doveadm.CodeTempFail {
			t.Errorf("1.%d: the interrupted reply ended with %v", minor, err)
		}
		if fields%2 != 0 {
			t.Errorf("1.%d: %d fields, which is no whole number of rows", minor, fields)
		}

		// Its users get a temporary failure, the other's notice nothing; the
		// session that was hit goes on.
		for range 5 {
			if code, logs := status(t, p.Addr, "u1-1", "mailbox list"); code != doveadm.CodeTempFail || len(logs) != 1 || !strings.Contains(logs[0], "mail1") {
				t.Errorf("status %s, log %q", code, logs)
			}
		}
		if _, err := runCommand(t.Context(), client, "u2-1", "mailbox list"); err != nil {
			t.Errorf("1.%d: the session of the interrupted command: %v", minor, err)
		}
		p.waitLog("circuit breaker opened")
		if err := victim.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); ; {
			code, _ := status(t, p.Addr, "u1-1", "mailbox list")
			if code == "+" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("status %s long after the backend came back", code)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}

	log := p.Log()
	at := 0
	for _, step := range []string{
		"outcome=lost", "cannot connect to backend", "circuit breaker opened", "circuit breaker is open",
		"circuit breaker is half-open", "circuit breaker closed", "outcome=answered",
	} {
		i := strings.Index(log[at:], step)
		if i < 0 {
			t.Fatalf("the log does not say %q after what came before", step)
		}
		at += i
	}
}

// TestUserErrorIsNotSickness: mistakes of users do not open the breaker.
func TestUserErrorIsNotSickness(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, 1, dovecot.Options{})
	p := startProxy(t, racy, func(addr string) string {
		return c.config(addr, "breaker {\n failures = 2\n}", "")
	})
	// A bad search query ends the process of the backend without a word.
	for range 5 {
		code, logs := status(t, p.Addr, "u1-1", "search", "nosuchkey")
		if code != doveadm.CodeTempFail || len(logs) != 1 || !strings.Contains(logs[0], "closed the connection without a reply") {
			t.Errorf("status %s, log %q", code, logs)
		}
	}
	if code, logs := status(t, p.Addr, "u1-1", "mailbox list"); code != "+" {
		t.Errorf("status %s, %q", code, logs)
	}
	if strings.Contains(p.Log(), "circuit breaker") {
		t.Error("the breaker judged a user's mistake")
	}
}
