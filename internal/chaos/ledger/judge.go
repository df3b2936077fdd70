package ledger

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
)

// Grace is how long after its end, and after the first success that follows, a
// fault still counts as the reason of a failure: what it broke and nobody used
// since is found broken later.
const Grace = 10 * time.Second

// What Dovecot's locks may do to one user while all others are served again.
const (
	// LockGrace is how long the lock of a process that was killed may last: two
	// minutes, by which Dovecot takes it for stale, and what follows them.
	LockGrace = 150 * time.Second
	// LockWait is how long a command has waited at least that failed for a lock.
	LockWait = 5 * time.Second
	// CrossGrace is how long a command may go on that its client does not wait
	// for any more. Dovecot's "mailbox create" may fail with DATAERR if another
	// command of the same user comes across the unfinished mailbox.
	CrossGrace = time.Minute
)

// Targets that are no backend's.
const (
	Proxy  = "proxy"   // the proxy as a whole: each command passes it
	Client = "client:" // begins the names of ways between clients and the proxy
)

// Mail is what is found at a backend, by user.
type Mail map[string]*Mailboxes

// Mailboxes are those of one user.
type Mailboxes struct {
	Messages map[string]int // in each mailbox, by its name
	Saved    map[string]int // messages that were saved in INBOX, by their objects
}

// Kind is what a violation is a violation of.
type Kind string

// The kinds of violations.
const (
	Lost    Kind = "lost"
	Doubled Kind = "doubled"
	Wrong   Kind = "wrong"
	Noticed Kind = "noticed"
)

// Violation is something that must not be.
type Violation struct {
	Kind  Kind
	Entry *Entry // nil if it is about none
	Text  string
}

func (v Violation) String() string {
	if v.Entry == nil {
		return fmt.Sprintf("%s: %s", v.Kind, v.Text)
	}
	e := v.Entry
	return fmt.Sprintf("%s: %s: %s %s (%s) by %s, sent %s, told after %s: %s %s %s", v.Kind, v.Text,
		e.Name, e.Object, e.User, strings.Join(e.Path, " "),
		e.Sent.UTC().Format("15:04:05.000"), e.Told.Sub(e.Sent).Round(time.Millisecond), e.Answer, e.Code, e.Why)
}

// Row is what happened under one fault. A command that met several counts in
// the row of each.
type Row struct {
	Fault      string
	Times      int
	Commands   int
	Failed     int // told so by a status
	Ended      int // told so by the end of the session
	Violations map[Kind]int
	// Recovery is the times from the end of the fault to the first success,
	// sorted. Those are left out in which another fault was in the way.
	Recovery []time.Duration

	harmless bool
}

// Report is what Judge finds.
type Report struct {
	Rows       []Row // one for each fault, by name
	None       Row   // commands that met no fault
	Total      Row   // each command once
	Answers    map[string]int
	Violations []Violation
}

// Judge compares what was told with what is found at the backends, when no
// command runs any more.
func (l *Ledger) Judge(found Mail) *Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	j := &judge{
		Ledger: l, found: found,
		report: &Report{Answers: make(map[string]int)},
		until:  make(map[*Window]time.Time),
		rows:   make(map[string]*Row),
		none:   &Row{Fault: "none"}, total: &Row{Fault: "all"},
		sentDelete: make(map[object]bool),
		known:      make(map[object]bool),
		goesOn:     make(map[string]time.Time),
	}
	for _, w := range l.windows {
		j.recovery(w)
	}
	for _, e := range l.entries {
		switch e.Effect {
		case Deletes:
			j.sentDelete[object{e.User, e.Object}] = true
		case Creates, Saves:
			j.known[object{e.User, e.Object}] = true
		}
	}
	for _, e := range l.entries {
		j.entry(e)
	}
	j.strangers()

	r := j.report
	for _, row := range j.rows {
		slices.Sort(row.Recovery)
		r.Rows = append(r.Rows, *row)
	}
	sort.Slice(r.Rows, func(a, b int) bool { return r.Rows[a].Fault < r.Rows[b].Fault })
	r.None, r.Total = *j.none, *j.total
	return r
}

type object struct{ user, name string }

type judge struct {
	*Ledger
	found       Mail
	report      *Report
	until       map[*Window]time.Time // when a window, with its grace, is over
	rows        map[string]*Row
	none, total *Row
	sentDelete  map[object]bool // mailboxes that somebody wanted to delete
	known       map[object]bool // what somebody wanted to be there
	// goesOn is until when a command of a user may go on without its client.
	goesOn map[string]time.Time
}

func (j *judge) row(fault string) *Row {
	row := j.rows[fault]
	if row == nil {
		row = &Row{Fault: fault}
		j.rows[fault] = row
	}
	return row
}

// recovery finds the first success behind each fault, for each of its targets.
func (j *judge) recovery(w *Window) {
	row := j.row(w.Fault)
	row.Times++
	row.harmless = w.Harmless
	recovered := w.To
	if w.Machine {
		j.until[w] = recovered.Add(Grace)
		return
	}
	for _, target := range w.Targets {
		var first time.Time
		for _, e := range j.entries {
			if e.Answer == Succeeded && e.Sent.After(w.To) && slices.Contains(e.Path, target) && (first.IsZero() || e.Told.Before(first)) {
				first = e.Told
			}
		}
		if first.IsZero() {
			j.violation(Noticed, nil, []*Row{row}, fmt.Sprintf("no success at %s after the end of %q", target, w.Fault))
			continue
		}
		if first.After(recovered) {
			recovered = first
		}
	}
	if !w.Harmless && !j.another(w, recovered) {
		row.Recovery = append(row.Recovery, recovered.Sub(w.To))
	}
	j.until[w] = recovered.Add(Grace)
}

// another reports whether there was another fault at a target of w that may have
// kept it from recovering.
func (j *judge) another(w *Window, recovered time.Time) bool {
	for _, o := range j.windows {
		if o == w || o.Harmless || o.From.After(recovered) || !o.To.After(w.To) {
			continue
		}
		for _, target := range o.Targets {
			if target == Proxy || slices.Contains(w.Targets, target) || slices.Contains(w.Targets, Proxy) {
				return true
			}
		}
	}
	return false
}

func (j *judge) violation(kind Kind, e *Entry, rows []*Row, text string) {
	j.report.Violations = append(j.report.Violations, Violation{kind, e, text})
	for _, row := range append(rows, j.total) {
		if row.Violations == nil {
			row.Violations = make(map[Kind]int)
		}
		row.Violations[kind]++
	}
}

// met is the faults that were in the way of an entry.
type met struct {
	rows    []*Row
	any     bool // one explains a failure
	session bool // one explains the end of a session
	garbled bool
}

func (j *judge) met(e *Entry) met {
	var m met
	told := e.Told
	if told.IsZero() {
		told = e.Sent.Add(time.Hour)
	}
	for _, w := range j.windows {
		until := j.until[w]
		if locked := w.To.Add(LockGrace); w.Locks && e.Answer == Failed && told.Sub(e.Sent) >= LockWait && locked.After(until) {
			until = locked
		}
		if !told.After(w.From) || e.Sent.After(until) {
			continue
		}
		for _, target := range w.Targets {
			if !slices.Contains(e.Path, target) {
				continue
			}
			m.any = m.any || !w.Harmless
			m.session = m.session || !w.Harmless && (target == Proxy || strings.HasPrefix(target, Client))
			m.garbled = m.garbled || w.Garbles
			// Counted are those that met it while it lasted, and those that
			// failed from what it left.
			bad := e.Answer == Failed || e.Answer == Ended
			if row := j.rows[w.Fault]; (bad || !e.Sent.After(w.To)) && !slices.Contains(m.rows, row) {
				m.rows = append(m.rows, row)
			}
		}
	}
	if len(m.rows) == 0 {
		m.rows = []*Row{j.none}
	}
	return m
}

func (j *judge) entry(e *Entry) {
	m := j.met(e)
	for _, row := range append(m.rows[:len(m.rows):len(m.rows)], j.total) {
		row.Commands++
		// What another fault explains is not held against something harmless.
		switch {
		case row.harmless && m.any:
		case e.Answer == Failed:
			row.Failed++
		case e.Answer == Ended:
			row.Ended++
		}
	}
	answer := e.Answer.String()
	if e.Answer == Failed {
		answer = "-" + e.Code
	}
	j.report.Answers[answer]++

	if e.Problem != "" && !m.garbled {
		j.violation(Wrong, e, m.rows, e.Problem)
	}
	switch {
	case e.Answer == Pending:
		j.violation(Lost, e, m.rows, "neither an answer nor an end")
	case e.Answer == Failed && e.Effect == Creates && e.Code == "DATAERR" && !e.Sent.After(j.goesOn[e.User]):
	case e.Answer == Failed && !m.any:
		j.violation(Noticed, e, m.rows, "failed although there was no fault in its way")
	case e.Answer == Ended && !m.session:
		j.violation(Noticed, e, m.rows, "its session ended although neither client nor proxy had a fault")
	}
	if e.Answer != Succeeded {
		j.goesOn[e.User] = e.Told.Add(CrossGrace)
	}
	j.effect(e, m)
}

// effect compares what an entry was told with what is found.
func (j *judge) effect(e *Entry, m met) {
	if e.Effect == None {
		return
	}
	user := j.found[e.User]
	if user == nil {
		user = &Mailboxes{}
	}
	messages, exists := user.Messages[e.Object]
	switch e.Effect {
	case Creates:
		if e.Answer == Succeeded && !exists && !j.sentDelete[object{e.User, e.Object}] {
			j.violation(Lost, e, m.rows, "the mailbox is not there")
		}
	case Deletes:
		if exists && e.Answer == Succeeded {
			j.violation(Lost, e, m.rows, "the mailbox is still there")
		}
		if exists && e.Answer == Failed && e.Code == "NOTFOUND" {
			j.violation(Wrong, e, m.rows, "the mailbox that was not found is there")
		}
	case Saves:
		j.count(e, m, user.Saved[e.Object])
	case Copies:
		j.count(e, m, messages)
	}
}

func (j *judge) count(e *Entry, m met, n int) {
	switch {
	case n > 1:
		j.violation(Doubled, e, m.rows, fmt.Sprintf("it is there %d times", n))
	case n == 0 && e.Answer == Succeeded:
		j.violation(Lost, e, m.rows, "it is not there")
	case n == 1 && e.Answer == Failed && NothingSent(e.Why):
		j.violation(Wrong, e, m.rows, "it was said not to have been sent, and is there")
	}
}

// NothingSent reports whether the text with which the proxy explains a failure
// says that no backend has seen the command.
func NothingSent(why string) bool {
	for _, text := range []string{"circuit breaker is open", "too many commands wait", "no connection became free", "connection refused"} {
		if strings.Contains(why, text) {
			return true
		}
	}
	return false
}

// strangers finds what nobody wanted in a user's mail: a part of another
// command, or another user's.
func (j *judge) strangers() {
	for user, boxes := range j.found {
		for name := range boxes.Messages {
			if strings.HasPrefix(name, Prefix) && !j.known[object{user, name}] {
				j.violation(Wrong, nil, nil, fmt.Sprintf("%s has a mailbox %q that nobody created", user, name))
			}
		}
		for id := range boxes.Saved {
			if !j.known[object{user, id}] {
				j.violation(Wrong, nil, nil, fmt.Sprintf("%s has a message %q that nobody saved there", user, id))
			}
		}
	}
}

// Prefix begins the names of mailboxes that commands create.
const Prefix = "made-"
