package acceptance

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// TestConnectPerCommand: clients that connect for each command open no more
// backend connections than max_open, and none of their commands fails.
func TestConnectPerCommand(t *testing.T) {
	t.Parallel()
	const clients, maxOpen = 32, 4
	commands := int64(2000)
	if *whole {
		commands = 10_000
	}
	c := startCluster(t, 3, 10, dovecot.Options{})
	p := startProxy(t, racy, func(addr string) string {
		// The clients may be kept from their logins by what else this machine does.
		return c.config(addr, fmt.Sprintf("pool {\n max_open = %d\n}", maxOpen), "limits {\n handshake_timeout = \"30s\"\n}")
	})

	// The processes of a backend are its connections; one that ends may be
	// seen beside its successor.
	stop := make(chan struct{})
	highest := make([]int, len(c.servers))
	var watch errgroup.Group
	watch.Go(func() error {
		for {
			for i, s := range c.servers {
				highest[i] = max(highest[i], len(s.Processes("doveadm-server")))
			}
			select {
			case <-stop:
				return nil
			case <-time.After(20 * time.Millisecond):
			}
		}
	})

	var done atomic.Int64
	g, ctx := errgroup.WithContext(t.Context())
	for range clients {
		g.Go(func() error {
			for {
				n := done.Add(1)
				if n > commands || ctx.Err() != nil {
					return nil
				}
				user := fmt.Sprintf("u%d-%d", n%3+1, n/3%10+1)
				once, cancel := context.WithTimeout(ctx, 30*time.Second)
				err := mustBeQuota(loginOnce(once, p.Addr, user, "quota get"))
				cancel()
				if err != nil {
					return fmt.Errorf("command %d: %w", n, err)
				}
			}
		})
	}
	err := g.Wait()
	close(stop)
	watch.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range c.servers {
		t.Logf("%s: %d processes at most", s.Name, highest[i])
		if highest[i] == 0 || highest[i] > maxOpen {
			t.Errorf("%s had %d processes at once, max_open is %d", s.Name, highest[i], maxOpen)
		}
	}
	// A dial is logged only when it fails.
	if strings.Contains(p.Log(), "cannot connect") {
		t.Error("a connection to a backend failed")
	}
}
