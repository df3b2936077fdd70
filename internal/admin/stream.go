package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/proxy"
)

func streamVerbs() []verb {
	return []verb{
		{"GET /v1/tail", Viewer, "The commands as they end, one JSON object a line.", (*Server).tail},
		{"GET /v1/trace", Admin, "What goes over the wires of a client or user, one JSON object a line.", (*Server).trace},
	}
}

// Ended is a command that has ended, or, with Lost, a gap; a line of
// GET /v1/tail. A line without anything is a sign of life.
type Ended struct {
	Time       *time.Time `json:"time,omitempty"` // of its end
	ID         string     `json:"id,omitempty"`   // session, dot, number in the session
	Listener   string     `json:"listener,omitempty"`
	Peer       string     `json:"peer,omitempty"`
	Client     string     `json:"client,omitempty"`
	User       string     `json:"user,omitempty"`
	Command    string     `json:"command,omitempty"`
	Outcome    string     `json:"outcome,omitempty"`
	Failed     bool       `json:"failed,omitempty"` // not for a reason of the client or its user
	Status     string     `json:"status,omitempty"` // that the client got
	Shard      string     `json:"shard,omitempty"`
	Backend    string     `json:"backend,omitempty"`
	WaitMS     float64    `json:"wait_ms,omitempty"` // for its turn and for a connection
	DurationMS float64    `json:"duration_ms,omitempty"`
	Bytes      int64      `json:"bytes,omitempty"` // of reply
	Retried    bool       `json:"retried,omitempty"`
	Reason     string     `json:"reason,omitempty"`

	Lost uint64 `json:"lost,omitempty"` // events before this line: the reader was too slow
}

// Wire is a piece of a trace, or, with Lost or End, something about it; a line of
// GET /v1/trace. A line without anything is a sign of life.
type Wire struct {
	Time    *time.Time `json:"time,omitempty"`
	ID      string     `json:"id,omitempty"`  // session, dot, number in the session
	Way     string     `json:"way,omitempty"` // client>proxy, proxy>backend, backend>proxy, proxy>client, end
	Backend string     `json:"backend,omitempty"`
	Bytes   int        `json:"bytes,omitempty"`
	Text    string     `json:"text,omitempty"`

	Lost uint64 `json:"lost,omitempty"` // pieces before this line: the reader was too slow
	End  string `json:"end,omitempty"`  // why the trace ends here
}

const (
	// streamBuffer is how many lines wait for a slow reader before it loses some.
	streamBuffer = 1000
	// signOfLife is how often a line is sent in any case, so that a reader that
	// is gone is found out.
	signOfLife = 10 * time.Second
	// streamWrite is how long a reader may take nothing.
	streamWrite = 30 * time.Second
	// maxStreams bounds those who read at the same time.
	maxStreams = 32

	defaultTraceTime = time.Minute
	maxTraceTime     = time.Hour
	defaultTraceSize = 1 << 20
	maxTraceSize     = 64 << 20
)

// stream writes lines to one reader.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	json    *json.Encoder
}

// openStream begins an answer of lines, unless there are too many of them.
func (s *Server) openStream(w http.ResponseWriter) (*stream, func()) {
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		fail(w, http.StatusTooManyRequests, fmt.Errorf("%d readers of tail and trace are the most at the same time", maxStreams))
		return nil, nil
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	st := &stream{w, http.NewResponseController(w), json.NewEncoder(w)}
	st.json.SetEscapeHTML(false)
	return st, func() { s.streams.Add(-1) }
}

// line writes v and hands over what there is.
func (st *stream) line(v any) error {
	st.control.SetWriteDeadline(time.Now().Add(streamWrite))
	if err := st.json.Encode(v); err != nil {
		return err
	}
	return st.control.Flush()
}

func (s *Server) tail(w http.ResponseWriter, r *http.Request) {
	q := query{values: r.URL.Query()}
	f := proxy.Filter{
		Client: q.text("client"), User: q.text("user"), Command: q.text("command"), Shard: q.text("shard"), Backend: q.text("backend"),
		Outcome: q.text("outcome"), Failed: q.flag("failed"), Duration: q.duration("min_duration", 0),
	}
	if err := q.end(); err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	st, closed := s.openStream(w)
	if st == nil {
		return
	}
	defer closed()
	t := s.proxy.Tail(f, streamBuffer)
	defer t.Close()
	alive := time.NewTicker(signOfLife)
	defer alive.Stop()
	err := st.line(Ended{}) // so that the reader knows that it has begun
	for err == nil {
		select {
		case <-r.Context().Done():
			return
		case <-s.closing:
			return
		case <-alive.C:
			err = st.line(Ended{Lost: t.Lost()})
		case e := <-t.Events():
			if lost := t.Lost(); lost > 0 {
				err = st.line(Ended{Lost: lost})
			}
			if err == nil {
				err = st.line(viewEvent(&e))
			}
		}
	}
}

func viewEvent(e *proxy.Event) Ended {
	return Ended{
		Time: optional(e.Time), ID: fmt.Sprintf("%d.%d", e.Session, e.Number), Listener: e.Listener, Peer: e.Peer, Client: e.Client, User: e.User,
		Command: e.Command, Outcome: e.Outcome, Failed: e.Failed, Status: e.Status, Shard: e.Shard, Backend: e.Backend,
		WaitMS: milliseconds(e.Wait), DurationMS: milliseconds(e.Duration), Bytes: e.Bytes, Retried: e.Retried, Reason: e.Reason,
	}
}

// milliseconds is a duration as the log and the audit log have it.
func milliseconds(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)) / float64(time.Millisecond)
}

func (s *Server) trace(w http.ResponseWriter, r *http.Request) {
	q := query{values: r.URL.Query()}
	f := proxy.TraceFilter{Client: q.text("client"), User: q.text("user")}
	d, size := q.duration("for", defaultTraceTime), q.number("max_bytes", defaultTraceSize)
	err := q.end()
	switch {
	case err != nil:
	case f == proxy.TraceFilter{}:
		err = errors.New("say whose commands to trace: client, user, or both")
	case d <= 0 || d > maxTraceTime:
		err = fmt.Errorf("for is above 0 and at most %s", maxTraceTime)
	case size <= 0 || size > maxTraceSize:
		err = fmt.Errorf("max_bytes is above 0 and at most %d", maxTraceSize)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err)
		return
	}
	st, closed := s.openStream(w)
	if st == nil {
		return
	}
	defer closed()
	t := s.proxy.Trace(f, size, streamBuffer)
	defer t.Close()
	alive, over := time.NewTicker(signOfLife), time.NewTimer(d)
	defer alive.Stop()
	defer over.Stop()
	piece := func(p *proxy.Wire) error {
		if lost := t.Lost(); lost > 0 {
			if err := st.line(Wire{Lost: lost}); err != nil {
				return err
			}
		}
		return st.line(Wire{Time: optional(p.Time), ID: fmt.Sprintf("%d.%d", p.Session, p.Number), Way: string(p.Way), Backend: p.Backend, Bytes: p.Bytes, Text: p.Text})
	}
	why := ""
	err = st.line(Wire{})
	for err == nil && why == "" {
		select {
		case <-r.Context().Done():
			return
		case <-s.closing:
			why = "the endpoint closes"
		case <-over.C:
			why = fmt.Sprintf("its time is over: %s", d)
		case <-t.Full():
			why = fmt.Sprintf("its size is reached: %d bytes", size)
		case <-alive.C:
			err = st.line(Wire{Lost: t.Lost()})
		case p := <-t.Wires():
			err = piece(&p)
		}
	}
	for err == nil {
		select {
		case p := <-t.Wires():
			err = piece(&p)
			continue
		default:
		}
		st.line(Wire{End: why, Lost: t.Lost()})
		return
	}
}

// query reads the parameters of a URL. Each that is not asked for is wrong.
type query struct {
	values url.Values
	asked  []string
	err    error
}

func (q *query) text(name string) string {
	q.asked = append(q.asked, name)
	return q.values.Get(name)
}

func (q *query) flag(name string) bool {
	text := q.text(name)
	if text == "" {
		return false
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		q.err = fmt.Errorf("%s is true or false", name)
	}
	return on
}

func (q *query) duration(name string, def time.Duration) time.Duration {
	text := q.text(name)
	if text == "" {
		return def
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		q.err = fmt.Errorf(`%s is a duration, as 500ms or 1m30s`, name)
	}
	return d
}

func (q *query) number(name string, def int64) int64 {
	text := q.text(name)
	if text == "" {
		return def
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		q.err = fmt.Errorf("%s is a whole number", name)
	}
	return n
}

// end returns what was wrong.
func (q *query) end() error {
	for _, name := range q.asked {
		q.values.Del(name)
	}
	for name := range q.values {
		return fmt.Errorf("unknown parameter %q: there are %q", name, q.asked)
	}
	return q.err
}
