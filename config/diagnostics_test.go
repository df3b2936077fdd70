package config

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const someMistakes = `client "c" {
  pasword = "x" # why not?
}
shard "s" {
  backend "b" {
    address  = "h:1"
    password = "x" username = "y"
    pool {
      max_open = 0
    }
  }
}
`

func TestWriteDiagnostics(t *testing.T) {
	_, diags := Parse("dir/test.hcl", []byte(someMistakes))
	var sb strings.Builder
	if err := WriteDiagnostics(&sb, diags, false); err != nil {
		t.Fatal(err)
	}
	want := `Error: No password

  on dir/test.hcl line 1, in client "c":
   1: client "c" {

Nobody can log in as this client. Write what "doveadm-proxy hash" prints into a file, and: password_file = "/path/to/the/file"

Error: Unknown attribute pasword

  on dir/test.hcl line 2, in client "c":
   2:   pasword = ***

Did you mean password? A client block has the attributes password, old_password, password_file, username, listeners, networks, tls_subject, tls_san, unix_users, unix_groups, pipeline_depth, priority, max_sessions, max_commands, rate_limit, rate_burst, rate_wait, bytes_per_second and bytes_per_day, and the blocks allow and deny.

Error: Syntax error

  on dir/test.hcl line 7, in shard "s", backend "b":
   7:     password = ***

What stands here cannot be understood. It is not shown, because it may be a secret. Write one attribute a line, and strings in double quotes: password_file = "/path/to/the/file". In a string, %%{ stands for %{.

Error: Wrong value of max_open

  on dir/test.hcl line 9, in shard "s", backend "b", pool:
   9:       max_open = 0

max_open takes a whole number, 1 or more. This is less. For example: max_open = 8

Error: No listener

  on dir/test.hcl line 13:
  13: 

Nobody can connect. Add a block: listener "main" { address = "127.0.0.1:24245" }

`
	if diff := cmp.Diff(want, sb.String()); diff != "" {
		t.Error(diff)
	}

	sb.Reset()
	if err := WriteDiagnostics(&sb, diags, true); err != nil {
		t.Fatal(err)
	}
	if line := "   9:       max_open = \x1b[1;4m0\x1b[0m\n"; !strings.Contains(sb.String(), line) {
		t.Errorf("no line %q in:\n%s", line, &sb)
	}
}

func TestProblems(t *testing.T) {
	_, diags := Parse("test.hcl", []byte(someMistakes))
	got, err := json.Marshal(Problems(diags)[3])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"file":"test.hcl","line":9,"column":18,"severity":"error","summary":"Wrong value of max_open",` +
		`"detail":"max_open takes a whole number, 1 or more. This is less. For example: max_open = 8"}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"max_open", "max_idle", "min_idle", "s1"}
	for given, want := range map[string]string{
		"max_opne": "max_open", "maxopen": "max_open", "MAX_IDLE": "", "mn_idle": "min_idle", "s2": "s1", "shard": "", "": "",
	} {
		if want != "" {
			want = "Did you mean " + want + "?"
		}
		if got := nearest(given, names); got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}
