package access

import (
	"fmt"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// Finding is what one block has to say about a request.
type Finding struct {
	Rule    string
	Decides bool
	Why     string // a clause for a person to read
}

// Explain returns what Decide decides and what each block that is asked says,
// in the order in which they are asked.
func (r *Rules) Explain(q *Request) (Decision, []Finding) {
	d := r.Decide(q)
	c := r.clients[q.Client]
	if c == nil {
		return d, nil
	}
	var all []Finding
	for i := range c.deny {
		rule := &c.deny[i]
		f := Finding{Rule: rule.name, Decides: rule.applies(q), Why: "does not apply"}
		if f.Decides {
			f.Why = "applies"
		}
		all = append(all, f)
		if f.Decides {
			return d, all
		}
	}
	for i := range c.allow {
		rule := &c.allow[i]
		reason := rule.covers(q)
		all = append(all, Finding{Rule: rule.name, Decides: reason == covered, Why: rule.explain(q, reason)})
		if reason == covered {
			break
		}
	}
	return d, all
}

func (r *rule) explain(q *Request, c coverage) string {
	switch c {
	case covered:
		return "covers the command"
	case otherCommand:
		return "is about other commands"
	case notByName:
		if isUnknown(q.Command) {
			return "does not name the command, which this version does not know"
		}
		return "does not name the command, which needs the right admin"
	case otherNetwork:
		return "is about other networks"
	case otherUser:
		if q.Effects.OtherUser != "" && r.users.Match(q.User) {
			return fmt.Sprintf("is not about the other user, %s", q.Effects.OtherUser)
		}
		return "is about other users"
	case severalUsers:
		return "is about some users; the command concerns others too"
	case otherShard:
		return "is about other shards"
	}
	missing := q.Effects.Danger &^ r.dangers
	return fmt.Sprintf("does not allow %s (dangerous = [%s])", describe(q, missing), quoted(missing))
}

// describe says what is dangerous about a request.
func describe(q *Request, d doveadm.Danger) string {
	texts := map[doveadm.Danger]string{
		doveadm.OpensFiles:      "to open files of the backend",
		doveadm.ReachesHosts:    "to reach other hosts",
		doveadm.RunsPrograms:    "to run programs on the backend",
		doveadm.TouchesUsers:    "to work on other users",
		doveadm.ChangesSettings: "to override settings of the backend",
		doveadm.Unforeseen:      "what this version does not know",
	}
	var all []string
	for _, one := range doveadm.Dangers() {
		if d&one != 0 {
			all = append(all, texts[one])
		}
	}
	text := strings.Join(all, " and ")
	if q.Effects.Cause != "" {
		text += fmt.Sprintf(" (argument %s)", q.Effects.Cause)
	}
	return text
}

func quoted(d doveadm.Danger) string { return `"` + strings.Join(d.Names(), `", "`) + `"` }

// Refusal is what a client is told, and the log says, of a request that was
// denied: why, and what would have to be granted.
func (r *Rules) Refusal(q *Request, d Decision) string {
	c := r.clients[q.Client]
	if c == nil {
		return fmt.Sprintf("not allowed: client %s is not in the configuration", q.Client)
	}
	if d.Rule != "" {
		return fmt.Sprintf("not allowed: %s of client %s denies it", d.Rule, q.Client)
	}
	if isUnknown(q.Command) {
		return fmt.Sprintf("Client sent unknown command: %s (if a plugin of the backends has it, client %s needs commands = [%q] in an allow block)", q.Name, q.Client, q.Name)
	}
	// The block that comes closest tells most.
	var best coverage
	var closest *rule
	for i := range c.allow {
		if reason := c.allow[i].covers(q); closest == nil || reason > best {
			best, closest = reason, &c.allow[i]
		}
	}
	switch best {
	case dangerous:
		missing := q.Effects.Danger &^ closest.dangers
		return fmt.Sprintf("not allowed: client %s may not use %s %s; it needs dangerous = [%s] in an allow block for the command",
			q.Client, q.Command.Name, describe(q, missing), quoted(missing))
	case notByName:
		return fmt.Sprintf("not allowed: %s needs the right admin; client %s needs commands = [%q] in an allow block", q.Command.Name, q.Client, q.Command.Name)
	}
	return fmt.Sprintf("not allowed: no allow block of client %s covers %s here: %s %s", q.Client, q.Command.Name, closest.name, closest.explain(q, best))
}
