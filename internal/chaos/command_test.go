package main

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/chaos/ledger"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// TestJudgeReplies: what is wrong in a reply is found, and nothing else is.
func TestJudgeReplies(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	alice := &user{name: "alice", shard: "mail1", version: dovecot.V23, guid: "g1", made: []string{"made-alice-1"}}
	var large []string
	for n := range largeMail {
		large = append(large, strings.ReplaceAll("large N for alice", "N", string(rune('0'+n))), string(largeText("alice", n)))
	}
	fetched := func(rows ...int) []string {
		var found []string
		for _, n := range rows {
			found = append(found, large[2*n], large[2*n+1])
		}
		return found
	}
	ok := doveadm.Status{OK: true}
	tempfail, nouser := doveadm.Failure(doveadm.CodeTempFail), doveadm.Failure(doveadm.CodeNoUser)
	quota := []string{"Quota of alice", "STORAGE", "1", "2", "3", "Quota of alice", "MESSAGE", "1", "-", "0"}
	others := []string{"Quota of bob", "STORAGE", "1", "2", "3", "Quota of bob", "MESSAGE", "1", "-", "0"}
	cut := append(fetched(0), "large 1 for alice", "line of mess")

	for _, tt := range []struct {
		name    string
		command *command
		fields  []string
		status  doveadm.Status
		answer  ledger.Answer
		problem string // a part of it
	}{
		{"quota", quotaGet(alice, random), quota, ok, ledger.Succeeded, ""},
		{"quota of another", quotaGet(alice, random), others, ok, ledger.Succeeded, "somebody else"},
		{"half of it", quotaGet(alice, random), quota[:5], ok, ledger.Succeeded, "1 rows instead of 2"},
		{"half of it, and told so", quotaGet(alice, random), quota[:5], tempfail, ledger.Failed, ""},
		{"another's, in a failure", quotaGet(alice, random), others, tempfail, ledger.Failed, "somebody else"},
		{"part of a row", quotaGet(alice, random), quota[:7], tempfail, ledger.Failed, "no whole number of rows"},
		{"no such user", quotaGet(alice, random), nil, nouser, ledger.Failed, "which is not so"},
		{"nothing", quotaGet(alice, random), nil, ok, ledger.Succeeded, "0 rows"},
		{"all mails", fetchLarge(alice, random), fetched(0, 1, 2, 3, 4, 5), ok, ledger.Succeeded, ""},
		{"one missing", fetchLarge(alice, random), fetched(0, 1, 2, 3, 4), ok, ledger.Succeeded, "5 rows"},
		{"one twice", fetchLarge(alice, random), fetched(0, 1, 2, 3, 4, 4), ok, ledger.Succeeded, "a row twice"},
		{"broken off", fetchLarge(alice, random), cut, tempfail, ledger.Failed, ""},
		{"broken off, with +", fetchLarge(alice, random), cut, ok, ledger.Succeeded, "no message of his"},
		{"line", fetchSubject(alice, random), []string{"Archive", "old message for alice"}, ok, ledger.Succeeded, ""},
		{"line of another", fetchSubject(alice, random), []string{"Archive", "old message for bob"}, ok, ledger.Succeeded, "a row"},
		{"search", search(alice, random), []string{"g1", "1"}, ok, ledger.Succeeded, ""},
		{"search of another", search(alice, random), []string{"g2", "1"}, ok, ledger.Succeeded, "a row"},
		{"mailboxes", mailboxList(alice, random), []string{"INBOX", "Archive", "Large", "made-alice-1", "made-alice-0"}, ok, ledger.Succeeded, ""},
		{"a mailbox missing", mailboxList(alice, random), []string{"INBOX", "Archive", "Large"}, ok, ledger.Succeeded, "lacks"},
		{"a mailbox of another", mailboxList(alice, random), []string{"INBOX", "Archive", "Large", "made-alice-1", "made-bob-1"}, ok, ledger.Succeeded, "somebody else"},
		{"a user who does not exist", unknownUser(alice, random), nil, nouser, ledger.Succeeded, ""},
		{"a user who does not exist, found", unknownUser(alice, random), quota, ok, ledger.Succeeded, "+ instead of"},
		{"nobody to kick", kick(alice, random), nil, doveadm.Failure(doveadm.CodeNotFound), ledger.Succeeded, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var output []byte
			for _, f := range tt.fields {
				output = append(doveadm.AppendEscaped(output, f), '\t')
			}
			answer, problem := tt.command.judge(output, tt.status)
			if answer != tt.answer || (problem == "") != (tt.problem == "") || !strings.Contains(problem, tt.problem) {
				t.Errorf("%s, %q; want %s, %q", answer, problem, tt.answer, tt.problem)
			}
		})
	}
}

func TestFieldWithoutEnd(t *testing.T) {
	c := mailboxList(&user{name: "alice"}, nil)
	if a, problem := c.judge([]byte("INBOX\tArch"), doveadm.Failure(doveadm.CodeTempFail)); a != ledger.Failed || !strings.Contains(problem, "without an end") {
		t.Errorf("%s, %q", a, problem)
	}
}

func TestFields(t *testing.T) {
	for output, want := range map[string]string{"": "", "\t": "[]", "a\t\t": "[a][]", "a\x01tb\tc": "[a\tb][c]"} {
		got := ""
		for _, f := range fields([]byte(output)) {
			got += "[" + f + "]"
		}
		if got != want {
			t.Errorf("%q: %s, want %s", output, got, want)
		}
	}
}
