package history

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/doveadm-proxy/doveadm-proxy/internal/histogram"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backend is one that a test lets work.
type backend struct {
	Reading
	times histogram.Histogram
}

func (b *backend) run(n int, took time.Duration) {
	b.Commands += uint64(n)
	for range n {
		b.times.Observe(took)
	}
	b.Times = b.times.Counts()
}

func TestRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := &backend{Reading: Reading{Backend: "mail1", MaxOpen: 8}}
		one.run(1000, time.Second) // before anybody looked
		all := []*backend{one}
		var mu sync.Mutex
		r := Start(func() []Reading {
			mu.Lock()
			defer mu.Unlock()
			var readings []Reading
			for _, b := range all {
				readings = append(readings, b.Reading)
			}
			return readings
		})
		defer r.Close()
		synctest.Wait()
		if h := r.History(0); !h.End.IsZero() || len(h.Series) != 1 || len(h.Series[0].Samples) != 0 {
			t.Errorf("at first: %+v", h)
		}
		next := func(change func()) {
			mu.Lock()
			change()
			mu.Unlock()
			time.Sleep(Interval)
			synctest.Wait()
		}
		next(func() { one.run(100, 800*time.Microsecond); one.InUse = 3 })
		next(func() { one.Failed += 20; one.Commands += 20; one.Waiting = 5 })
		two := &backend{Reading: Reading{Backend: "mail2"}}
		next(func() { all = append(all, two); one.Waiting = 0 })
		next(func() { two.run(10, 20*time.Millisecond) })
		h := r.History(0)
		if h.Step != Interval || !h.End.Equal(time.Now()) {
			t.Errorf("%v, %v", h.Step, h.End)
		}
		if diff := cmp.Diff([]Series{
			{"mail1", 8, []Sample{
				{Rate: 10, P50: 0.00075, P95: 0.000975, P99: 0.000995, InUse: 3},
				{Rate: 2, Failed: 2, InUse: 3, Waiting: 5},
				{InUse: 3},
				{InUse: 3},
			}},
			{"mail2", 0, []Sample{{Rate: 1, P50: 0.0175, P95: 0.02425, P99: 0.02485}}},
		}, h.Series); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		h = r.History(2*Interval, "mail1", "mail3")
		if diff := cmp.Diff([]Series{{"mail1", 8, []Sample{
			{Rate: 6, Failed: 1, P50: 0.00075, P95: 0.000975, P99: 0.000995, InUse: 3, Waiting: 5},
			{InUse: 3},
		}}}, h.Series); diff != "" || h.Step != 2*Interval {
			t.Errorf("in larger steps (-want +got):\n%s", diff)
		}

		// The newest hour stays; who leaves is forgotten, who counts anew begins anew.
		next(func() { all = all[:1]; one.Reading.Commands = 5; one.run(0, 0) })
		for range 2 * Samples {
			next(func() { one.run(10, time.Millisecond) })
		}
		h = r.History(0)
		if len(h.Series) != 1 || len(h.Series[0].Samples) != Samples || h.Series[0].Samples[0].Rate != 1 {
			t.Errorf("%d series, %d samples", len(h.Series), len(h.Series[0].Samples))
		}
		if h := r.History(time.Hour); len(h.Series[0].Samples) != 1 || h.Series[0].Samples[0].Rate != 1 {
			t.Errorf("the whole hour: %+v", h.Series[0].Samples)
		}
	})
}

// TestMaxSeries: memory is bounded also where somebody has thousands.
func TestMaxSeries(t *testing.T) {
	r := newRecorder(func() (all []Reading) {
		for i := range maxSeries + 10 {
			all = append(all, Reading{Backend: fmt.Sprint(i)})
		}
		return all
	})
	r.take(time.Now())
	if n := len(r.History(0).Series); n != maxSeries {
		t.Errorf("%d series", n)
	}
}

func TestCommands(t *testing.T) {
	var c Commands
	begin := time.Unix(1_000_000*60, 0)
	at := func(minute int) time.Time { return begin.Add(time.Duration(minute) * time.Minute) }
	if !c.IsSlow(begin, 0) {
		t.Error("the first is not slow")
	}
	for minute := range 3 {
		for i := range 30 {
			took := time.Duration((i*7)%30+minute) * time.Second
			if c.IsSlow(at(minute), took) {
				c.AddSlow(&Command{Ended: at(minute), Took: took})
			}
		}
	}
	if c.IsSlow(at(2), 22*time.Second) || !c.IsSlow(at(2), 23*time.Second) || !c.IsSlow(at(3), 0) {
		t.Error("IsSlow does not know the floor of the minute")
	}
	slowest := c.Slowest(at(2))
	if len(slowest) != 3*slowEach {
		t.Fatalf("%d slowest", len(slowest))
	}
	for i, cmd := range slowest {
		if i > 0 && cmd.Took > slowest[i-1].Took {
			t.Errorf("not in order: %v", slowest)
		}
	}
	if slowest[0].Took != 31*time.Second || slowest[len(slowest)-1].Took != 20*time.Second {
		t.Errorf("from %v to %v", slowest[0].Took, slowest[len(slowest)-1].Took)
	}
	if n := len(c.Slowest(at(62))); n != slowEach {
		t.Errorf("after an hour: %d", n)
	}
	c.AddSlow(&Command{Ended: at(61), Took: time.Second})
	if got := c.Slowest(at(61)); got[len(got)-1].Took != time.Second {
		t.Errorf("in the place of an hour ago: %v", got)
	}
	for i := range 2*failedMost + 3 {
		c.AddFailed(&Command{Ended: begin.Add(time.Duration(i) * time.Second), Session: uint64(i)})
	}
	failed := c.Failed(begin.Add(2 * failedMost * time.Second))
	if len(failed) != failedMost || failed[0].Session != 2*failedMost+2 || failed[failedMost-1].Session != failedMost+3 {
		t.Errorf("%d failed, from %d to %d", len(failed), failed[0].Session, failed[len(failed)-1].Session)
	}
}
