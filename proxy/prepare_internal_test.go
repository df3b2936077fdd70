package proxy

import (
	"bytes"
	"slices"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// FuzzPrepare prepares any line that is a command: what comes out of it is one
// line that means the same user, and with which another proxy agrees.
func FuzzPrepare(f *testing.F) {
	for _, line := range []string{
		"\talice\tquota get",
		"x\tproxy-ttl=2\x01tforward=k=a\x011tb\talice\tmailbox\tlist\t-s",
		"vx\tforward=k\x01ney=v\talice\tmailbox status\t-t\t--\tall\t*",
		"\talice\tfetch\t-A\tuid text\tall",
		"\talice\tfetch\t-uu*\tuid text\t-ZA",
		"\talice\tsave\t-m\tINBOX",
		"\tali\x01nce\tsearch\tall",
		"xx\tproxy-ttl=5\tproxy-ttl=4\talice\tno such\t-F\t",
		"D\t\tdsync-server\t-ualice",
	} {
		for minor := range byte(4) {
			f.Add([]byte(line), minor)
		}
	}
	f.Fuzz(func(t *testing.T, line []byte, minor byte) {
		m := doveadm.Minor(minor % 4)
		var was, cmd doveadm.Command
		if bytes.IndexByte(line, '\n') >= 0 || was.Parse(line) != nil || cmd.Parse(line) != nil {
			return
		}
		r, refused := prepare(&cmd, m)
		if r.info == nil || r.cmd != &cmd {
			t.Fatalf("the request is not valid: %+v", r)
		}
		if refused != nil {
			if refused.reason == "" || refused.code == "" || refused.code == doveadm.CodeReferral {
				t.Errorf("refused with %+v", refused)
			}
			return
		}
		if cmd.User != was.User || cmd.Debug != was.Debug || cmd.Verbose != was.Verbose {
			t.Errorf("%+v became %+v", was, cmd)
		}
		if hasControl(cmd.User) {
			t.Errorf("user %q", cmd.User)
		}
		ttls := 0
		for _, e := range cmd.Extra {
			if slices.Contains(ttlFields[1:], e) {
				ttls++
			} else if !slices.Contains(was.Extra, e) {
				t.Errorf("extra field %q is neither the client's nor ours", e)
			}
		}
		if ttls == 0 || len(cmd.Extra) > len(was.Extra)+1 {
			t.Errorf("extra fields %q of %q", cmd.Extra, was.Extra)
		}
		if r.info.Kind != doveadm.GlobalCommand {
			if n, _ := r.info.NormalizeArgs(cmd.Args); n.AllUsers || n.HasUserFile || n.UserMask {
				t.Errorf("the arguments %q still say for whom", cmd.Args)
			}
		}
		if r.userColumn && m >= doveadm.MinorExtraFields {
			t.Error("a user column for a client that makes its own")
		}
		for to := doveadm.MinorBase; to <= doveadm.MaxMinor; to++ {
			sent := doveadm.AppendCommand(nil, &cmd, to)
			if bytes.Count(sent, []byte{'\n'}) != 1 || bytes.ContainsAny(sent, "\r\x00") {
				t.Errorf("1.%d is sent %q", to, sent)
			}
			var back doveadm.Command
			if err := back.Parse(bytes.TrimSuffix(sent, []byte{'\n'})); err != nil {
				t.Errorf("1.%d is sent %q: %v", to, sent, err)
				continue
			}
			want := cmd
			want.Verbose = want.Verbose && !want.Debug
			back.Verbose = back.Verbose && !back.Debug
			if to < doveadm.MinorExtraFields {
				want.Extra = nil
			}
			if !equalCommands(want, back) {
				t.Errorf("1.%d reads %+v, want %+v", to, back, want)
			}
		}
		// A second proxy behind this one changes only what counts hops.
		again := doveadm.Command{Debug: cmd.Debug, Verbose: cmd.Verbose, User: cmd.User, Name: cmd.Name, Args: slices.Clone(cmd.Args), Extra: slices.Clone(cmd.Extra)}
		if _, refused := prepare(&again, m); refused != nil {
			if refused.outcome != loops {
				t.Errorf("a second proxy refuses %+v: %+v", cmd, refused)
			}
			return
		}
		again.Extra = cmd.Extra
		if !equalCommands(cmd, again) {
			t.Errorf("a second proxy makes %+v of %+v", again, cmd)
		}
	})
}

func equalCommands(a, b doveadm.Command) bool {
	return a.Debug == b.Debug && a.Verbose == b.Verbose && a.User == b.User && a.Name == b.Name &&
		slices.Equal(a.Args, b.Args) && slices.Equal(a.Extra, b.Extra)
}
