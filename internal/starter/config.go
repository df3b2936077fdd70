package starter

import (
	"fmt"
	"strings"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// Where the files are, below the directory of the configuration.
const (
	ConfigFile    = "proxy.hcl"
	MapFile       = "users.map"
	BackendSecret = "secrets/backends"
)

// ClientSecret is where the hash of the client's password is.
func (s Site) ClientSecret() string { return "secrets/" + s.normal().Client }

// NeedsMap says whether the configuration has a map of users. With a director's
// hash it has one for those who will be moved, also if nobody has been yet.
func (s Site) NeedsMap() bool {
	s = s.normal()
	return s.Users == ByMap || s.Users == ByDirector || len(s.Map) > 0
}

// Config returns the configuration, with a comment on everything in it. Its
// files are named by relative paths: it may be moved with its directory.
func (s Site) Config() string {
	s = s.normal()
	var w writer
	w.line("# doveadm-proxy: where clients connect, who they are, and which backend has which user.")
	for _, from := range s.From {
		w.line("# Made from %s.", from)
	}
	w.line("#")
	w.line("#   doveadm-proxy check --config FILE --connect    is it right, and can all backends be reached?")
	w.line("#   doveadm-proxy route --config FILE USER         where does a user go, and why?")
	w.line("#")
	w.line("# Every block and attribute: doveadm-proxy.hcl(5). Relative paths start beside this file.")
	for _, note := range s.Notes {
		w.line("")
		w.comment("TO DO: " + note)
	}

	w.line("")
	w.comment("Where clients connect, as they do to a Dovecot server: doveadm ... -S " + s.Listen)
	w.line("listener \"main\" {")
	w.line("  address = %s", quote(s.Listen))
	switch {
	case s.Cert != "":
		w.line("")
		w.line("  # Clients change to TLS before they log in (doveadm_ssl = starttls).")
		w.line("  tls {")
		w.line("    cert_file = %s", quote(s.Cert))
		w.line("    key_file  = %s", quote(s.Key))
		w.line("    mode      = \"starttls-required\"")
		w.line("  }")
	case s.Clear && !config.Loopback(s.Listen):
		w.line("")
		w.line("  # Passwords cross the network as they are: nobody else may listen to it.")
		w.line("  insecure_clear_text = true")
	}
	w.line("}")

	w.line("")
	w.comment("Who may log in. The file holds a hash, made by \"doveadm-proxy hash\". Give each panel and script a block and a password of " +
		"its own, with the rights that it needs (allow): the log tells them apart then, and one of them can be changed alone.")
	if s.Client == "doveadm" {
		w.comment("\"doveadm\" is the name that the doveadm command logs in with.")
	}
	w.line("client %s {", quote(s.Client))
	w.line("  password_file = %s", quote(s.ClientSecret()))
	w.line("}")

	w.line("")
	w.comment("What the backends have in common. The file holds their doveadm_password.")
	w.line("backend_defaults {")
	w.line("  password_file = %s", quote(BackendSecret))
	if s.Username != "" && s.Username != "doveadm" {
		w.line("  username      = %s", quote(s.Username))
	}
	if s.TLS != "off" {
		w.line("")
		w.line("  tls {")
		if s.CA == "" {
			w.line("    mode = %s", quote(s.TLS))
		} else {
			w.line("    mode    = %s", quote(s.TLS))
			w.line("    ca_file = %s", quote(s.CA))
		}
		w.line("  }")
	}
	w.line("")
	w.line("  # Every open connection is one process of the backend, which has 100 in all.")
	w.line("  pool {")
	w.line("    max_open = 8")
	w.line("  }")
	w.line("")
	w.line("  # A backend is looked at also when nobody uses it.")
	w.line("  health_check {")
	w.line("    interval = \"10s\"")
	w.line("  }")
	w.line("}")

	for i, shard := range s.Shards {
		w.line("")
		if i == 0 {
			w.comment("A shard is where some of the users have their mail: one backend, or several that serve the same mail.")
		}
		if shard.Comment != "" {
			w.comment(shard.Comment)
		}
		w.line("shard %s {", quote(shard.Name))
		for j, b := range shard.Backends {
			if j > 0 {
				w.line("")
			}
			w.line("  backend %s {", quote(b.Name))
			w.line("    address = %s", quote(b.Address))
			w.line("  }")
		}
		w.line("}")
	}

	w.line("")
	if s.Users == OneShard && len(s.Routes) == 0 && !s.NeedsMap() {
		w.comment("One shard gets every user: no route is needed.")
	} else {
		w.comment("Which shard a user is on. Routes are asked in this order; the first that names a shard decides.")
	}
	if s.NeedsMap() {
		w.line("")
		if s.Users == ByMap {
			w.comment("\"user shard\" a line. Users who are not in it are unknown (-NOUSER): nothing is guessed.")
		} else {
			w.comment("Users who are elsewhere than the routes below would say, \"user shard\" a line.")
		}
		w.line("route \"file\" {")
		w.line("  path = %s", quote(MapFile))
		w.line("}")
	}
	for _, r := range s.Routes {
		w.line("")
		if r.Comment != "" {
			w.comment(r.Comment)
		}
		w.text(r.Text)
	}
	if s.Users == ByHash {
		w.line("")
		w.comment("Everybody (else), spread evenly by a hash of the name.")
		w.line("route \"ring\" {}")
	}

	w.line("")
	w.comment("For \"doveadm-proxy status\", \"backends\", \"drain\" and the like, as root.")
	w.line("admin {}")
	return w.String()
}

// UserMap returns the map of users.
func (s Site) UserMap() string {
	s = s.normal()
	var w writer
	w.line("# Which shard a user is on: \"user shard\" a line, \"@domain shard\" for the rest of a domain.")
	var names []string
	for _, shard := range s.Shards {
		var backends []string
		for _, b := range shard.Backends {
			backends = append(backends, b.Name+" "+b.Address)
		}
		names = append(names, fmt.Sprintf("%s (%s)", shard.Name, strings.Join(backends, ", ")))
	}
	w.comment("Shards: " + strings.Join(names, "; "))
	for _, row := range s.Map {
		w.line("%s %s", row.User, row.Shard)
	}
	return w.String()
}

// quote writes a text as HCL does.
func quote(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "${", "$${", "%{", "%%{").Replace(s)
	return `"` + s + `"`
}

// writer writes lines and comments of at most about 80 characters.
type writer struct{ strings.Builder }

func (w *writer) line(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }

func (w *writer) text(s string) { w.WriteString(strings.TrimSpace(s) + "\n") }

func (w *writer) comment(text string) {
	for paragraph := range strings.SplitSeq(text, "\n") {
		line := "#"
		for word := range strings.FieldsSeq(paragraph) {
			if len(line)+1+len(word) > 80 && line != "#" {
				w.line("%s", line)
				line = "#"
			}
			line += " " + word
		}
		w.line("%s", line)
	}
}
