package doveadm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestMaskArgs(t *testing.T) {
	for _, tt := range []struct {
		command string
		args    []string
		want    []string
	}{
		{"mailbox list", []string{"-s", "*"}, nil},
		{"search", []string{"mailbox", "INBOX", "subject", "passwords"}, nil},
		{"search", []string{"header", "x-api", "a=b"}, nil},
		{"mailbox cryptokey password", []string{"-n", "new", "-o", "old"}, []string{"-n", "***", "-o", "***"}},
		{"mailbox cryptokey password", []string{"-nnew", "-oold"}, []string{"-n***", "-o***"}},
		{"mailbox cryptokey password", []string{"--new-password=new", "--old-password", "old"}, []string{"--new-password=***", "--old-password", "***"}},
		{"mailbox cryptokey password", []string{"--new-pass=new"}, []string{"--new-pass=***"}},
		{"mailbox cryptokey password", []string{"-C", "-Nnnew"}, []string{"-C", "-Nn***"}},
		{"mailbox cryptokey password", []string{"-n", "-o", "-o", "old"}, []string{"-n", "***", "-o", "***"}},
		{"mailbox cryptokey password", []string{"-Z", "new"}, []string{"***", "***"}},
		{"mailbox metadata set", []string{"INBOX", "/private/comment", "text"}, []string{"INBOX", "/private/comment", "***"}},
		{"mailbox metadata set", []string{"INBOX", "/private/comment", "--value=text"}, []string{"INBOX", "/private/comment", "--value=***"}},
		{"dict set", []string{"redis:host=x", "priv/key", "value"}, []string{"redis:host=x", "priv/key", "***"}},
		{"dict get", []string{"redis:host=x:password=a:b", "priv/key"}, []string{"redis:host=x:password=***", "priv/key"}},
		{"dict get", []string{"proxy://user:secret@host/x", "priv/key"}, []string{"proxy://***", "priv/key"}},
		{"import", []string{"-U", "other", "imapc:~/x:imapc_master_PASSWORD=a=b c", "", "all"}, []string{"-U", "other", "imapc:~/x:imapc_master_PASSWORD=***", "", "all"}},
		{"sync", []string{"imap://u:p@h/?password=x"}, []string{"imap://***"}},
		{"sync", []string{"password=x imap://u:p@h/"}, []string{"password=***"}},
		{"fs get", []string{"crypt", "private_key=abc:posix", "/path"}, []string{"crypt", "private_key=***", "/path"}},
		{"fs put", []string{"-m", "a=b", "compress", "/in", "/out"}, []string{"-m", "***", "compress", "/in", "/out"}},
		{"pw", []string{"-s", "PLAIN", "-p", "secret"}, []string{"***", "***", "***", "***"}},
		{"auth test", []string{"user", "secret"}, []string{"***", "***"}},
		{"what is this", []string{"-o", "imapc_password=x"}, []string{"***", "***"}},
		{"what is this", nil, nil},
	} {
		info, _ := LookupCommand(tt.command)
		given := slices.Clone(tt.args)
		got := info.MaskArgs(tt.args)
		want := tt.want
		if want == nil {
			want = tt.args
			if len(got) > 0 && &got[0] != &tt.args[0] {
				t.Errorf("%s %q: copied with nothing to hide", tt.command, tt.args)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s %q: got %q, want %q", tt.command, tt.args, got, want)
		}
		if !slices.Equal(tt.args, given) {
			t.Errorf("%s: the arguments were changed to %q", tt.command, tt.args)
		}
	}
}

// Every parameter that may hold a secret by its name is hidden, and every name
// in the table is one of the command's.
func TestHiddenParams(t *testing.T) {
	for name, h := range hiddenArgs {
		info, known := LookupCommand(name)
		if !known {
			t.Errorf("there is no command %s", name)
		}
		for _, long := range h.params {
			if !slices.ContainsFunc(info.Params, func(p Param) bool { return p.Long == long }) {
				t.Errorf("%s has no parameter %s", name, long)
			}
		}
	}
	for name, info := range commandIndex {
		for _, p := range info.Params {
			secret := namesSecret(p.Long) && p.Kind != ParamFlag && p.Long != "passdb-field"
			if secret && !slices.Contains(hiddenArgs[name].params, p.Long) {
				t.Errorf("%s: the parameter %s is not hidden", name, p.Long)
			}
		}
	}
}

// However it is wrapped, a planted secret of a marked kind does not survive.
func FuzzMaskArgs(f *testing.F) {
	f.Add("mailbox cryptokey password", "-n", "x")
	f.Add("dict get", "redis:password=", "")
	f.Add("pw", "-p", "")
	f.Add("mailbox list", "--", "secret=")
	f.Fuzz(func(t *testing.T, command, before, after string) {
		const planted = "Planted-7f3a"
		info, known := LookupCommand(command)
		for _, form := range []string{"password=%s", "imapc_password=%s", "x://u:%s@h"} {
			secret := fmt.Sprintf(form, planted)
			for _, arg := range info.MaskArgs([]string{before, secret + after, before + secret}) {
				if strings.Contains(arg, planted) {
					t.Errorf("%s: %q", command, arg)
				}
			}
		}
		if !known {
			for _, arg := range info.MaskArgs([]string{before, planted, after}) {
				if arg != Masked {
					t.Errorf("%s is unknown: %q", command, arg)
				}
			}
		}
	})
}
