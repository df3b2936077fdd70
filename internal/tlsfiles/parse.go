package tlsfiles

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const (
	certificateBlock = "CERTIFICATE"
	noPEM            = "there is no PEM block in it (-----BEGIN ...-----)"
)

// ParseCertificates reads the certificates of a PEM file. It wants at least
// one and passes over blocks of other kinds.
func ParseCertificates(data []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	blocks := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		blocks++
		if block.Type != certificateBlock {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d is a certificate that cannot be read: %w", blocks, err)
		}
		all = append(all, c)
	}
	switch {
	case blocks == 0:
		return nil, errors.New(noPEM)
	case len(all) == 0:
		return nil, errors.New("there is no certificate in it (-----BEGIN CERTIFICATE-----)")
	}
	return all, nil
}

// ParseCAs reads the authorities of a PEM file.
func ParseCAs(data []byte) (*x509.CertPool, error) {
	all, err := ParseCertificates(data)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range all {
		pool.AddCert(c)
	}
	return pool, nil
}

// CheckKey finds out whether there is a private key in a PEM file that can be
// used without a passphrase.
func CheckKey(data []byte) error {
	blocks := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		blocks++
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return errors.New(`the private key is encrypted with a passphrase, which nobody is there to type: write it without one ("openssl pkey -in OLD -out NEW")`)
		case block.Type == "PRIVATE KEY", strings.HasSuffix(block.Type, " PRIVATE KEY"):
			return nil
		}
	}
	if blocks == 0 {
		return errors.New(noPEM)
	}
	return errors.New("there is no private key in it (-----BEGIN PRIVATE KEY-----)")
}

// ParseKeyPair reads a certificate, with those between it and its authority,
// and its private key. Both may be in one file.
func ParseKeyPair(cert, key []byte) (tls.Certificate, error) {
	if _, err := ParseCertificates(cert); err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate: %w", err)
	}
	if err := CheckKey(key); err != nil {
		return tls.Certificate{}, fmt.Errorf("key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, errors.New(strings.TrimPrefix(err.Error(), "tls: "))
	}
	return pair, nil
}

// names are those that a certificate is for.
func names(c *x509.Certificate) string {
	all := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return c.Subject.CommonName
	}
	return strings.Join(all, " ")
}
