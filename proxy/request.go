package proxy

import (
	"errors"
	"strconv"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// request is what is known about a command besides its text.
type request struct {
	cmd  *doveadm.Command // as it is sent to a backend
	info *doveadm.CommandInfo

	// userColumn: the client expects the user name in front of each row.
	userColumn bool

	// spellOut: the client's version means by the arguments what SpellOut makes
	// of them, backends from version 1.3 on may mean more.
	spellOut bool

	ttl   int // what is left of proxy-ttl
	ttlAt int // its place in cmd.Extra

	routed routed
}

// refusal is an answer that the proxy gives itself.
type refusal struct {
	outcome outcome
	code    string // of the status; empty: "-"
	reason  string // for the client and the log
}

func (r *refusal) Error() string { return r.reason }

// defaultTTL is what a client that sends no proxy-ttl is taken to have sent,
// as in Dovecot.
const defaultTTL = 5

// prepare makes the command of a client of minor version m ready for a backend,
// in place, or refuses it. The request is valid in either case.
func prepare(cmd *doveadm.Command, m doveadm.Minor) (request, *refusal) {
	info, args, known := doveadm.LookupWords(cmd.Name, cmd.Args)
	if known {
		// Servers take the words of a name in several fields; from here on
		// there is one spelling only.
		cmd.Name, cmd.Args = info.Name, args
	}
	r := request{cmd: cmd, info: info, ttlAt: -1}
	refused := func(o outcome, code, reason string) (request, *refusal) {
		return r, &refusal{o, code, reason}
	}
	switch {
	case hasControl(cmd.User):
		return refused(noUser, doveadm.CodeNoUser, "user name with control characters")
	case cmd.Name == "batch":
		return refused(denied, doveadm.CodeUsage, "batch is not supported: send the commands in it one by one")
	case info.Repeat == doveadm.RepeatServerWide:
		return refused(denied, doveadm.CodeNoPerm, cmd.Name+" stops or reloads a whole server: run it there")
	}
	if refusal := r.normalize(m); refusal != nil {
		return r, refusal
	}
	return r, r.readExtra()
}

// normalize takes the options out that say for whom the command runs. The user
// name field says it; what servers make of the options depends on their
// version: one of 2.4 runs a command with -A for all of its users.
func (r *request) normalize(m doveadm.Minor) *refusal {
	if r.info.Kind == doveadm.GlobalCommand {
		return nil // -A, -F and -u are other options there
	}
	n, err := r.info.NormalizeArgs(r.cmd.Args)
	if bad, ok := errors.AsType[*doveadm.ArgumentError](err); ok &&
		(r.info.Input || bad.Problem == doveadm.UncertainOption || bad.Problem == doveadm.ForbiddenByte) {
		return &refusal{denied, doveadm.CodeUsage, err.Error()}
	}
	// Other mistakes are for the backend to answer.
	r.cmd.Args = n.Args
	r.spellOut = m < doveadm.MinorExtraFields && r.info.ColumnsVary(n.Args)

	several := n.AllUsers || n.HasUserFile
	switch {
	case n.UserFile != "":
		return &refusal{denied, doveadm.CodeNoPerm, "option -F names a file of the backend: let the client read it, which then sends one command for each user"}
	case m >= doveadm.MinorExtraFields && several:
		// Such a client knows that the server does not.
		return &refusal{denied, doveadm.CodeUsage, "options -A and -F: send one command for each user"}
	case m < doveadm.MinorExtraFields && (several || n.UserMask):
		r.userColumn = true
	}
	if !r.userColumn {
		return nil
	}
	if _, ok := r.info.Columns(r.cmd.Args); !ok {
		return &refusal{denied, doveadm.CodeUsage, r.cmd.Name + " for several users: the number of columns is not known, so the user name cannot be put in front of each row"}
	}
	return nil
}

// readExtra reads proxy-ttl, decrements it, and looks at the forward fields.
func (r *request) readExtra() *refusal {
	const ttlField, forwardField = "proxy-ttl=", "forward="
	r.ttl = defaultTTL
	for i, e := range r.cmd.Extra {
		if v, ok := strings.CutPrefix(e, ttlField); ok {
			r.ttlAt = i
			if n, err := strconv.Atoi(v); err == nil {
				r.ttl = min(n, defaultTTL)
			}
		}
		if f, ok := strings.CutPrefix(e, forwardField); ok {
			// A TAB in a key makes the auth process of Dovecot 2.4.1 panic.
			if key, _, _ := strings.Cut(f, "="); hasControl(key) {
				return &refusal{denied, doveadm.CodeUsage, "forward field whose key has control characters"}
			}
		}
	}
	if err := r.decrementTTL(); err != nil {
		return &refusal{loops, doveadm.CodeTempFail, err.Error()}
	}
	return nil
}

var errTTL = errors.New("TTL reached zero - proxies appear to be looping?")

// decrementTTL counts one hop. A tunnel comes with 1, because Dovecot's own
// proxies cannot pass one on.
func (r *request) decrementTTL() error {
	switch {
	case r.ttl > 1:
		r.ttl--
	case !r.info.Tunnel || r.ttl < 1:
		return errTTL
	}
	if r.ttlAt < 0 {
		r.ttlAt = len(r.cmd.Extra)
		r.cmd.Extra = append(r.cmd.Extra, "")
	}
	r.cmd.Extra[r.ttlAt] = ttlFields[r.ttl]
	return nil
}

// ttlFields are the fields by their value, which is less than defaultTTL.
var ttlFields = [defaultTTL]string{1: "proxy-ttl=1", 2: "proxy-ttl=2", 3: "proxy-ttl=3", 4: "proxy-ttl=4"}

func hasControl(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// columnsVary reports whether the number of columns depends on the release of
// the backend, whose minor version m does not tell it.
func (r *request) columnsVary(m doveadm.Minor) bool {
	return m >= doveadm.MinorExtraFields && !r.spellOut && r.info.ColumnsVary(r.cmd.Args)
}

// repeatable reports whether the command may be sent again after its reply was
// lost before the first byte. A command whose second run may report a failure
// although the first succeeded is not: the client would be told that nothing
// was done.
func (r *request) repeatable() bool {
	return r.info.Repeat == doveadm.RepeatReadOnly ||
		r.info.Repeat == doveadm.RepeatIdempotent && r.info.RepeatCode == ""
}
