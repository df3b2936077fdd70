package proxy

import (
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/audit"
)

// record adds the command to the audit log.
func (t *task) record(took time.Duration) {
	s := t.session
	if !s.proxy.audit.On() {
		return
	}
	r := s.record(audit.EventCommand)
	r.User, r.Command = t.cmd.User, t.cmd.Name
	r.Arguments = t.request.info.MaskArgs(t.cmd.Args)
	r.Shard, r.Backend = t.res.shard, t.res.backend
	r.Outcome, r.Reason = t.res.outcome.String(), t.res.reason
	if t.res.status != (doveadm.Status{}) {
		r.Status = t.res.status.String()
	}
	r.Duration = took
	r.Output = t.res.bytes
	r.Input = t.read
	s.proxy.audit.Add(&r)
}

// auditRefused adds a refused login to the audit log.
func (s *session) auditRefused(outcome loginResult, reason string) {
	if !s.proxy.audit.On() {
		return
	}
	r := s.record(audit.EventLoginRefused)
	r.Outcome, r.Reason = outcome.String(), reason
	s.proxy.audit.Add(&r)
}

// record returns what all records of the session have.
func (s *session) record(event string) audit.Record {
	return audit.Record{
		Time: time.Now(), Event: event, Session: s.id, Listener: s.settings.Name,
		Address: s.peerName, Client: s.client, Certificate: s.subject,
	}
}
