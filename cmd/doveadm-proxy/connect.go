package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/doveadm-proxy/doveadm-proxy/config"
	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/pool"
)

const (
	// maxProbes is how many backends are looked at at the same time.
	maxProbes = 16
	// renewBefore is the rest of a certificate's time that is worth a warning.
	renewBefore = 14 * 24 * time.Hour
)

// connected is what check --connect tells of a backend.
type connected struct {
	Shard    string   `json:"shard"`
	Backend  string   `json:"backend"`
	Address  string   `json:"address"`
	Reached  bool     `json:"reached"`         // and logged in
	Error    string   `json:"error,omitempty"` // why not
	Refused  bool     `json:"refused"`         // trying again does not help
	Warnings []string `json:"warnings"`

	Protocol   string  `json:"protocol,omitempty"`
	Dovecot    string  `json:"dovecot,omitempty"` // the releases that speak this protocol
	ConnectMS  float64 `json:"connect_ms"`
	TLSMS      float64 `json:"tls_ms"`
	GreetingMS float64 `json:"greeting_ms"`
	LoginMS    float64 `json:"login_ms"`

	TLS                string     `json:"tls,omitempty"`
	CertificateExpires *time.Time `json:"certificate_expires,omitempty"`

	Processes    int    `json:"processes"`                     // of the backend's service doveadm, with the one for this check
	ProcessLimit int    `json:"process_limit"`                 // 0: not known
	LimitError   string `json:"process_limit_error,omitempty"` // why not
}

// connect looks at all backends. None of them holds up the others.
func connect(ctx context.Context, cfg *config.Config) []connected {
	var all []connected
	var backends []config.Backend
	for _, s := range cfg.Shards {
		for _, b := range s.Backends {
			all = append(all, connected{Shard: s.Name, Backend: b.Name, Address: b.Address, Warnings: []string{}})
			backends = append(backends, b)
		}
	}
	var g errgroup.Group
	g.SetLimit(maxProbes)
	for i := range all {
		g.Go(func() error {
			all[i].tell(backends[i], pool.Look(ctx, backends[i]))
			return nil
		})
	}
	g.Wait()
	return all
}

// tell puts in what a probe of b found.
func (c *connected) tell(b config.Backend, p *pool.Probe) {
	c.ConnectMS, c.TLSMS = inMS(p.Connect), inMS(p.TLS)
	if s := p.Session; s != nil {
		c.TLS = tls.VersionName(s.Version)
		expires := s.PeerCertificates[0].NotAfter.UTC()
		c.CertificateExpires = &expires
		if rest := time.Until(expires); rest < 0 {
			c.warn("its certificate has expired at %s, and is not verified: renew it", expires.Format(time.RFC3339))
		} else if rest < renewBefore {
			c.warn("its certificate expires at %s, in %.0f hours: renew it", expires.Format(time.RFC3339), rest.Hours())
		}
	}
	if p.Err != nil {
		c.Error, c.Refused = p.Err.Error(), p.Refused()
		return
	}
	c.Reached = true
	c.Protocol, c.Dovecot = fmt.Sprintf("1.%d", p.Minor), releases(p.Minor)
	c.GreetingMS, c.LoginMS = inMS(p.Greeting), inMS(p.Login)
	c.Processes, c.ProcessLimit = p.Processes, p.Limit
	if p.LimitErr != nil {
		c.LimitError = p.LimitErr.Error()
		c.warn("its process_limit is not known (%v): it has to be above max_open, %d", p.LimitErr, b.Pool.MaxOpen)
		return
	}
	c.judge(b.Pool.MaxOpen)
}

// judge compares the connections that the pool may open with the processes
// that the backend may have for them.
func (c *connected) judge(wanted int) {
	switch {
	case wanted >= c.ProcessLimit:
		c.warn("pool.max_open takes %d connections, but its service doveadm has process_limit %d, for its own administrators too: lower max_open, or raise process_limit",
			wanted, c.ProcessLimit)
	case 2*wanted >= c.ProcessLimit:
		c.warn("pool.max_open takes %d of the %d processes (process_limit) of its service doveadm: a second proxy, or a restart of this one, may double that: lower max_open, or raise process_limit",
			wanted, c.ProcessLimit)
	}
	if c.Processes*10 >= c.ProcessLimit*9 {
		c.warn("%d of the %d processes (process_limit) of its service doveadm are in use: raise process_limit", c.Processes, c.ProcessLimit)
	}
}

func (c *connected) warn(format string, args ...any) {
	c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...))
}

func inMS(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// releases are those of Dovecot that speak a version of the protocol. A server
// does not say more.
func releases(minor doveadm.Minor) string {
	switch minor {
	case 0:
		return "2.0-2.2.32"
	case 1:
		return "2.2.33-2.3.8"
	case 2:
		return "2.3.9-2.3.21"
	case 3:
		return "2.4"
	}
	return "above 2.4.4"
}

// verdict is the exit code of check --connect: 1 where a backend says no, 75
// where one cannot be reached now.
func verdict(all []connected) error {
	code := exitOK
	for _, c := range all {
		switch {
		case c.Reached:
		case c.Refused:
			code = exitNo
		case code == exitOK:
			code = exitTempFail
		}
	}
	if code == exitOK {
		return nil
	}
	return &exitError{code: code}
}

// writeConnected prints the table, and below it what is wrong.
func writeConnected(w io.Writer, all []connected) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SHARD\tBACKEND\tADDRESS\tREACHED\tPROTOCOL\tDOVECOT\tCONNECT\tTLS\tGREETING\tLOGIN\tTLS VERSION\tCERTIFICATE UNTIL\tPROCESSES")
	for _, c := range all {
		if !c.Reached {
			fmt.Fprintf(t, "%s\t%s\t%s\tFAILED\t-\t-\t-\t-\t-\t-\t-\t-\t-\n", c.Shard, c.Backend, c.Address)
			continue
		}
		inTLS, until, processes := "-", "-", "-"
		if c.CertificateExpires != nil {
			inTLS, until = fmt.Sprintf("%.1f ms", c.TLSMS), c.CertificateExpires.Format(time.DateOnly)
		}
		if c.ProcessLimit > 0 {
			processes = fmt.Sprintf("%d of %d", c.Processes, c.ProcessLimit)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\tok\t%s\t%s\t%.1f ms\t%s\t%.1f ms\t%.1f ms\t%s\t%s\t%s\n", c.Shard, c.Backend, c.Address,
			c.Protocol, c.Dovecot, c.ConnectMS, inTLS, c.GreetingMS, c.LoginMS, cmp.Or(c.TLS, "-"), until, processes)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, c := range all {
		if c.Error != "" {
			fmt.Fprintf(w, "Error: backend %s: %s\n", c.Backend, c.Error)
		}
		for _, text := range c.Warnings {
			fmt.Fprintf(w, "Warning: backend %s: %s\n", c.Backend, text)
		}
	}
	return nil
}
