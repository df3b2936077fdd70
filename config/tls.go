package config

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/doveadm-proxy/doveadm-proxy/internal/tlsfiles"
)

// The modes of TLS.
const (
	TLSOff              = "off"
	TLSImplicit         = "implicit"          // TLS from the first byte on
	TLSStartTLS         = "starttls"          // after STARTTLS
	TLSStartTLSRequired = "starttls-required" // of a listener: no login before STARTTLS
)

// ListenerTLS is the tls block of a listener. The files were usable when the
// configuration was loaded.
type ListenerTLS struct {
	Mode         string // empty: the listener has no TLS
	CertFile     string
	KeyFile      string
	ClientCAFile string // empty: clients need no certificate
}

func (t *ListenerTLS) block() block {
	return block{
		name: "tls", in: "listener",
		doc: "TLS on a listener. The files are read when the configuration is loaded, and again (at most once a second, when somebody connects) to see whether they have changed: " +
			"a renewed certificate is used without a restart or reload. If it cannot be used, the log says so and the last good one stays. " +
			"Certificates are served for TLS 1.2 and 1.3.",
		example: `
listener "network" {
  address = "0.0.0.0:24246"
  tls {
    cert_file = "/etc/doveadm-proxy/tls/proxy.crt"
    key_file  = "/etc/doveadm-proxy/tls/proxy.key"
  }
}`,
		attrs: []attr{
			{
				name: "mode", field: choice(&t.Mode, TLSImplicit, TLSStartTLS, TLSStartTLSRequired), def: `"implicit"`,
				doc: "`implicit`: TLS from the first byte on (`doveadm_ssl = ssl` of a Dovecot client, and its `doveadm_port` must not be 0, or it speaks clear text). " +
					"`starttls`: clients of Dovecot 2.3.9 and later may change to TLS before the login (`doveadm_ssl = starttls`); others log in in clear text, if `insecure_clear_text` or their address lets them. " +
					"`starttls-required`: nobody logs in before that.",
			},
			{
				name: "cert_file", field: certFile(&t.CertFile), required: true, example: `"/etc/doveadm-proxy/tls/proxy.crt"`,
				doc: "The certificate in PEM form, followed by those between it and its authority.",
			},
			{
				name: "key_file", field: keyFile(&t.KeyFile), required: true, example: `"/etc/doveadm-proxy/tls/proxy.key"`,
				doc: "Its private key in PEM form, without a passphrase. There is a warning if all users can read it.",
			},
			{
				name: "client_ca_file", field: caFile(&t.ClientCAFile), example: `"/etc/doveadm-proxy/tls/ca.crt"`,
				doc: "Authorities of client certificates, in PEM form. With it only clients with a certificate of one of them get in; they log in all the same.",
			},
		},
	}
}

// BackendTLS is the tls block of a backend.
type BackendTLS struct {
	Mode       string // TLSOff, TLSImplicit or TLSStartTLS
	CAFile     string // empty: the authorities of the system
	ServerName string // empty: the host of the address
	CertFile   string // our own certificate; empty: none
	KeyFile    string
	Pin        string // "sha256/" and the digest in base64; empty: any key

	// InsecureSkipVerify takes any certificate; only Pin is still looked at.
	InsecureSkipVerify bool
}

func (t *BackendTLS) block() block {
	return block{
		name: "tls", in: "backend",
		doc: "TLS on the connections to a backend. The backend's certificate is verified: it has to be signed by an authority that is known here, and to name the host. " +
			"The files are read again when they have changed, as those of a listener. Sessions are resumed where the backend lets them, which saves most of the work of a new connection: a Dovecot never does, because it has a process for each connection; what ends TLS before it (HAProxy, stunnel) does.",
		example: `
backend_defaults {
  tls {
    mode    = "implicit"
    ca_file = "/etc/doveadm-proxy/tls/ca.crt"
  }
}`,
		attrs: []attr{
			{
				name: "mode", field: choice(&t.Mode, TLSOff, TLSImplicit, TLSStartTLS), def: `"off"`,
				doc: "`implicit`: the backend's listener has `ssl = yes`. `starttls`: TLS on its ordinary listener, which Dovecot 2.3.9 and later can; one that cannot is not used.",
			},
			{
				name: "ca_file", field: caFile(&t.CAFile), example: `"/etc/doveadm-proxy/tls/ca.crt"`,
				doc: "Authorities that sign the certificates of backends, in PEM form. Without it: those of the system. A self-signed certificate is its own authority.",
			},
			{
				name: "server_name", field: serverName(&t.ServerName), example: `"mail1.example.com"`,
				doc: "The name or IP address that the certificate has to be for. Without it: the host of `address`.",
			},
			{
				name: "cert_file", field: certFile(&t.CertFile), example: `"/etc/doveadm-proxy/tls/proxy.crt"`,
				doc: "A certificate of the proxy's own, for backends that want one.",
			},
			{
				name: "key_file", field: keyFile(&t.KeyFile), example: `"/etc/doveadm-proxy/tls/proxy.key"`,
				doc: "Its private key, without a passphrase. It stands in the same block as `cert_file`.",
			},
			{
				name: "pin", field: pin(&t.Pin), example: `"sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="`,
				doc: "The SHA-256 of the public key that the certificate must have, besides all else. It is what this prints: " +
					"`openssl x509 -in CERT -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64`",
			},
			{
				name: "insecure_skip_verify", field: toggle(&t.InsecureSkipVerify), def: `false`,
				doc: "`true`: any certificate will do. Whoever can place himself between the proxy and the backend then gets the backend's password, which is as good as root. A `pin` is looked at all the same.",
			},
		},
	}
}

// own are the attributes of the block, without mode.
func (t *BackendTLS) own() []string {
	var names []string
	for _, a := range t.block().attrs[1:] {
		names = append(names, "tls."+a.name)
	}
	return names
}

// backendTLS looks at what a block says itself of TLS.
func (l *loader) backendTLS(t *BackendTLS, at *place) {
	cert, key := at.has("tls.cert_file"), at.has("tls.key_file")
	switch {
	case cert && key:
		l.keyPair(t.CertFile, t.KeyFile, at)
	case cert:
		l.errorf(at.of("tls.cert_file"), "No key_file", "A certificate is of no use without its private key. Write key_file beside it.")
	case key:
		l.errorf(at.of("tls.key_file"), "No cert_file", "A private key is of no use without its certificate. Write cert_file beside it.")
	}
}

// checkBackendTLS finds settings that have no effect because TLS is off, which
// nobody said.
func (l *loader) checkBackendTLS() {
	seen := map[hcl.Range]bool{}
	for _, b := range l.backends {
		own := b.value.TLS.own()
		if b.at.inherits("tls.mode") || !slices.ContainsFunc(own, b.at.inherits) {
			continue
		}
		at := b.at.of(own...)
		if !seen[at] {
			l.missing(at, "TLS is off", "Nothing is encrypted or verified until the block says so. Write in it mode = \"implicit\", mode = \"starttls\", or mode = \"off\" if that is meant.")
		}
		seen[at] = true
	}
}

// keyPair reports files that are good one by one but not together.
func (l *loader) keyPair(certFile, keyFile string, at *place) {
	cert, err := readFile(certFile)
	if err != nil {
		return // reported where it stands
	}
	key, err := readFile(keyFile)
	if err != nil || tlsfiles.CheckKey(key) != nil {
		return
	}
	chain, err := tlsfiles.ParseCertificates(cert)
	if err != nil {
		return
	}
	if _, err := tlsfiles.ParseKeyPair(cert, key); err != nil {
		l.errorf(at.of("tls.key_file"), "Key and certificate do not fit", "%s and %s: %v. Write the key for which the certificate was issued; the certificate comes before those of its authorities in the file.", certFile, keyFile, err)
		return
	}
	switch now := time.Now(); {
	case now.After(chain[0].NotAfter):
		l.warnf(at.of("tls.cert_file"), "Certificate has expired", "%s was valid until %s: the other side will refuse it. Renew it.", certFile, day(chain[0].NotAfter))
	case now.Before(chain[0].NotBefore):
		l.warnf(at.of("tls.cert_file"), "Certificate is not valid yet", "%s will be valid from %s on: until then the other side will refuse it.", certFile, day(chain[0].NotBefore))
	}
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// pemFile is the path of a file that check accepts.
func pemFile(to *string, what string, check func(content []byte) error, then func(path string) *problem) field {
	f := text(to)
	f.takes = "a path"
	f.set = func(v value) *problem {
		var path string
		if p := text(&path).set(v); p != nil {
			return p
		}
		path, p := resolve(path, v.dir)
		if p != nil {
			return p
		}
		content, err := readFile(path)
		if err != nil {
			return &problem{summary: "Cannot read the " + what, detail: reason(err) + " Check the path, and that the user who runs this may read it."}
		}
		if err := check(content); err != nil {
			return &problem{summary: "Wrong content of the " + what, detail: fmt.Sprintf("%s: %v.", path, err)}
		}
		*to = path
		return then(path)
	}
	return f
}

func certFile(to *string) field {
	return pemFile(to, "certificate file", func(b []byte) error {
		_, err := tlsfiles.ParseCertificates(b)
		return err
	}, fine)
}

func caFile(to *string) field {
	return pemFile(to, "CA file", func(b []byte) error {
		_, err := tlsfiles.ParseCAs(b)
		return err
	}, fine)
}

func keyFile(to *string) field {
	return pemFile(to, "key file", tlsfiles.CheckKey, func(path string) *problem { return readableByAll("Key", path) })
}

func fine(string) *problem { return nil }

// pin is the digest of a public key.
func pin(to *string) field {
	return field{
		takes: "`sha256/` and a digest in base64",
		set: func(v value) *problem {
			s, ok := v.is.(string)
			if !ok {
				return wrong("")
			}
			if _, err := tlsfiles.ParsePin(s); err != nil {
				return wrong(strings.ToUpper(err.Error()[:1]) + err.Error()[1:] + ".")
			}
			*to = s
			return nil
		},
		get: func() cty.Value { return optional(*to) },
	}
}

// serverName is a host name or an IP address.
func serverName(to *string) field {
	return field{
		takes: "a host name or an IP address",
		set: func(v value) *problem {
			s, ok := v.is.(string)
			if !ok || !isHost(s) {
				return wrong("It stands without a port and without brackets.")
			}
			*to = s
			return nil
		},
		get: func() cty.Value { return optional(*to) },
	}
}
