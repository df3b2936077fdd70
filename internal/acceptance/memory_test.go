package acceptance

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
	"github.com/doveadm-proxy/doveadm-proxy/internal/dovecot"
)

// peakMemory returns the highest resident memory of the proxy so far, in MiB.
func peakMemory(t *testing.T, p *proxyProcess) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

// fetchInto writes all mail of u1-1 into a file: so much of it in the memory of a
// program under the race detector stops the other tests for seconds.
func fetchInto(t *testing.T, path string, c dovecot.Client) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd, err := c.Command(ctx, "fetch", "-u", "u1-1", "text", "all")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = file
	if r, err := dovecot.Run(ctx, cmd); err != nil || r.ExitCode != 0 {
		t.Fatalf("exit code %d, %v: %s", r.ExitCode, err, r.Stderr)
	}
}

// TestBigFetch fetches 100 MB, by the real command and by a slow reader, with
// the proxy's memory bounded and the backend free long before the slow reader
// has read everything.
func TestBigFetch(t *testing.T) {
	t.Parallel()
	const megabytes, limit = 100, 64
	c := startCluster(t, 1, 1, dovecot.Options{})
	s := c.servers[0]
	seedBig(t, s, "u1-1", megabytes)
	p := startProxy(t, plain, func(addr string) string {
		return c.config(addr, "pool {\n max_open = 1\n acquire_timeout = \"30s\"\n}", "")
	})

	direct, proxied := filepath.Join(t.TempDir(), "direct"), filepath.Join(t.TempDir(), "proxied")
	fetchInto(t, direct, s.Client())
	fetchInto(t, proxied, dovecot.Client{Addr: p.Addr, Password: clientPassword})
	if out, err := exec.Command("cmp", direct, proxied).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if info, err := os.Stat(direct); err != nil {
		t.Error(err)
	} else if info.Size() < megabytes<<20 {
		t.Errorf("%d bytes", info.Size())
	}
	t.Logf("fetched by the command: %d MiB resident at most", peakMemory(t, p))

	client, err := dial(t.Context(), p.Addr, doveadm.MaxMinor)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.NetConn().SetDeadline(time.Now().Add(2 * time.Minute))
	reply, err := client.Do(t.Context(), &doveadm.Command{User: "u1-1", Name: "fetch", Args: []string{"text", "all"}})
	if err != nil {
		t.Fatal(err)
	}
	if !reply.Next() {
		t.Fatal(reply.Err())
	}
	if _, err := io.CopyN(io.Discard, reply, 1<<20); err != nil {
		t.Fatal(err)
	}
	// The reader stands still. The backend is done with the command all the
	// same: its only connection serves another client.
	if _, err := loginOnce(t.Context(), p.Addr, "u1-1", "mailbox list"); err != nil {
		t.Fatal(err)
	}
	// Then it reads a little at a time.
	var total int64
	for more := true; more; more = reply.Next() {
		var n int64
		for err = nil; err == nil; total += n {
			n, err = io.CopyN(io.Discard, reply, 256<<10)
			time.Sleep(time.Millisecond)
		}
		if err != io.EOF {
			break
		}
		err = nil
	}
	if err != nil || reply.Err() != nil {
		t.Fatal(err, reply.Err())
	}
	if total < (megabytes-1)<<20 {
		t.Errorf("read %d bytes", total)
	}
	peak := peakMemory(t, p)
	t.Logf("with a slow reader: %d MiB resident at most", peak)
	if peak >= limit {
		t.Errorf("%d MiB resident, the bound is %d", peak, limit)
	}
}
