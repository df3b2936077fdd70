package ledger_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/doveadm-proxy/doveadm-proxy/internal/chaos/ledger"
)

// history is a small run. Each test changes one thing of it that goes well.
type history struct {
	*ledger.Ledger
	mail ledger.Mail
}

var path = []string{ledger.Proxy, "client:plain", "mail1"}

// newHistory is a run in which a command of each effect succeeds. Call it
// inside a bubble.
func newHistory() *history {
	h := &history{Ledger: &ledger.Ledger{}, mail: ledger.Mail{"alice": {
		Messages: map[string]int{"INBOX": 1, "made-1": 0, "made-3": 1},
		Saved:    map[string]int{"s1": 1},
	}}}
	h.run(ledger.Creates, "made-1", ledger.Succeeded, "")
	h.run(ledger.Creates, "made-2", ledger.Succeeded, "")
	h.run(ledger.Creates, "made-3", ledger.Succeeded, "")
	h.run(ledger.Deletes, "made-2", ledger.Succeeded, "")
	h.run(ledger.Copies, "made-3", ledger.Succeeded, "")
	h.run(ledger.Saves, "s1", ledger.Succeeded, "")
	h.run(ledger.None, "", ledger.Succeeded, "")
	return h
}

// run adds a command that takes a tenth of a second.
func (h *history) run(effect ledger.Effect, object string, a ledger.Answer, code string) *ledger.Entry {
	e := h.Send(ledger.Command{User: "alice", Name: "command", Effect: effect, Object: object, Path: path})
	time.Sleep(100 * time.Millisecond)
	if a != ledger.Pending {
		h.Tell(e, a, code, "", "")
	}
	return e
}

// fault lasts for the time of do and is over for long when it returns.
func (h *history) fault(w ledger.Window, do func()) {
	begun := h.Begin(w)
	do()
	h.End(begun)
	time.Sleep(3 * time.Second)
	h.run(ledger.None, "", ledger.Succeeded, "")
	time.Sleep(time.Hour)
}

func TestJudge(t *testing.T) {
	silence := ledger.Window{Fault: "silence", Targets: []string{"mail1"}}
	for _, tt := range []struct {
		name string
		do   func(h *history)
		want []string // kinds of violations, with a part of their texts
	}{
		{"all is well", func(*history) {}, nil},
		{"no answer", func(h *history) {
			h.run(ledger.None, "", ledger.Pending, "")
		}, []string{"lost: neither an answer nor an end"}},
		{"saved and not there", func(h *history) {
			h.run(ledger.Saves, "s2", ledger.Succeeded, "")
		}, []string{"lost: it is not there"}},
		{"created and not there", func(h *history) {
			h.run(ledger.Creates, "made-9", ledger.Succeeded, "")
		}, []string{"lost: the mailbox is not there"}},
		{"copied and not there", func(h *history) {
			h.run(ledger.Copies, "made-1", ledger.Succeeded, "")
		}, []string{"lost: it is not there"}},
		{"deleted and there", func(h *history) {
			h.run(ledger.Deletes, "made-1", ledger.Succeeded, "")
		}, []string{"lost: the mailbox is still there"}},
		{"not found and there", func(h *history) {
			h.fault(silence, func() { h.run(ledger.Deletes, "made-1", ledger.Failed, "NOTFOUND") })
		}, []string{"wrong: the mailbox that was not found is there"}},
		{"saved twice", func(h *history) {
			h.mail["alice"].Saved["s1"] = 2
		}, []string{"doubled: it is there 2 times"}},
		{"copied twice", func(h *history) {
			h.mail["alice"].Messages["made-3"] = 2
		}, []string{"doubled: it is there 2 times"}},
		{"saved twice by a command that failed", func(h *history) {
			h.fault(silence, func() { h.run(ledger.Saves, "s2", ledger.Failed, "TEMPFAIL") })
			h.mail["alice"].Saved["s2"] = 2
		}, []string{"doubled: it is there 2 times"}},
		{"failed, and ran", func(h *history) {
			h.fault(silence, func() { h.run(ledger.Saves, "s2", ledger.Failed, "TEMPFAIL") })
			h.mail["alice"].Saved["s2"] = 1
		}, nil},
		{"failed before it was sent, and ran", func(h *history) {
			h.fault(silence, func() {
				h.Tell(h.run(ledger.Saves, "s2", ledger.Pending, ""), ledger.Failed, "TEMPFAIL", "backend mail1: circuit breaker is open", "")
			})
			h.mail["alice"].Saved["s2"] = 1
		}, []string{"wrong: it was said not to have been sent"}},
		{"another's reply", func(h *history) {
			h.Tell(h.run(ledger.None, "", ledger.Pending, ""), ledger.Succeeded, "", "", "a row of bob's")
		}, []string{"wrong: a row of bob's"}},
		{"another's reply under a fault", func(h *history) {
			h.fault(silence, func() {
				h.Tell(h.run(ledger.None, "", ledger.Pending, ""), ledger.Succeeded, "", "", "a row of bob's")
			})
		}, []string{"wrong: a row of bob's"}},
		{"a garbled reply", func(h *history) {
			h.fault(ledger.Window{Fault: "bits", Targets: []string{"mail1"}, Garbles: true}, func() {
				h.Tell(h.run(ledger.None, "", ledger.Pending, ""), ledger.Succeeded, "", "", "a row of b\xefb's")
			})
		}, nil},
		{"a part of the input run as a command", func(h *history) {
			h.mail["alice"].Messages["made-unknown"] = 0
		}, []string{`wrong: alice has a mailbox "made-unknown"`}},
		{"another's message", func(h *history) {
			h.mail["bob"] = &ledger.Mailboxes{Saved: map[string]int{"s1": 1}}
		}, []string{`wrong: bob has a message "s1"`}},
		{"failed without a fault", func(h *history) {
			h.run(ledger.None, "", ledger.Failed, "TEMPFAIL")
		}, []string{"noticed: failed although"}},
		{"failed while another backend had a fault", func(h *history) {
			h.fault(ledger.Window{Fault: "silence", Targets: []string{"mail2"}}, func() {
				h.run(ledger.None, "", ledger.Failed, "TEMPFAIL")
				h.Tell(h.Send(ledger.Command{Path: []string{"mail2"}}), ledger.Succeeded, "", "", "")
			})
			h.Tell(h.Send(ledger.Command{Path: []string{"mail2"}}), ledger.Succeeded, "", "", "")
		}, []string{"noticed: failed although"}},
		{"failed long after the fault", func(h *history) {
			h.fault(silence, func() {})
			h.run(ledger.None, "", ledger.Failed, "TEMPFAIL")
		}, []string{"noticed: failed although"}},
		{"waited for the lock of a process that was killed", func(h *history) {
			h.End(h.Begin(ledger.Window{Fault: "SIGKILL", Targets: []string{"mail1"}, Locks: true}))
			time.Sleep(time.Second)
			h.run(ledger.None, "", ledger.Succeeded, "")
			time.Sleep(time.Minute)
			e := h.run(ledger.None, "", ledger.Pending, "")
			time.Sleep(ledger.LockWait)
			h.Tell(e, ledger.Failed, "TEMPFAIL", "", "")
		}, nil},
		{"failed at once, long after a process was killed", func(h *history) {
			h.End(h.Begin(ledger.Window{Fault: "SIGKILL", Targets: []string{"mail1"}, Locks: true}))
			time.Sleep(time.Second)
			h.run(ledger.None, "", ledger.Succeeded, "")
			time.Sleep(time.Minute)
			h.run(ledger.None, "", ledger.Failed, "TEMPFAIL")
		}, []string{"noticed: failed although"}},
		{"created across a command that goes on", func(h *history) {
			h.run(ledger.None, "", ledger.Left, "")
			h.run(ledger.Creates, "made-9", ledger.Failed, "DATAERR")
		}, nil},
		{"not created, though nothing goes on", func(h *history) {
			h.run(ledger.Creates, "made-9", ledger.Failed, "DATAERR")
		}, []string{"noticed: failed although"}},
		{"failed right after the fault", func(h *history) {
			w := h.Begin(silence)
			h.End(w)
			h.run(ledger.None, "", ledger.Failed, "TEMPFAIL")
			h.run(ledger.None, "", ledger.Succeeded, "")
		}, nil},
		{"a session that ended for the backend's fault", func(h *history) {
			h.fault(silence, func() { h.run(ledger.None, "", ledger.Ended, "") })
		}, []string{"noticed: its session ended"}},
		{"a session that ended for its client's fault", func(h *history) {
			h.fault(ledger.Window{Fault: "reset", Targets: []string{"client:plain"}}, func() {
				h.run(ledger.Saves, "s2", ledger.Ended, "")
			})
		}, nil},
		{"a failure while something harmless happened", func(h *history) {
			h.fault(ledger.Window{Fault: "reload", Targets: []string{ledger.Proxy}, Harmless: true}, func() {
				h.run(ledger.None, "", ledger.Failed, "TEMPFAIL")
			})
		}, []string{"noticed: failed although"}},
		{"a client that left", func(h *history) {
			h.run(ledger.Saves, "s2", ledger.Left, "")
		}, nil},
		{"a machine that was too slow", func(h *history) {
			h.End(h.Begin(ledger.Window{Fault: "slow", Targets: []string{ledger.Proxy}, Machine: true}))
			h.run(ledger.None, "", ledger.Failed, "TEMPFAIL")
		}, nil},
		{"no success any more", func(h *history) {
			h.End(h.Begin(silence))
		}, []string{"noticed: no success at mail1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHistory()
				tt.do(h)
				report := h.Judge(h.mail)
				var got []string
				for _, v := range report.Violations {
					got = append(got, v.String())
				}
				bad := len(got) != len(tt.want)
				for i := 0; !bad && i < len(got); i++ {
					bad = !strings.HasPrefix(got[i], tt.want[i])
				}
				if bad {
					t.Errorf("found %q, want %q", got, tt.want)
				}
				n := 0
				for _, k := range report.Total.Violations {
					n += k
				}
				if n != len(tt.want) {
					t.Errorf("the row of all counts %v", report.Total.Violations)
				}
			})
		})
	}
}

func TestRows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistory()
		for range 2 {
			h.fault(ledger.Window{Fault: "reset", Targets: []string{"mail1"}}, func() {
				h.run(ledger.None, "", ledger.Failed, "TEMPFAIL")
				h.run(ledger.None, "", ledger.Succeeded, "")
			})
		}
		h.fault(ledger.Window{Fault: "reload", Targets: []string{ledger.Proxy}, Harmless: true}, func() { h.run(ledger.None, "", ledger.Succeeded, "") })
		// One of two that come at once has no recovery of its own.
		h.fault(ledger.Window{Fault: "slow", Targets: []string{"mail1"}}, func() {
			h.End(h.Begin(ledger.Window{Fault: "short", Targets: []string{"mail1"}}))
			time.Sleep(time.Second)
		})
		report := h.Judge(h.mail)
		// The first success is sent 3 s after the end, and takes a tenth.
		recovery := 3100 * time.Millisecond
		want := []ledger.Row{
			{Fault: "reload", Times: 1, Commands: 1},
			{Fault: "reset", Times: 2, Commands: 4, Failed: 2, Recovery: []time.Duration{recovery, recovery}},
			{Fault: "short", Times: 1},
			{Fault: "slow", Times: 1, Recovery: []time.Duration{recovery}},
		}
		if diff := cmp.Diff(want, report.Rows, cmpopts.IgnoreUnexported(ledger.Row{})); diff != "" {
			t.Error(diff)
		}
		if report.Total.Commands != 16 || report.None.Commands != 11 || report.Total.Failed != 2 {
			t.Errorf("all %+v, none %+v", report.Total, report.None)
		}
		if got := fmt.Sprint(report.Answers); got != "map[-TEMPFAIL:2 succeeded:14]" {
			t.Error(got)
		}
	})
}

func TestSucceeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &history{Ledger: &ledger.Ledger{}}
		end := time.Now()
		time.Sleep(time.Second)
		h.run(ledger.None, "", ledger.Failed, "TEMPFAIL")
		if h.Succeeded("mail1", end) {
			t.Error("a failure counts as a success")
		}
		h.run(ledger.None, "", ledger.Succeeded, "")
		if !h.Succeeded("mail1", end) || h.Succeeded("mail2", end) || h.Succeeded("mail1", time.Now()) {
			t.Error("wrong target or time")
		}
	})
}

func TestExcused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l ledger.Ledger
		l.End(l.Begin(ledger.Window{Fault: "reload", Targets: []string{"mail1"}, Harmless: true}))
		if l.Excused("mail1", time.Now()) {
			t.Error("by something harmless")
		}
		w := l.Begin(ledger.Window{Fault: "reset", Targets: []string{"mail1"}})
		time.Sleep(time.Hour)
		if !l.Excused("mail1", time.Now()) || l.Excused("mail2", time.Now()) {
			t.Error("wrong while the fault lasts")
		}
		l.End(w)
		time.Sleep(ledger.Grace - time.Nanosecond)
		if !l.Excused("mail1", time.Now()) {
			t.Error("not right after it")
		}
		time.Sleep(2 * time.Nanosecond)
		if l.Excused("mail1", time.Now()) {
			t.Error("long after it")
		}
	})
}
