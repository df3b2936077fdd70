package main

import (
	"cmp"
	"os"

	"github.com/spf13/cobra"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/internal/admin"
)

// accessFlags adds the flags that say where the admin endpoint is and who asks.
func (c *control) accessFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.access.Address, "admin", "unix:"+config.AdminSocket, "`ADDRESS` of the daemon's admin endpoint: unix:/path, host:port or https://host:port")
	f.StringVar(&c.access.User, "admin-user", "", "`NAME` of the user of the admin endpoint whose password is in --admin-secret-file")
	f.StringVar(&c.access.SecretFile, "admin-secret-file", "", "`FILE` with that password, or without a name a token")
	f.StringVar(&c.access.CAFile, "admin-ca-file", "", "`FILE` with the authorities of the endpoint's certificate, instead of those of the system")
	f.StringVar(&c.access.CertFile, "admin-cert-file", "", "`FILE` with a client certificate")
	f.StringVar(&c.access.KeyFile, "admin-key-file", "", "`FILE` with the key of the client certificate")
	c.named = func() bool { return f.Changed("admin") }
}

// client returns a client of the endpoint. What no flag says is in the environment:
// for --admin-user, in DOVEADM_PROXY_ADMIN_USER. Of that, only what the address
// has a use for counts.
func (c *control) client() (*admin.Client, error) {
	const environment = "DOVEADM_PROXY_ADMIN"
	a := c.access
	if !c.named() {
		a.Address = cmp.Or(os.Getenv(environment), a.Address)
	}
	from := func(to *string, name string) { *to = cmp.Or(*to, os.Getenv(environment+name)) }
	if !a.Socket() {
		from(&a.User, "_USER")
		from(&a.SecretFile, "_SECRET_FILE")
	}
	if a.TLS() {
		from(&a.CAFile, "_CA_FILE")
		from(&a.CertFile, "_CERT_FILE")
		from(&a.KeyFile, "_KEY_FILE")
	}
	return admin.NewClient(a)
}
