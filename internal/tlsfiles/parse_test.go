package tlsfiles_test

import (
	"bytes"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"github.com/doveadm-proxy/doveadm-proxy/internal/certtest"
	"github.com/doveadm-proxy/doveadm-proxy/internal/tlsfiles"
)

func TestParseKeyPair(t *testing.T) {
	ca := certtest.NewCA(t, "ca")
	pair, other := ca.Issue(t, "localhost"), ca.Issue(t, "localhost")
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})
	traditional := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: []byte("x")})
	rubbish := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})
	for name, tc := range map[string]struct {
		cert, key []byte
		want      string
	}{
		"pair":                 {pair.CertPEM, pair.KeyPEM, ""},
		"chain":                {slices.Concat(pair.CertPEM, ca.CertPEM), pair.KeyPEM, ""},
		"one file":             {slices.Concat(pair.KeyPEM, pair.CertPEM), slices.Concat(pair.KeyPEM, pair.CertPEM), ""},
		"text around":          {slices.Concat([]byte("# from the CA\n"), pair.CertPEM), slices.Concat(pair.KeyPEM, []byte("\n")), ""},
		"authority first":      {slices.Concat(ca.CertPEM, pair.CertPEM), pair.KeyPEM, "private key does not match public key"},
		"another key":          {pair.CertPEM, other.KeyPEM, "private key does not match public key"},
		"exchanged":            {pair.KeyPEM, pair.CertPEM, "certificate: there is no certificate in it"},
		"no key":               {pair.CertPEM, pair.CertPEM, "key: there is no private key in it"},
		"empty key":            {pair.CertPEM, nil, "key: there is no PEM block in it"},
		"empty certificate":    {nil, pair.KeyPEM, "certificate: there is no PEM block in it"},
		"DER":                  {pair.Leaf.Raw, pair.KeyPEM, "certificate: there is no PEM block in it"},
		"broken certificate":   {rubbish, pair.KeyPEM, "certificate: PEM block 1 is a certificate that cannot be read"},
		"broken chain":         {slices.Concat(pair.CertPEM, rubbish), pair.KeyPEM, "certificate: PEM block 2 is a certificate that cannot be read"},
		"cut off":              {pair.CertPEM[:len(pair.CertPEM)/2], pair.KeyPEM, "certificate: there is no PEM block in it"},
		"passphrase":           {pair.CertPEM, encrypted, "encrypted with a passphrase"},
		"passphrase, old form": {pair.CertPEM, traditional, "encrypted with a passphrase"},
	} {
		_, err := tlsfiles.ParseKeyPair(tc.cert, tc.key)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), "BEGIN PRIVATE KEY") != strings.Contains(tc.want, "no private key") {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
}

func TestParseCAs(t *testing.T) {
	a, b := certtest.NewCA(t, "a"), certtest.NewCA(t, "b")
	pool, err := tlsfiles.ParseCAs(slices.Concat(a.CertPEM, b.CertPEM))
	want := a.Pool()
	want.AddCert(b.Leaf)
	if err != nil || !pool.Equal(want) {
		t.Errorf("got %v, %v", pool, err)
	}
	// One that cannot be read is not passed over: its servers would be refused.
	if _, err := tlsfiles.ParseCAs(append(bytes.Clone(a.CertPEM), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})...)); err == nil {
		t.Error("an unreadable authority was passed over")
	}
}

func TestParsePin(t *testing.T) {
	pair := certtest.NewCA(t, "ca").Issue(t, "localhost")
	pin, err := tlsfiles.ParsePin(pair.Pin())
	if err != nil || pin.String() != pair.Pin() {
		t.Errorf("%v is read as %v, %v", pair.Pin(), pin, err)
	}
	for _, bad := range []string{"", "sha256/", "sha1/xxxx", pair.Pin()[len("sha256/"):], pair.Pin()[:len(pair.Pin())-1], pair.Pin() + "=", "sha256/AAAA", pair.Pin() + "\n", strings.ToUpper(pair.Pin())} {
		if pin, err := tlsfiles.ParsePin(bad); err == nil {
			t.Errorf("%q is read as %v", bad, pin)
		}
	}
}

// Whatever is in a file, it is read or refused.
func FuzzParse(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"), []byte("-----BEGIN EC PARAMETERS-----\nMA==\n-----END EC PARAMETERS-----\n"), "sha256/")
	f.Add([]byte("-----BEGIN X-----\nProc-Type: 4,ENCRYPTED\n\nMA==\n-----END X-----\n"), []byte("-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n"), "sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
	f.Fuzz(func(t *testing.T, cert, key []byte, text string) {
		pair, err := tlsfiles.ParseKeyPair(cert, key)
		if err == nil && pair.Leaf == nil {
			t.Error("a pair without its certificate")
		}
		if pool, err := tlsfiles.ParseCAs(cert); err == nil && pool == nil {
			t.Error("no authorities and no error")
		}
		if pin, err := tlsfiles.ParsePin(text); err == nil && pin.String() != text {
			t.Errorf("%q is read as %v", text, pin)
		}
	})
}
