package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certs is an authority and what it has signed, as files in a directory.
type certs struct {
	dir  string
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey // of all of them
	pool *x509.CertPool
}

func newCerts(dir string) (*certs, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := &certs{dir: dir, key: key, pool: x509.NewCertPool()}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := c.write("key.pem", "PRIVATE KEY", keyDER); err != nil {
		return nil, err
	}
	ca := &x509.Certificate{
		Subject: pkix.Name{CommonName: "chaos"}, SerialNumber: big.NewInt(1),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		return nil, err
	}
	if c.ca, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	c.pool.AddCert(c.ca)
	return c, errors.Join(
		c.write("ca.pem", "CERTIFICATE", der),
		c.issue("good.pem", time.Now().Add(24*time.Hour)),
		c.issue("expired.pem", time.Now().Add(-time.Minute)),
	)
}

// issue writes a certificate for 127.0.0.1.
func (c *certs) issue(name string, notAfter time.Time) error {
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		Subject: pkix.Name{CommonName: "127.0.0.1"}, SerialNumber: big.NewInt(notAfter.Unix()),
		NotBefore: notAfter.Add(-48 * time.Hour), NotAfter: notAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, c.ca, c.key.Public(), c.key)
	if err != nil {
		return err
	}
	return c.write(name, "CERTIFICATE", der)
}

func (c *certs) write(name, kind string, der []byte) error {
	return os.WriteFile(c.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

func (c *certs) path(name string) string { return filepath.Join(c.dir, name) }

// use makes target a copy of one of the certificates.
func (c *certs) use(name, target string) error {
	text, err := os.ReadFile(c.path(name))
	if err != nil {
		return err
	}
	return os.WriteFile(c.path(target), text, 0o600)
}
