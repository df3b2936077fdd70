package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// needed are comparisons that need an explanation, one or more for each.
var needed = map[explanationID][]string{
	noReply:        {"protocol 1.0 on Dovecot 2.3: acl set Work user=bob nosuchright", "doveadm 2.4 on Dovecot 2.3: search nosuchkey"},
	malformedLine:  {`protocol 1.2 on Dovecot 2.4: line "\n"`},
	controlFlag:    {`protocol 1.3 on Dovecot 2.3: line "\x01t\tSELF\tmailbox list\n"`},
	controlInUser:  {`protocol 1.2 on Dovecot 2.3: mailbox list for "line\nend"`, `doveadm 2.3 on Dovecot 2.4: mailbox list for "tab\tbed"`},
	batchCommand:   {"protocol 1.1 on Dovecot 2.3: batch : mailbox subscribe Work : mailbox unsubscribe Subscribed"},
	wholeServer:    {`protocol 1.4 on Dovecot 2.4: stop for ""`},
	inputArguments: {"protocol 1.2 on Dovecot 2.4: sieve put, no argument", "doveadm 2.4 on Dovecot 2.3: save -U 100"},
	serverFile:     {"protocol 1.0 on Dovecot 2.4: mailbox list -F /etc/passwd"},
	allUsersNew:    {"protocol 1.3 on Dovecot 2.3: mailbox list -A"},
	allUsersOld:    {"protocol 1.2 on Dovecot 2.4: quota get -A"},
	userFileOld:    {`protocol 1.1 on Dovecot 2.3: mailbox list -F ""`},
	maskOld:        {"protocol 1.0 on Dovecot 2.4: quota get -u user*"},
	maskNew:        {"protocol 1.4 on Dovecot 2.3: quota get -u user*"},
	unknownForAll:  {"protocol 1.2 on Dovecot 2.3: nosuchcommand -A"},
	noLookup:       {"protocol 1.0 on Dovecot 2.3: mailbox list --no-userdb-lookup"},
	ttlReached:     {"protocol 1.3 on Dovecot 2.4: mailbox list with proxy-ttl=1"},
	ttlReplaced:    {"protocol 1.3 on Dovecot 2.4: mailbox list with proxy-ttl=NaN"},
}

// every is how many comparisons there are for one in the sample, besides those.
const every = 71

// TestSample runs a part of what "make compat" runs, with the race detector in
// the proxy: some cases of each client on each backend, and all explanations.
func TestSample(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "doveadm-proxy")
	out, err := exec.Command("go", "build", "-race", "-buildvcs=false", "-o", binary, "../../cmd/doveadm-proxy").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var named []string
	for _, names := range needed {
		named = append(named, names...)
	}
	var jobs []job
	for i, j := range allJobs() {
		if at := slices.Index(named, j.String()); at >= 0 {
			named = slices.Delete(named, at, at+1)
		} else if i%every != 0 || j.cmd.reachesEverybody() {
			continue
		}
		jobs = append(jobs, j)
	}
	if len(named) > 0 {
		t.Fatalf("there are no such comparisons: %q", named)
	}

	var progress bytes.Buffer
	m, err := compare(t.Context(), binary, jobs, &progress)
	if err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	t.Logf("%s\n%s\n%s", &progress, m.table(), m.summary())
	if n := m.total(unexplained); n > 0 {
		t.Errorf("%d unexplained differences", n)
	}
	if stale := m.stale(explanations()); len(stale) > 0 {
		t.Errorf("these explanations were not needed: %q", stale)
	}
	for _, c := range clients() {
		for _, version := range dovecot.Versions() {
			if m.cases(cell{c, version}) < 10 {
				t.Errorf("%s on Dovecot %s: only %d cases", c, version, m.cases(cell{c, version}))
			}
		}
	}
}
