package moves

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// settings are those of a quick test, with the embedded database in dir.
func settings(dir string) config.Moves {
	return config.Moves{
		Driver: config.MovesSQLite, Path: filepath.Join(dir, "moves.db"), Lease: 3 * time.Second, Poll: 200 * time.Millisecond,
		AnswerTimeout: 2 * time.Second, HoldTimeout: 10 * time.Second, MaxHold: 2 * time.Second, MaxWaiting: 10,
	}
}

// start starts a node that ends with the test, unless the test ends it.
func start(t *testing.T, c config.Moves, name string) *Node {
	t.Helper()
	c.Name = name
	log := hclog.New(&hclog.LoggerOptions{Name: name, Level: hclog.Debug, Output: testWriter{t}})
	n, err := Start(c, Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", p[:len(p)-1])
	return len(p), nil
}

// crash ends a node as the end of its process would: nothing is said to the
// database any more.
func (n *Node) crash() {
	n.store.db.Close()
	n.end()
	n.stopMoving(errors.New("crashed"))
	n.wg.Wait()
	n.expiry.Stop()
	if n.pulse != nil {
		n.pulse.file.Close()
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for what is to become true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not %s", what)
		}
	}
}

// on returns the shard of the exception that a node knows, empty if there is
// none.
func (n *Node) on(user string) string {
	e, _ := n.Gate.Find(user)
	return e.Shard
}

// enter is Enter with a bound.
func enter(n *Node, user string, within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return n.Gate.Enter(ctx, user)
}
