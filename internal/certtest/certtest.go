// Package certtest makes certificates for tests, each for the occasion.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is a certificate authority.
type CA struct {
	*Pair
}

// Pair is a certificate and its private key.
type Pair struct {
	Leaf            *x509.Certificate
	CertPEM, KeyPEM []byte
	key             *ecdsa.PrivateKey
}

// NewCA makes an authority of that name.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	return &CA{issue(t, nil, &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageCertSign,
	})}
}

// Issue makes a certificate for servers and clients with these names, which
// may be IP addresses. The first is its common name, too. It is valid at any
// time, that of a testing/synctest bubble included.
func (ca *CA) Issue(t testing.TB, names ...string) *Pair {
	t.Helper()
	return issue(t, ca, template(names))
}

// IssueExpired is Issue for a certificate that is not valid any more.
func (ca *CA) IssueExpired(t testing.TB, names ...string) *Pair {
	t.Helper()
	c := template(names)
	c.NotAfter = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	return issue(t, ca, c)
}

func template(names []string) *x509.Certificate {
	c := &x509.Certificate{
		Subject:     pkix.Name{CommonName: names[0]},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			c.IPAddresses = append(c.IPAddresses, ip.AsSlice())
		} else {
			c.DNSNames = append(c.DNSNames, name)
		}
	}
	return c
}

// issue signs c by ca, or by itself if that is nil.
func issue(t testing.TB, ca *CA, c *x509.Certificate) *Pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	c.NotBefore = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	signer, signingKey := c, key
	if ca != nil {
		signer, signingKey = ca.Leaf, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, signer, key.Public(), signingKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &Pair{
		Leaf:    leaf,
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
		key:     key,
	}
}

// Pool holds the authority alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	return pool
}

// TLS returns the pair as package tls has it.
func (p *Pair) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.Leaf.Raw}, PrivateKey: p.key, Leaf: p.Leaf}
}

// Pin is the digest of the public key, in the form of a configuration.
func (p *Pair) Pin() string {
	sum := sha256.Sum256(p.Leaf.RawSubjectPublicKeyInfo)
	return "sha256/" + base64.StdEncoding.EncodeToString(sum[:])
}

// Write writes the pair as name.crt, which all users may read, and name.key.
func (p *Pair) Write(t testing.TB, dir, name string) (certFile, keyFile string) {
	t.Helper()
	certFile, keyFile = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	for path, file := range map[string]struct {
		content []byte
		mode    os.FileMode
	}{certFile: {p.CertPEM, 0o644}, keyFile: {p.KeyPEM, 0o600}} {
		if err := os.WriteFile(path, file.content, file.mode); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}
