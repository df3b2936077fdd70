package acceptance

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestRefresh: who changed the source of a lookup can have the running proxy ask
// it again, about one user and about all, long before it would by itself.
func TestRefresh(t *testing.T) {
	t.Parallel()
	var shard atomic.Value
	shard.Store("s1")
	var asked atomic.Int64
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		fmt.Fprintf(w, `{"shard": %q}`, shard.Load())
	}))
	defer source.Close()
	dir := t.TempDir()
	route := fmt.Sprintf("route \"http\" {\n  url = \"%s/%%u\"\n  field = \"shard\"\n  cache {\n    ttl = \"1h\"\n  }\n}\n", source.URL)
	config := func(route string) func(string) string {
		return func(addr string) string {
			var b strings.Builder
			fmt.Fprintf(&b, "listener \"main\" {\n  address = %q\n}\nclient \"doveadm\" {\n  password = \"{PLAIN}%s\"\n}\n", addr, clientPassword)
			for i := range 2 {
				fmt.Fprintf(&b, "shard \"s%d\" {\n  backend \"mail%d\" {\n    address = \"127.0.0.1:%d\"\n    password = \"secret\"\n  }\n}\n", i+1, i+1, i+1)
			}
			fmt.Fprintf(&b, "%sadmin {\n  address = \"unix:%s/admin.sock\"\n  state_file = \"%s/operator.json\"\n}\n", route, dir, dir)
			return b.String()
		}
	}
	p := startProxy(t, plain, config(route))
	f := &fleet{t: t, proxies: []*proxyProcess{p}, sockets: []string{"unix:" + filepath.Join(dir, "admin.sock")}}
	says := func(want int, args ...string) string {
		t.Helper()
		out, code := f.user(0, args...)
		if code != want {
			t.Fatalf("user %v: exit code %d, %s", args, code, out)
		}
		return out
	}
	is := func(out, shard string) {
		t.Helper()
		if !strings.Contains(out, "\nshard     "+shard+", by route http: the lookup names "+shard+"\n") {
			t.Errorf("is not on %s:\n%s", shard, out)
		}
	}

	is(says(0, "show", "ann"), "s1")
	is(says(0, "show", "bob"), "s1")
	if n := asked.Load(); n != 2 {
		t.Errorf("the source was asked %d times for two users", n)
	}
	shard.Store("s2")
	out := says(0, "show", "ann")
	is(out, "s1")
	if !strings.Contains(out, "\nasked     http: the lookup names s1, as of ") {
		t.Errorf("no age:\n%s", out)
	}
	out = says(0, "refresh", "ann")
	is(out, "s2")
	is(says(0, "show", "bob"), "s1")
	if out := says(0, "refresh", "--all"); out != "" {
		t.Errorf("refresh --all printed %s", out)
	}
	is(says(0, "show", "bob"), "s2")
	p.waitLog(`an operator has lookups asked anew`)

	says(2, "refresh")
	says(2, "refresh", "--all", "ann")
	if out := says(1, "refresh", "ann\x01"); !strings.Contains(out, "this is not the name of a user") {
		t.Errorf("printed %s", out)
	}
	p.writeConfig(config("route \"match\" {\n  users = [\"*\"]\n  shard = \"s1\"\n}\n")(p.Addr))
	p.cmd.Process.Signal(syscall.SIGHUP)
	p.waitLog("reloaded:")
	if out := says(1, "refresh", "ann"); !strings.Contains(out, "no route of the configuration looks users up elsewhere") {
		t.Errorf("printed %s", out)
	}
}
