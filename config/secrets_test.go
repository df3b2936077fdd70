package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// planted is a secret in all its parts: none of them may show.
const planted = "hunter2"

// Whatever is wrong around a secret, no form of the diagnostics shows it.
func TestDiagnosticsHideSecrets(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"clear": planted, "twolines": "{PLAIN}hunter2\nhunter2\n", "open": "{PLAIN}hunter2"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "open"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PLANTED", planted)

	bodies := []string{ // of a client block
		`password = "hunter2"`,
		`password = "hunter2" # or hunter2`,
		`password = "hunter2" // or hunter2`,
		`password = "hunter2" /* or hunter2 */`,
		"/* hunter2\nhunter2 */ password = \"hunter2\"",
		`password = "{hunter2}hunter2"`,
		`password = "{MD5}hunter2"`,
		`password = "{PLAIN}hunter2" x = 1`,
		`password = "{PLAIN}hunter2" password_file = "hunter2"`,
		`password = hunter2`,
		`password = hunter2.hunter2`,
		`password = hunter2.1.2`,
		`password = hunter2("hunter2")`,
		`password = env("hunter2 hunter2")`,
		`password = env("hunter2!")`,
		`password = env(hunter2)`,
		`password = env("PLANTED")`,
		`password = env("PLANTED", "hunter2")`,
		`password = "${env("PLANTED")}"`,
		`password = "${env("PLANTED") + "hunter2"}"`,
		`password = file("clear")`,
		`password = file("twolines")`,
		`password_file = "clear"`,
		`password_file = "twolines"`,
		`password_file = "open"`,
		`password = ["hunter2"]`,
		"password = [\n\"hunter2\",\nhunter2\n]",
		`password = { hunter2 = "hunter2" }`,
		"password = {\n  hunter2 = \"hunter2\"\n}",
		"password = <<EOT\nhunter2\nEOT",
		"password = <<-EOT\n  hunter2\n  EOT",
		"password = <<EOT\nhunter2\n",
		`password = "hunter2`,
		`password = "hunter2" "hunter2"`,
		`password = "\hunter2"`,
		`password = "%{hunter2}"`,
		`password = "%{if hunter2}x%{endif hunter2}"`,
		`password = "${hunter2"`,
		`password = "$` + `{hunter2 hunter2}"`,
		"password = \"hunter2\nhunter2\"",
		"password = \"hunter2\nhunter2\nhunter2\"",
		`password = 'hunter2'`,
		"password = `hunter2`",
		`password = “hunter2”`,
		`password = "x"hunter2"`,
		`password "hunter2"`,
		`password hunter2`,
		`password: "hunter2"`,
		`password => "hunter2"`,
		`password == "hunter2"`,
		"password =\n\"hunter2\"",
		"password =\nhunter2",
		`password { hunter2 }`,
		`password { value = "hunter2" }`,
		`password "hunter2" {}`,
		`pasword = "hunter2"`,
		`passwd = "hunter2"`,
		`pass = "hunter2"`,
		`secret = "hunter2"`,
		`"password" = "hunter2"`,
		`"hunter2"`,
		`rate_limit = 1 password = "hunter2"`,
		`allow { password = "hunter2" }`,
		`password_file = { password = "hunter2" }`,
		`password_file = "x" password = "hunter2"`,
		`password_file = "x` + "\n" + `password = "hunter2"`,
		`password_file = [` + "\n" + `password = "hunter2"`,
		`password_file = <<EOT` + "\n" + `password = "hunter2"`,
		"password = \"hunter2\"\npassword = \"hunter2\"",
		"password = \"hunter2\"\npassword_file = \"clear\"",
		`password = "hunter2", password_file = "clear"`,
		`password = "hunter2";`,
		"password = \"hunter2\x00\"",
		"password = \"hunter2\xff\"",
		"\xffpassword = \"hunter2\"",
		"password\u00a0= \"hunter2\"",
		"password = \"hunter2\"\r",
		`password = -"hunter2"`,
		`password = "hunter2" == "hunter2" ? "hunter2" : 1`,
		`password = [for hunter2 in "hunter2": hunter2]`,
	}
	around := []string{
		"client \"c\" {\n%s\n}\n",
		"client \"c\" { %s }\n",
		"client \"c {\n%s\n}\n",
		"client \"c\"\n%s\n}\n",
		"client \"c\" {\n%s\n",
		"client {\n%s\n}\n}\n",
		"clint \"c\" {\n%s\n}\n",
		"clint \"c {\n%s\n}\n",
		"client \"c\" {\n  # x\n%s\n",
		"backend_defaults {\n  username = \"x\n%s\n}\n",
		"shard \"s\" {\n  backend \"b\" {\n    address = \"x:99999\"\n%s\n  }\n}\n",
		"%s\n",
	}
	const rest = "listener \"x\" {\n  address = \"127.0.0.1:99999\"\n}\n"
	n := 0
	for _, format := range around {
		for _, body := range bodies {
			src := fmt.Sprintf(format, body) + rest
			cfg, diags := Parse(filepath.Join(dir, "test.hcl"), []byte(src))
			if len(diags) == 0 {
				t.Errorf("no problem found in:\n%s", src)
			}
			n += len(diags)
			shown := map[string]string{"%v": fmt.Sprintf("%v %+v", diags, cfg), "Error": diags.Error()}
			for _, color := range []bool{false, true} {
				var sb strings.Builder
				if err := WriteDiagnostics(&sb, diags, color); err != nil {
					t.Fatal(err)
				}
				shown[fmt.Sprintf("WriteDiagnostics, color %v", color)] = sb.String()
			}
			js, err := json.Marshal(Problems(diags))
			if err != nil {
				t.Fatal(err)
			}
			shown["JSON"] = string(js)
			for form, text := range shown {
				if strings.Contains(text, planted) {
					t.Errorf("%s shows the secret:\n%s\nof:\n%s", form, text, src)
				}
			}
		}
	}
	t.Logf("%d diagnostics", n)
}

// Whatever stands before and after a password, nothing shows it.
func FuzzSecrets(f *testing.F) {
	for _, before := range []string{"", "log {", "client \"c\" {", "client \"c", "client \"c\" {\n  password_file = ", "x = [", "x = <<EOT", "/*", "log { level = \"${"} {
		for _, after := range []string{"}", "x = 1", "\"", "]", "EOT", "*/", "}\"\n}"} {
			f.Add(before, after)
		}
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		src := before + "\n  password = \"hunter2\"\n" + after
		if strings.Contains(before+after, planted) {
			return
		}
		_, diags := Parse("fuzz.hcl", []byte(src))
		var sb strings.Builder
		if err := WriteDiagnostics(&sb, diags, false); err != nil {
			t.Fatal(err)
		}
		if shown := sb.String() + diags.Error() + fmt.Sprint(Problems(diags)); strings.Contains(shown, planted) {
			t.Errorf("%s\nshows the secret of:\n%s", shown, src)
		}
	})
}
