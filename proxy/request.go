package proxy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// request is a command on its way, with what is known about it.
type request struct {
	cmd  *doveadm.Command // as it is sent to a backend
	info *doveadm.CommandInfo
}

// refusal is an answer that the proxy gives itself.
type refusal struct {
	outcome outcome
	code    string // of the status
	reason  string // for the client and the log
}

// defaultTTL is what a client that sends no proxy-ttl is taken to have sent,
// as in Dovecot.
const defaultTTL = 5

// prepare makes cmd ready for a backend, in place, or refuses it.
func prepare(cmd *doveadm.Command) (request, *refusal) {
	info, args, known := doveadm.LookupWords(cmd.Name, cmd.Args)
	if known {
		// Servers take the words of a name in several fields; from here on
		// there is one spelling only.
		cmd.Name, cmd.Args = info.Name, args
	}
	r := request{cmd: cmd, info: info}
	switch {
	case hasControl(cmd.User):
		return r, &refusal{noUser, doveadm.CodeNoUser, "user name with control characters"}
	case info.Input:
		return r, unsupported("%s reads input", cmd.Name)
	case info.Tunnel:
		return r, unsupported("%s needs a two-way stream", cmd.Name)
	case cmd.Name == "batch":
		return r, unsupported("batch holds other commands")
	case info.Repeat == doveadm.RepeatServerWide:
		return r, &refusal{denied, doveadm.CodeNoPerm, cmd.Name + " stops or reloads a whole server: run it there"}
	}
	if refused := r.normalize(); refused != nil {
		return r, refused
	}
	return r, r.passExtra()
}

func unsupported(format string, a ...any) *refusal {
	return &refusal{denied, doveadm.CodeUsage, "not supported by this version of the proxy: " + fmt.Sprintf(format, a...)}
}

// normalize takes the options out that say for whom the command runs: the
// user name field says it, and servers of different versions do different
// things with them.
func (r *request) normalize() *refusal {
	if r.info.Kind == doveadm.GlobalCommand {
		return nil // -A, -F and -u are other options there
	}
	n, err := r.info.NormalizeArgs(r.cmd.Args)
	var bad *doveadm.ArgumentError
	switch {
	case n.AllUsers:
		return unsupported("option -A (all users)")
	case n.HasUserFile:
		return unsupported("option -F (users of a file)")
	case n.UserMask:
		return unsupported("option -u with a mask")
	case errors.As(err, &bad) && (bad.Problem == doveadm.UncertainOption || bad.Problem == doveadm.ForbiddenByte):
		return &refusal{denied, doveadm.CodeUsage, err.Error()}
	}
	// Other mistakes are for the backend to answer.
	r.cmd.Args = n.Args
	return nil
}

// passExtra decrements proxy-ttl and looks at the forward fields.
func (r *request) passExtra() *refusal {
	const ttlField, forwardField = "proxy-ttl=", "forward="
	ttl, at := defaultTTL, -1
	for i, e := range r.cmd.Extra {
		if v, ok := strings.CutPrefix(e, ttlField); ok {
			at = i
			if n, err := strconv.Atoi(v); err == nil {
				ttl = n
			}
		}
		if f, ok := strings.CutPrefix(e, forwardField); ok {
			// A TAB in a key makes the auth process of Dovecot 2.4.1 panic.
			if key, _, _ := strings.Cut(f, "="); hasControl(key) {
				return &refusal{denied, doveadm.CodeUsage, "forward field whose key has control characters"}
			}
		}
	}
	if ttl <= 1 {
		return &refusal{loops, doveadm.CodeTempFail, "TTL reached zero - proxies appear to be looping?"}
	}
	next := ttlFields[min(ttl, len(ttlFields))-1]
	if at >= 0 {
		r.cmd.Extra[at] = next
	} else {
		r.cmd.Extra = append(r.cmd.Extra, next)
	}
	return nil
}

// ttlFields are the decremented fields by the received value less one.
var ttlFields = [...]string{"", "proxy-ttl=1", "proxy-ttl=2", "proxy-ttl=3", "proxy-ttl=4"}

func hasControl(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// columns returns the number of fields in a row of the reply.
func (r *request) columns() (int, bool) { return r.info.Columns(r.cmd.Args) }

// repeatable reports whether the command may be sent again after its reply was
// lost before the first byte. A command whose second run may report a failure
// although the first succeeded is not: the client would be told that nothing
// was done.
func (r *request) repeatable() bool {
	return r.info.Repeat == doveadm.RepeatReadOnly ||
		r.info.Repeat == doveadm.RepeatIdempotent && r.info.RepeatCode == ""
}
