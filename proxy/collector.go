package proxy

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/histogram"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
	"github.com/doveadm-proxy/doveadm-proxy/router"
)

// Describe sends the descriptions of all metrics: a Proxy is a
// prometheus.Collector, which one registry may have.
func (p *Proxy) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range metricTable {
		ch <- m.desc
	}
}

// Collect sends the metrics as they are now.
func (p *Proxy) Collect(ch chan<- prometheus.Metric) {
	c := collection{ch: ch, pairs: make(map[string][]*dto.LabelPair)}
	c.process(p)
	c.clients(p)
	snap := p.snapshot.Load()
	var stat pool.Stat
	for _, shard := range snap.config.Shards {
		for _, b := range snap.shards[shard.Name].members {
			stat = b.Stat()
			c.backend(shard.Name, b, &stat)
			c.meter(b.Name(), b.meter)
		}
	}
	c.meter("", &p.meters.nowhere)
	c.meter("referral", &p.meters.elsewhere)
}

// collection is one Collect.
type collection struct {
	ch    chan<- prometheus.Metric
	pairs map[string][]*dto.LabelPair // label pairs by value: most of them are used again and again
	block []sample                    // still unused
}

// pair returns the label with a value, of which there is one only.
func (c *collection) pair(name, value string) *dto.LabelPair {
	for _, p := range c.pairs[value] {
		if *p.Name == name {
			return p
		}
	}
	p := &dto.LabelPair{Name: &name, Value: &value}
	c.pairs[value] = append(c.pairs[value], p)
	return p
}

// sample is one metric at one moment. It does without the checks of
// prometheus.NewConstMetric, of which a scrape would make ten thousands.
type sample struct {
	metric    *metric
	labels    []*dto.LabelPair
	value     float64
	counter   dto.Counter
	gauge     dto.Gauge
	histogram *dto.Histogram
}

func (s *sample) Desc() *prometheus.Desc { return s.metric.desc }

func (s *sample) Write(out *dto.Metric) error {
	out.Label = s.labels
	switch s.metric.kind {
	case dto.MetricType_COUNTER:
		s.counter.Value = &s.value
		out.Counter = &s.counter
	case dto.MetricType_GAUGE:
		s.gauge.Value = &s.value
		out.Gauge = &s.gauge
	default:
		out.Histogram = s.histogram
	}
	return nil
}

// new returns a sample of m whose labels have these values.
func (c *collection) new(m *metric, values []string) *sample {
	if len(c.block) == 0 {
		c.block = make([]sample, 256)
	}
	s := &c.block[0]
	c.block = c.block[1:]
	s.metric = m
	s.labels = make([]*dto.LabelPair, len(values))
	for i, v := range values {
		s.labels[i] = c.pair(m.labels[i], v)
	}
	return s
}

func (c *collection) send(m *metric, value float64, values ...string) {
	s := c.new(m, values)
	s.value = value
	c.ch <- s
}

// sendAny is send, but for a counter that stands at zero where that says
// nothing: of outcomes that a backend has never had.
func (c *collection) sendAny(m *metric, n *atomic.Uint64, values ...string) {
	if v := n.Load(); v > 0 {
		c.send(m, float64(v), values...)
	}
}

// bounds are those of histograms in seconds.
var bounds = func() (b [histogram.Buckets - 1]float64) {
	for i, d := range histogram.Bounds {
		b[i] = d.Seconds()
	}
	return b
}()

func (c *collection) sendDurations(m *metric, counts *histogram.Counts, values ...string) {
	h := &struct {
		dto.Histogram
		buckets  [histogram.Buckets - 1]dto.Bucket
		pointers [histogram.Buckets - 1]*dto.Bucket
		upTo     [histogram.Buckets]uint64
		sum      float64
	}{sum: counts.Sum.Seconds()}
	total := uint64(0)
	for i, n := range counts.Buckets {
		total += n
		h.upTo[i] = total
		if i < len(h.buckets) {
			h.buckets[i].CumulativeCount, h.buckets[i].UpperBound = &h.upTo[i], &bounds[i]
			h.pointers[i] = &h.buckets[i]
		}
	}
	h.SampleCount, h.SampleSum, h.Bucket = &h.upTo[histogram.Buckets-1], &h.sum, h.pointers[:]
	s := c.new(m, values)
	s.histogram = &h.Histogram
	c.ch <- s
}

func (c *collection) meter(name string, m *backendMeter) {
	for class := range m.classes {
		at := &m.classes[class]
		word := doveadm.Class(class).String()
		used := false
		for o := answered; o < outcomes; o++ {
			if n := at.outcomes[o].Load(); n > 0 {
				used = true
				c.send(commandsTotal, float64(n), name, word, o.String())
			}
		}
		if !used || name == "" {
			continue
		}
		for metric, h := range map[*metric]*histogram.Histogram{waitSeconds: &at.wait, firstByteSeconds: &at.firstByte, commandSeconds: &at.total} {
			counts := h.Counts()
			c.sendDurations(metric, &counts, name, word)
		}
	}
	if name == "" {
		return
	}
	for k := replyOK; k < replyKinds; k++ {
		c.sendAny(repliesTotal, &m.replies[k], name, k.String())
	}
	c.send(outputBytes, float64(m.output.Load()), name)
	c.send(inputBytes, float64(m.input.Load()), name)
	c.send(retriesTotal, float64(m.retries.Load()), name)
	c.send(retriesRefused, float64(m.retriesRefused.Load()), name)
	c.send(failoversTotal, float64(m.failovers.Load()), name)
	c.send(referralsTotal, float64(m.referrals.Load()), name)
}

func (c *collection) backend(shard string, b *backend, s *pool.Stat) {
	name := b.Name()
	c.send(backendInfo, 1, b.address, name, shard, strconv.FormatBool(b.config.Standby))
	c.send(backendAvailable, truth(b.Available()), name)
	c.send(operatorState, float64(s.Operator), name)
	c.send(healthState, float64(s.Health), name)
	c.send(breakerState, float64(s.Breaker), name)
	c.send(breakerOpened, float64(s.BreakerOpened), name)
	c.send(poolConnections, float64(s.InUse), name, "in-use")
	c.send(poolConnections, float64(s.Idle), name, "idle")
	c.send(poolConnections, float64(s.Dialing), name, "dialing")
	c.send(poolMax, float64(b.limits.MaxOpen), name)
	c.send(poolLimit, float64(s.Best), name)
	c.send(poolWaiting, float64(s.Waiting-s.BulkWaiting), name, "interactive")
	c.send(poolWaiting, float64(s.BulkWaiting), name, "bulk")
	c.send(poolAcquired, float64(s.Acquired), name)
	c.send(poolRefused, float64(s.RejectedByBreaker), name, "breaker")
	c.send(poolRefused, float64(s.QueueFull), name, "queue-full")
	c.send(poolRefused, float64(s.TimedOut), name, "timeout")
	for why, n := range s.Closed {
		c.send(poolClosed, float64(n), name, string(why))
	}
	c.send(dialsTotal, float64(s.Dials), name)
	for cause, n := range s.Causes {
		if n > 0 {
			c.send(dialErrors, float64(n), name, pool.DialCause(cause).String())
		}
	}
	c.sendDurations(connectSeconds, &s.Connects, name)
	c.sendDurations(loginSeconds, &s.Logins, name)
	c.send(tlsResumed, float64(s.Resumed), name)
	c.send(healthChecks, float64(s.HealthChecks), name)
	c.send(healthErrors, float64(s.HealthErrors), name)
	if !s.LastErrorAt.IsZero() {
		c.send(lastErrorTimestamp, seconds(s.LastErrorAt), name)
	}
	if !s.PeerExpiry.IsZero() {
		c.send(certificateExpiry, seconds(s.PeerExpiry), name, "backend")
	}
	if !s.OwnExpiry.IsZero() {
		c.send(certificateExpiry, seconds(s.OwnExpiry), name, "proxy-at-backend")
	}
}

func (c *collection) clients(p *Proxy) {
	p.mu.Lock()
	listeners := make(map[string]*listener)
	for _, l := range p.listeners {
		listeners[l.config().Name] = l
	}
	sessions := make(map[string]int)
	for name, n := range p.admission.clients {
		sessions[name] = n
	}
	p.mu.Unlock()
	for name, l := range listeners {
		c.send(listenerSessions, float64(l.sessions.Load()), name)
		if set := l.settings.Load(); set.tls != nil {
			if at := set.tls.Expiry(); !at.IsZero() {
				c.send(certificateExpiry, seconds(at), name, "listener")
			}
		}
	}
	for name, client := range p.snapshot.Load().clients {
		c.send(clientSessions, float64(sessions[name]), name)
		for o := answered; o < outcomes; o++ {
			c.sendAny(clientCommands, &client.meter.outcomes[o], name, o.String())
		}
	}
	for r := loggedIn; r < loginResults; r++ {
		c.send(loginsTotal, float64(p.meters.logins[r].Load()), r.String())
	}
	for r := refusedEnding; r < connRefusals; r++ {
		c.send(connectionsRefused, float64(p.meters.refused[r].Load()), r.String())
	}
	for b := lineEmpty; b < badLineKinds; b++ {
		c.send(badLines, float64(p.meters.badLines[b].Load()), b.String())
	}
	c.send(sessionPanics, float64(p.meters.panics.Load()))
}

func (c *collection) process(p *Proxy) {
	c.send(readyGauge, truth(p.Ready()))
	c.send(commandsRunning, float64(p.commands.Load()))
	reloads := p.Reloads()
	c.send(reloadSuccessful, truth(reloads.Err == ""))
	c.send(reloadTimestamp, seconds(reloads.Loaded))
	c.send(reloadsTotal, float64(reloads.Reload), "ok")
	c.send(reloadsTotal, float64(reloads.Failed), "failed")
	for _, word := range p.Passwords() {
		name, of := word.Client, "client"
		if word.Backend != "" {
			name, of = word.Backend, "backend"
		}
		if !word.Changed.IsZero() {
			c.send(passwordChanged, seconds(word.Changed), name, of)
		}
		c.send(oldPassword, truth(word.HasOld), name, of)
	}
	if p.audit.On() {
		s := p.AuditStat()
		c.send(auditRecords, float64(s.Written), "written")
		c.send(auditRecords, float64(s.Lost), "lost")
		c.send(auditWaiting, float64(s.Waiting))
		c.send(auditFailing, truth(s.Failing))
	}
	c.send(spoolBytes, float64(p.spool.memory.Load()), "memory")
	c.send(spoolBytes, float64(p.spool.used.Load()), "files")
	c.send(spoolLimit, float64(p.spool.limit.Load()))
	c.send(spoolFiles, float64(p.spool.files.Load()))
	for name, decided := range p.snapshot.Load().decided {
		c.send(routeDecisions, float64(decided.Load()), name)
	}
	for _, s := range p.snapshot.Load().table.Lookups() {
		c.lookups(&s)
	}
	if s, ok := p.MovesStat(); ok {
		c.send(movesFresh, truth(s.Fresh))
		c.send(movesReachable, truth(s.Reachable))
		c.send(movesUsers, float64(s.Exceptions))
		c.send(movesHeld, float64(s.Held))
		c.send(movesWaiting, float64(s.Waiting))
		c.send(movesTotal, float64(s.Moved), "moved")
		c.send(movesTotal, float64(s.Failed), "failed")
		c.send(movesTotal, float64(s.Abandoned), "abandoned")
		c.send(movesLongest, s.LongestHold.Seconds())
	}
	told := make(map[string]bool) // several routes may have the same file
	for _, m := range p.snapshot.Load().table.Maps() {
		if told[m.Path] {
			continue
		}
		told[m.Path] = true
		c.send(mapUsers, float64(m.Users), m.Path)
		c.send(mapRead, seconds(m.Read), m.Path)
		c.send(mapFailing, truth(m.Err != nil), m.Path)
	}
}

// lookups sends what the lookups of a route are like.
func (c *collection) lookups(s *router.LookupStat) {
	c.send(routeAnswers, float64(s.Cached), "cache", s.Route)
	c.send(routeAnswers, float64(s.Asked), "lookup", s.Route)
	c.send(routeAnswers, float64(s.Stale), "stale", s.Route)
	c.send(routeAnswers, float64(s.Unknown), "none", s.Route)
	c.send(routeLookups, float64(s.Found), "found", s.Route)
	c.send(routeLookups, float64(s.Missing), "missing", s.Route)
	c.send(routeLookups, float64(s.Failed), "failed", s.Route)
	c.send(routeLookups, float64(s.Refused), "breaker", s.Route)
	c.send(routeLookups, float64(s.Busy), "busy", s.Route)
	c.sendDurations(lookupSeconds, &s.Took, s.Route)
	c.send(lookupsRunning, float64(s.Running), s.Route)
	c.send(lookupsKept, float64(s.Kept), s.Route)
	c.send(lookupsFailing, truth(s.Failing), s.Route)
	c.send(lookupBreaker, float64(s.Breaker), s.Route)
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }
