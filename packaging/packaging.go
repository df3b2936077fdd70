// Package packaging holds what the Debian package and the RPM have besides the
// program.
package packaging

import _ "embed"

// DefaultConfig is the configuration that the packages install. "doveadm-proxy
// init" may replace it as long as it is unchanged.
//
//go:embed proxy.hcl
var DefaultConfig string
