package doveadm

import "strings"

// Masked stands for what MaskArgs takes out.
const Masked = "***"

// hidden is which arguments of a command hold a secret or what a user stored,
// by the long names of their parameters and by the first of the positional
// arguments that may be one in any series; 0: none.
type hidden struct {
	params     []string
	positional int
}

// hiddenArgs has the commands with such arguments (the usage texts of
// src/plugins/mail-crypt/doveadm-mail-crypt.c, src/doveadm/doveadm-dict.c,
// doveadm-fs.c and doveadm-mail-mailbox-metadata.c).
var hiddenArgs = map[string]hidden{
	"mailbox cryptokey password": {params: []string{"new-password", "old-password"}},
	"mailbox metadata set":       {params: []string{"value"}, positional: 3},
	"dict set":                   {params: []string{"value"}, positional: 3},
	"fs put":                     {params: []string{"metadata"}},
}

// MaskArgs returns args with *** for what must not be shown: secrets (passwords
// of keys, what follows password= and the like in locations, URIs and driver
// arguments, user and password in a URL) and what users store in metadata and
// dictionaries. Search queries and names of mailboxes stay. Of a command of
// which the options are not known, or that is understood in part only, no
// argument stays. The result is args itself if there is nothing to hide.
func (c *CommandInfo) MaskArgs(args []string) []string {
	if len(args) == 0 {
		return args
	}
	if !c.known() {
		return maskAll(args)
	}
	m := masker{args: args}
	if h, ok := hiddenArgs[c.Name]; ok {
		r := argumentReader{command: c, args: args}
		for r.next() {
			at := len(args) - len(r.args) - 1
			switch {
			case r.param == nil && h.positional > 0 && r.positional >= h.positional:
				m.set(at, Masked)
			case r.param != nil && r.value != "" && contains(h.params, r.param.Long):
				m.set(at, strings.TrimSuffix(args[at], r.value)+Masked)
			}
		}
		if r.failed {
			return maskAll(args)
		}
	}
	for i, arg := range args {
		if cut := secretAt(arg); cut >= 0 && (!m.copied || m.args[i] == arg) {
			m.set(i, arg[:cut]+Masked)
		}
	}
	return m.args
}

func maskAll(args []string) []string {
	all := make([]string, len(args))
	for i := range all {
		all[i] = Masked
	}
	return all
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

// masker copies arguments when the first of them is changed.
type masker struct {
	args   []string
	copied bool
}

func (m *masker) set(i int, to string) {
	if !m.copied {
		m.args, m.copied = append([]string(nil), m.args...), true
	}
	m.args[i] = to
}

// secretAt returns where in an argument of any command a secret begins, or -1:
// behind a name that says so (imapc_password=, secret=, private_key=), and
// behind the :// of a URL with a user. A secret may hold whatever ends other
// values, so all that follows is part of it.
func secretAt(arg string) int {
	cut := -1
	if i := strings.Index(arg, "://"); i >= 0 && strings.IndexByte(arg[i:], '@') >= 0 {
		cut = i + len("://")
	}
	for from := 0; ; {
		i := strings.IndexByte(arg[from:], '=')
		if i < 0 {
			return cut
		}
		i += from
		if namesSecret(arg[from:i]) {
			if cut < 0 || i+1 < cut {
				return i + 1
			}
			return cut
		}
		from = i + 1
	}
}

// namesSecret reports whether the word at the end of text is the name of a
// setting with a secret.
func namesSecret(text string) bool {
	i := len(text)
	for i > 0 && isNameByte(text[i-1]) {
		i--
	}
	for _, word := range [...]string{"pass", "secret", "token", "private_key", "api_key", "credential"} {
		if containsFold(text[i:], word) {
			return true
		}
	}
	return false
}

func isNameByte(b byte) bool {
	return b == '_' || b == '-' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9'
}

// containsFold is strings.Contains for a lower-case word, whatever the case of
// text.
func containsFold(text, word string) bool {
	for i := 0; i+len(word) <= len(text); i++ {
		if strings.EqualFold(text[i:i+len(word)], word) {
			return true
		}
	}
	return false
}

// MaskText returns text with *** for a secret in it, as MaskArgs finds them in
// an argument of any command: what follows password= and the like, and the
// user of a URL.
func MaskText(text string) string {
	if cut := secretAt(text); cut >= 0 {
		return text[:cut] + Masked
	}
	return text
}
