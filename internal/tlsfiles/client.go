package tlsfiles

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// Client is how connections to one server are verified.
type Client struct {
	ServerName string // what the server's certificate has to be for: a name or an IP address
	CAFile     string // authorities of the server's certificate; empty: those of the system
	CertFile   string // our own certificate; empty: none
	KeyFile    string

	// Pin is the public key that the server's certificate must have, in the form
	// of ParsePin; empty: any. It is looked at whatever else is.
	Pin string

	// InsecureSkipVerify takes any certificate of any name.
	InsecureSkipVerify bool
}

// sessions is how many sessions are remembered, of which there is one for each
// server name: of the last connection.
const sessions = 1

// NewClient returns the TLS configuration of connections to one server, with
// the memory that lets them resume their sessions. When a file changes, that
// memory is gone with what it rests on.
func NewClient(c Client, log hclog.Logger) *Files {
	return newFiles(log, c.build, c.CAFile, c.CertFile, c.KeyFile)
}

func (c Client) build(contents map[string][]byte) (*tls.Config, error) {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         c.ServerName,
		NextProtos:         []string{ALPN},
		InsecureSkipVerify: c.InsecureSkipVerify,
		ClientSessionCache: tls.NewLRUClientSessionCache(sessions),
	}
	var err error
	if c.CAFile != "" {
		if config.RootCAs, err = ParseCAs(contents[c.CAFile]); err != nil {
			return nil, fmt.Errorf("%s: %w", c.CAFile, err)
		}
	}
	if c.CertFile != "" {
		pair, err := ParseKeyPair(contents[c.CertFile], contents[c.KeyFile])
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", c.CertFile, c.KeyFile, err)
		}
		config.Certificates = []tls.Certificate{pair}
		// Sent also where the server's list of authorities has none that we see
		// to be ours: its refusal says more than a missing certificate.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	if c.Pin != "" {
		pin, err := ParsePin(c.Pin)
		if err != nil {
			return nil, err
		}
		// Unlike VerifyPeerCertificate it is called for resumed sessions, too.
		config.VerifyConnection = func(s tls.ConnectionState) error { return pin.verify(s.PeerCertificates) }
	}
	return config, nil
}

// Pin is the SHA-256 of a certificate's SubjectPublicKeyInfo (as in RFC 7469).
// It survives a renewal of the certificate for the same key.
type Pin [sha256.Size]byte

const pinPrefix = "sha256/"

// ParsePin reads a pin of the form sha256/BASE64.
func ParsePin(s string) (Pin, error) {
	data, ok := strings.CutPrefix(s, pinPrefix)
	if !ok {
		return Pin{}, errors.New("a pin begins with " + pinPrefix)
	}
	var pin Pin
	b, err := base64.StdEncoding.DecodeString(data)
	copy(pin[:], b)
	if err != nil || len(b) != len(pin) || pin.String() != s {
		return Pin{}, fmt.Errorf("behind %s stand the %d bytes of a SHA-256 in base64, %d characters", pinPrefix, len(pin), base64.StdEncoding.EncodedLen(len(pin)))
	}
	return pin, nil
}

func (p Pin) String() string { return pinPrefix + base64.StdEncoding.EncodeToString(p[:]) }

// PinError is a server whose key is not the pinned one.
type PinError struct {
	Got Pin
}

func (e *PinError) Error() string {
	return "its public key is " + e.Got.String() + ", which is not the pinned one"
}

func (p Pin) verify(chain []*x509.Certificate) error {
	if got := Pin(sha256.Sum256(chain[0].RawSubjectPublicKeyInfo)); got != p {
		return &PinError{got}
	}
	return nil
}
