package lookup

import (
	"crypto/tls"
	"fmt"
	"os"

	"github.com/doveadm-proxy/doveadm-proxy/internal/tlsfiles"
)

// TLS is how the connections to a source are verified, with the authorities that
// are in caFile now; those of the system if it is empty.
func TLS(host, caFile string) (*tls.Config, error) {
	c := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return c, nil
	}
	content, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	if c.RootCAs, err = tlsfiles.ParseCAs(content); err != nil {
		return nil, fmt.Errorf("%s: %w", caFile, err)
	}
	return c, nil
}
