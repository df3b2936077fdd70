package config

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
)

// tlsDir returns a directory of certificates, good and bad.
func tlsDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	ca := certtest.NewCA(t, "ca")
	ca.Write(t, dir, "ca")
	ca.Issue(t, "localhost").Write(t, dir, "good")
	ca.Issue(t, "localhost").Write(t, dir, "other")
	ca.IssueExpired(t, "localhost").Write(t, dir, "expired")
	_, open := ca.Issue(t, "localhost").Write(t, dir, "open")
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"rubbish": "rubbish", "empty": "", "backends": "x"})
	return dir
}

const restOfTLS = `
client "c" {
  password = "{PLAIN}x"
}
`

func TestTLSFiles(t *testing.T) {
	dir := tlsDir(t)
	for name, src := range map[string]string{
		"listeners": `
listener "good" {
  address = "0.0.0.0:1"
  tls {
    cert_file      = "good.crt"
    key_file       = "good.key"
    client_ca_file = "ca.crt"
  }
}
listener "empty" {
  address = "0.0.0.0:2"
  tls { # ERROR: No cert_file # ERROR: No key_file
  }
}
listener "missing" {
  address = "0.0.0.0:3"
  tls {
    mode           = "yes" # ERROR: Wrong value of mode
    cert_file      = "none.crt" # ERROR: Cannot read the certificate file
    key_file       = "." # ERROR: Cannot read the key file
    client_ca_file = 1 # ERROR: Wrong value of client_ca_file
  }
}
listener "wrong" {
  address = "0.0.0.0:4"
  tls {
    cert_file      = "rubbish" # ERROR: Wrong content of the certificate file
    key_file       = "empty" # ERROR: Wrong content of the key file
    client_ca_file = "good.key" # ERROR: Wrong content of the CA file
    ca_file        = "ca.crt" # ERROR: Unknown attribute ca_file
  }
}
listener "exchanged" {
  address = "0.0.0.0:5"
  tls {
    cert_file = "good.key" # ERROR: Wrong content of the certificate file
    key_file  = "good.crt" # ERROR: Wrong content of the key file
  }
}
listener "mixed" {
  address = "0.0.0.0:6"
  tls {
    cert_file = "good.crt"
    key_file  = "other.key" # ERROR: Key and certificate do not fit
  }
}
listener "careless" {
  address = "0.0.0.0:7"
  tls {
    mode      = "starttls"
    cert_file = "open.crt"
    key_file  = "open.key" # WARNING: Key file open to all users
  }
  insecure_clear_text = true
}
listener "old" {
  address = "0.0.0.0:8"
  tls {
    cert_file = "expired.crt" # WARNING: Certificate has expired
    key_file  = "expired.key"
  }
}
listener "unix" {
  address = "unix:/run/x"
  tls { # ERROR: tls on a UNIX socket
    cert_file = "good.crt"
    key_file  = "good.key"
  }
}
listener "both" {
  address             = "0.0.0.0:9"
  insecure_clear_text = true # ERROR: insecure_clear_text where all is encrypted
  tls {
    mode      = "starttls-required"
    cert_file = "good.crt"
    key_file  = "good.key"
  }
}
shard "s" {
  backend "b" {
    address  = "10.0.0.1:1"
    password = "x"
  }
}
`,
		"backends": `
listener "main" {
  address = "127.0.0.1:1"
}
backend_defaults {
  password_file = "backends"
  tls {
    ca_file = "ca.crt" # ERROR: TLS is off
  }
}
shard "s" {
  backend "b1" {
    address = "10.0.0.1:1"
  }
  backend "b2" {
    address = "10.0.0.2:1"
  }
  backend "b3" {
    address = "10.0.0.3:1"
    tls {
      server_name = "mail.example" # ERROR: TLS is off
    }
  }
  backend "b4" {
    address = "10.0.0.4:1"
    tls {
      mode = "off"
    }
  }
  backend "b5" {
    address = "10.0.0.5:1"
    tls {
      mode        = "required" # ERROR: Wrong value of mode
      server_name = "mail.example:1" # ERROR: Wrong value of server_name
      pin         = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=" # ERROR: Wrong value of pin
      insecure_skip_verify = "true" # ERROR: Wrong value of insecure_skip_verify
    }
  }
  backend "b6" {
    address = "10.0.0.6:1"
    tls {
      mode      = "implicit"
      cert_file = "good.crt" # ERROR: No key_file
    }
  }
  backend "b7" {
    address = "10.0.0.7:1"
    tls {
      mode     = "starttls"
      key_file = "good.key" # ERROR: No cert_file
    }
  }
  backend "b8" {
    address = "10.0.0.8:1"
    tls {
      mode        = "starttls"
      cert_file   = "good.crt"
      key_file    = "other.key" # ERROR: Key and certificate do not fit
      server_name = "[2001:db8::1]" # ERROR: Wrong value of server_name
      key         = "x" # ERROR: Unknown attribute key
    }
  }
}
`,
	} {
		t.Run(name, func(t *testing.T) {
			src += restOfTLS
			_, diags := Parse(filepath.Join(dir, "test.hcl"), []byte(src))
			var got []string
			for _, p := range Problems(diags) {
				got = append(got, fmt.Sprintf("%3d %s: %s", p.Line, p.Severity, p.Summary))
				if p.Detail == "" {
					t.Errorf("%q has no remedy", p.Summary)
				}
			}
			slices.Sort(got)
			if diff := cmp.Diff(expected(src), got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			var b bytes.Buffer
			if err := WriteDiagnostics(&b, diags, false); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(b.String(), "***,") || strings.Contains(b.String(), "insecure_clear_text = ***") {
				t.Errorf("hides what is no secret:\n%s", &b)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	dir := tlsDir(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	write(t, dir, map[string]string{"test.hcl": `
listener "implicit" {
  address = "0.0.0.0:1"
  tls {
    cert_file = "good.crt"
    key_file  = "good.key"
  }
}
listener "starttls" {
  address             = "0.0.0.0:2"
  insecure_clear_text = true
  tls {
    mode           = "starttls"
    cert_file      = "good.crt"
    key_file       = "good.key"
    client_ca_file = "ca.crt"
  }
}
listener "none" {
  address = "127.0.0.1:3"
}
backend_defaults {
  password_file = "backends"
  tls {
    mode      = "implicit"
    ca_file   = "ca.crt"
    cert_file = "good.crt"
    key_file  = "good.key"
  }
}
shard "s" {
  backend "b1" {
    address = "10.0.0.1:1"
  }
  backend "b2" {
    address = "10.0.0.2:1"
    tls {
      server_name = "mail.example"
      cert_file   = "other.crt"
      key_file    = "other.key"
    }
  }
  backend "b3" {
    address = "10.0.0.3:1"
    tls {
      mode = "off"
    }
  }
}
` + restOfTLS})
	cfg := mustLoad(t, in("test.hcl"))
	listeners := []ListenerTLS{
		{Mode: TLSImplicit, CertFile: in("good.crt"), KeyFile: in("good.key")},
		{Mode: TLSStartTLS, CertFile: in("good.crt"), KeyFile: in("good.key"), ClientCAFile: in("ca.crt")},
		{},
	}
	for i, want := range listeners {
		if diff := cmp.Diff(want, cfg.Listeners[i].TLS); diff != "" || cfg.Listeners[i].InsecureClearText != (i == 1) {
			t.Errorf("listener %s: %s", cfg.Listeners[i].Name, diff)
		}
	}
	b1 := BackendTLS{Mode: TLSImplicit, CAFile: in("ca.crt"), CertFile: in("good.crt"), KeyFile: in("good.key")}
	b2, b3 := b1, b1
	b2.ServerName, b2.CertFile, b2.KeyFile = "mail.example", in("other.crt"), in("other.key")
	b3.Mode = TLSOff
	for i, want := range []BackendTLS{b1, b2, b3} {
		if diff := cmp.Diff(want, cfg.Shards[0].Backends[i].TLS); diff != "" {
			t.Errorf("backend b%d: %s", i+1, diff)
		}
	}
	if diff := diff(cfg, mustParse(t, string(revealed(t, cfg)))); diff != "" {
		t.Errorf("what was printed loads as another configuration:\n%s", diff)
	}
}
