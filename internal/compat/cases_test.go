package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// Every command that a server has for a user's mail is in the cases, each with
// more than one.
func TestEveryMailCommandHasCases(t *testing.T) {
	for _, version := range dovecot.Versions() {
		cases := map[string]int{}
		for _, c := range allCases(version) {
			cases[c.name]++
		}
		for _, info := range doveadm.Commands() {
			if info.Kind == doveadm.MailCommand && info.Series&series(version) != 0 && cases[info.Name] < 5 {
				t.Errorf("Dovecot %s: %d cases of %q, want at least 5", version, cases[info.Name], info.Name)
			}
		}
	}
}

func TestNumberOfCases(t *testing.T) {
	for _, version := range dovecot.Versions() {
		for _, c := range clients() {
			n := 0
			for _, cmd := range allCases(version) {
				if c.can(&cmd) {
					n++
				}
			}
			if n < 400 {
				t.Errorf("%s on Dovecot %s: %d cases, want at least 400", c, version, n)
			}
		}
	}
}

// Some commands make the directories that they are told of, and most run as
// root for a moment: a case names no path but in the user's home, or one that
// nobody can make.
func TestCasesStayInTheSite(t *testing.T) {
	for _, version := range dovecot.Versions() {
		for _, c := range allCases(version) {
			for _, a := range append(slices.Clone(c.args), c.line) {
				for _, path := range regexp.MustCompile(`(^|[:=])/\S*`).FindAllString(a, -1) {
					path = strings.TrimLeft(path, ":=")
					if path != someFile && path != nowhere && !strings.HasPrefix(path, "/private") {
						t.Errorf("%s: argument %q has the path %s", c.title, a, path)
					}
				}
			}
		}
	}
}
