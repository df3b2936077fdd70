package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// lockedLog is what a logger wrote.
type lockedLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func follow(t testing.TB, previous *Table, log io.Writer, routes ...config.Route) *Table {
	t.Helper()
	table, err := previous.Next(new(Names), routes, shards)
	if err != nil {
		t.Fatal(err)
	}
	table.Follow(hclog.New(&hclog.LoggerOptions{Output: log}))
	return table
}

// replace puts content in place of the file at path, as operators are told to.
func replace(t testing.TB, path, content string) {
	t.Helper()
	next := path + ".new"
	if err := os.WriteFile(next, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after 20 s still not: %s", what)
		}
	}
}

func placeOf(t testing.TB, table *Table, user string) string {
	t.Helper()
	d, err := table.Route(t.Context(), user)
	if errors.Is(err, ErrNoRoute) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return d.Shard
}

// TestMapIsReadAgain: replaced, written in place, broken, removed, and mended.
func TestMapIsReadAgain(t *testing.T) {
	t.Parallel()
	path := mapFile(t, "bob s1\n")
	var log lockedLog
	table := follow(t, nil, &log, config.Route{Kind: "file", Path: path})
	defer table.Close()
	if got := placeOf(t, table, "bob"); got != "s1" {
		t.Fatalf("bob is on %q", got)
	}
	replace(t, path, "bob s2\n")
	await(t, "the replaced file is in use", func() bool { return placeOf(t, table, "bob") == "s2" })

	if err := os.WriteFile(path, []byte("bob s3\nalice s3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the file that was written in place is in use", func() bool { return placeOf(t, table, "alice") == "s3" })

	replace(t, path, "bob s1\nalice s9\n")
	await(t, "the broken file is reported", func() bool { return table.Maps()[0].Failures == 1 })
	if got := placeOf(t, table, "bob"); got != "s3" {
		t.Errorf("bob is on %q: a broken file is in use", got)
	}
	if want := `line 2: unknown shard "s9": use one of s1, s2, s3`; !strings.Contains(strings.ReplaceAll(log.String(), `\"`, `"`), want) {
		t.Errorf("the log does not say %s:\n%s", want, &log)
	}
	if s := table.Maps()[0]; s.Err == nil || s.Generation != 3 || s.Users != 2 || s.Path != path || s.Memory == 0 || s.Read.IsZero() {
		t.Errorf("the state of the map is %+v", s)
	}
	os.Remove(path)
	await(t, "the missing file is reported", func() bool { return table.Maps()[0].Failures == 2 })
	if got := placeOf(t, table, "bob"); got != "s3" {
		t.Errorf("bob is on %q: a missing file counts as an empty one", got)
	}
	replace(t, path, "bob s1\n")
	await(t, "the mended file is in use", func() bool { return placeOf(t, table, "bob") == "s1" })
	if s := table.Maps()[0]; s.Err != nil || s.Generation != 4 || s.Users != 1 {
		t.Errorf("the state of the map is %+v", s)
	}
}

// TestMapBehindLink: what Kubernetes makes of a ConfigMap, and a link to
// another directory, of which the kernel does not tell.
func TestMapBehindLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i, content := range []string{"bob s1\n", "bob s2\n"} {
		sub := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(sub, "users.map"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "data")
	path := filepath.Join(t.TempDir(), "users.map")
	if err := errors.Join(os.Symlink("0", link), os.Symlink(filepath.Join(link, "users.map"), path)); err != nil {
		t.Fatal(err)
	}
	var log lockedLog
	table := follow(t, nil, &log, config.Route{Kind: "file", Path: path})
	defer table.Close()
	if got := placeOf(t, table, "bob"); got != "s1" {
		t.Fatalf("bob is on %q", got)
	}
	next := link + ".new"
	if err := errors.Join(os.Symlink("1", next), os.Rename(next, link)); err != nil {
		t.Fatal(err)
	}
	await(t, "the file that the link leads to now is in use", func() bool { return placeOf(t, table, "bob") == "s2" })
}

// TestMapIsKeptOverReload: the next table has the map of the one before, and
// follows it after that one is closed; not if anything is different.
func TestMapIsKeptOverReload(t *testing.T) {
	t.Parallel()
	path := mapFile(t, "bob s1\n")
	var log lockedLog
	route := config.Route{Kind: "file", Path: path}
	first := follow(t, nil, &log, route)
	kept := first.routes[0].(*file).from
	second := follow(t, first, &log, route)
	first.Close()
	if second.routes[0].(*file).from != kept {
		t.Error("the map was read again for the next table")
	}
	replace(t, path, "bob s2\n")
	await(t, "the map is followed after the first table was closed", func() bool { return placeOf(t, second, "bob") == "s2" })

	replace(t, path, "bob s3\n")
	third := follow(t, second, &log, route) // at once: the second has not noticed yet
	defer third.Close()
	if got := placeOf(t, third, "bob"); got != "s3" {
		t.Errorf("bob is on %q in a table that was made after the file was replaced", got)
	}
	second.Close()
	if other, err := third.Next(new(Names), []config.Route{route}, []string{"s3"}); err != nil {
		t.Error(err)
	} else if other.routes[0].(*file).from == third.routes[0].(*file).from {
		t.Error("a table of other shards has the same map")
	}
	replace(t, path, "bob s9\n")
	if _, err := third.Next(new(Names), []config.Route{route}, shards); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a table was made of a file that is broken: %v", err)
	}
}

// TestMapIsReplacedUnderLoad: nobody sees anything but the old or the new map.
func TestMapIsReplacedUnderLoad(t *testing.T) {
	t.Parallel()
	for _, format := range []string{config.MapText, config.MapCDB} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			content := [2]strings.Builder{}
			for i := range 2000 {
				fmt.Fprintf(&content[0], "user%d@example.com s1\n", i)
				fmt.Fprintf(&content[1], "user%d@example.com s2\n", i)
			}
			path := mapFile(t, content[0].String())
			put := func(i int) { replace(t, path, content[i].String()) }
			if format == config.MapCDB {
				put = func(i int) { makeCDB(t, path, content[i].String()) }
			}
			put(0)
			var log lockedLog
			table := follow(t, nil, &log, config.Route{Kind: "file", Path: path, Format: format})
			defer table.Close()
			ctx, stop := context.WithCancel(t.Context())
			var asking sync.WaitGroup
			var asked atomic.Int64
			for w := range 2 {
				asking.Go(func() {
					for i := w; ctx.Err() == nil; i++ {
						d, err := table.Route(context.Background(), fmt.Sprintf("user%d@example.com", i%2000))
						if err != nil || d.Shard != "s1" && d.Shard != "s2" {
							t.Errorf("%+v, %v", d, err)
							return
						}
						asked.Add(1)
					}
				})
			}
			for i := 1; i <= 3; i++ {
				put(i % 2)
				await(t, "the replaced file is in use", func() bool { return table.Maps()[0].Generation == uint64(i+1) })
			}
			stop()
			asking.Wait()
			if got := placeOf(t, table, "user1@example.com"); got != "s2" || asked.Load() == 0 || table.Maps()[0].Failures > 0 {
				t.Errorf("user1 is on %s after %d questions: %+v\n%s", got, asked.Load(), table.Maps()[0], &log)
			}
		})
	}
}
