package acceptance

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot/dovecottest"
)

// lookedAt is one backend in the output of check --connect --json.
type lookedAt struct {
	Backend            string
	Reached, Refused   bool
	Error              string
	Warnings           []string
	Protocol, Dovecot  string
	ConnectMS          float64 `json:"connect_ms"`
	TLSMS              float64 `json:"tls_ms"`
	GreetingMS         float64 `json:"greeting_ms"`
	LoginMS            float64 `json:"login_ms"`
	TLS                string
	CertificateExpires *time.Time `json:"certificate_expires"`
	Processes          int
	ProcessLimit       int    `json:"process_limit"`
	LimitError         string `json:"process_limit_error"`
}

// checkConnect runs check --connect, and returns its output and exit code.
func checkConnect(t *testing.T, config string, args ...string) (string, int) {
	t.Helper()
	binary, err := racy()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "proxy.hcl")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(binary, append([]string{"check", "--connect", "--config", path}, args...)...).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		return string(out), exit.ExitCode()
	}
	return string(out), 0
}

// TestCheckConnect looks at real backends in every state that an operator has
// to tell from the others.
func TestCheckConnect(t *testing.T) {
	t.Parallel()
	ca := certtest.NewCA(t, "tests")
	dir := t.TempDir()
	cert, key := ca.IssueExpired(t, "127.0.0.1").Write(t, dir, "server")
	caFile, _ := ca.Write(t, dir, "ca")
	port, err := dovecot.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	_, tlsPort, _ := net.SplitHostPort(port.Addr)
	old := dovecottest.Start(t, dovecot.Options{Name: "old", Config: fmt.Sprintf(`
ssl = yes
ssl_cert = <%s
ssl_key = <%s
service doveadm {
  inet_listener tls {
    address = 127.0.0.1
    port = %s
    ssl = yes
  }
}
`, cert, key, tlsPort)})
	current := dovecottest.Start(t, dovecot.Options{Name: "new", Version: dovecot.V24, ProcessLimit: 12})
	full := dovecottest.Start(t, dovecot.Options{Name: "full", ProcessLimit: 1})
	holder, err := doveadm.Dial(t.Context(), full.Addr, doveadm.ClientOptions{Password: full.Password, Minor: doveadm.MaxMinor})
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	frozen := dovecottest.Start(t, dovecot.Options{Name: "frozen"})
	if err := frozen.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	closed, err := dovecot.ReservePort()
	if err != nil {
		t.Fatal(err)
	}
	defer closed.Close()

	const silent = "timeouts {\n handshake = \"1s\"\n }"
	inTLS := func(more string) string { return "tls {\n mode = \"implicit\"\n " + more + "\n }" }
	backend := map[string]struct{ addr, password, more string }{
		"old":      {old.Addr, old.Password, ""},
		"new":      {current.Addr, current.Password, ""},
		"full":     {full.Addr, full.Password, silent},
		"frozen":   {frozen.Addr, frozen.Password, silent},
		"closed":   {closed.Addr, "x", ""},
		"stranger": {old.Addr, "wrong", ""},
		"expired":  {port.Addr, old.Password, inTLS(fmt.Sprintf("ca_file = %q", caFile))},
		"careless": {port.Addr, old.Password, inTLS("insecure_skip_verify = true")},
	}
	config := func(names ...string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "listener \"main\" {\n address = \"127.0.0.1:1\"\n}\nclient \"doveadm\" {\n password = \"{PLAIN}x\"\n}\nroute \"ring\" {}\n")
		for _, name := range names {
			fmt.Fprintf(&b, "shard \"s-%s\" {\n backend %q {\n address = %q\n password = %q\n %s\n }\n}\n",
				name, name, backend[name].addr, backend[name].password, backend[name].more)
		}
		return b.String()
	}

	out, code := checkConnect(t, config("old", "new", "full", "frozen", "closed", "stranger", "expired", "careless"), "--json")
	if code != 1 {
		t.Errorf("exit code %d", code)
	}
	var found struct {
		Valid    bool
		Backends []lookedAt
	}
	if err := json.Unmarshal([]byte(out), &found); err != nil || !found.Valid || len(found.Backends) != len(backend) {
		t.Fatalf("%v: %s", err, out)
	}
	for _, b := range found.Backends {
		var reached, refused bool
		errorText, warning := "", ""
		switch b.Backend {
		case "old":
			reached = true
		case "new":
			reached, warning = true, "pool.max_open takes 8 of the 12 processes (process_limit)"
		case "careless":
			reached, warning = true, "has expired"
		case "full", "frozen":
			errorText = "has it reached the process_limit of its service doveadm?"
		case "closed":
			errorText = "connection refused"
		case "stranger":
			refused, errorText = true, "refused the login"
		case "expired":
			refused, errorText = true, "renew the certificate"
		}
		if b.Reached != reached || b.Refused != refused || !strings.Contains(b.Error, errorText) || (b.Error == "") != reached {
			t.Errorf("%s: %+v", b.Backend, b)
		}
		if got := strings.Join(b.Warnings, "\n"); !strings.Contains(got, warning) || warning == "" && got != "" {
			t.Errorf("%s: warnings %q, want %q", b.Backend, got, warning)
		}
		if !reached {
			continue
		}
		protocol, dovecot, limit := "1.2", "2.3.9-2.3.21", 100
		if b.Backend == "new" {
			protocol, dovecot, limit = "1.3", "2.4", 12
		}
		if b.Protocol != protocol || b.Dovecot != dovecot || b.ProcessLimit != limit || b.Processes < 1 || b.LimitError != "" {
			t.Errorf("%s: %+v", b.Backend, b)
		}
		if b.ConnectMS <= 0 || b.GreetingMS <= 0 || b.LoginMS <= 0 {
			t.Errorf("%s: latency %+v", b.Backend, b)
		}
		if over := b.Backend == "careless"; over != strings.HasPrefix(b.TLS, "TLS 1.") || over != (b.TLSMS > 0) || over != (b.CertificateExpires != nil) {
			t.Errorf("%s: TLS %+v", b.Backend, b)
		}
	}

	// For people; and what a script asks for.
	out, code = checkConnect(t, config("new", "full"))
	if code != 75 {
		t.Errorf("exit code %d with a backend that does not greet", code)
	}
	for _, want := range []string{"REACHED", "new", "of 12", "FAILED", "Error: backend full: ", "Warning: backend new: "} {
		if !strings.Contains(out, want) {
			t.Errorf("the table has no %q:\n%s", want, out)
		}
	}
	t.Log("\n" + out)
	if _, code = checkConnect(t, config("old", "new")); code != 0 {
		t.Errorf("exit code %d with warnings only", code)
	}
	if strings.Contains(out, current.Password) {
		t.Error("the output has a password")
	}
	if err := frozen.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}
