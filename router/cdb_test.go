package router

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

// makeCDB makes a database of lines "key value" with the program of tinycdb.
func makeCDB(t testing.TB, path, lines string) {
	t.Helper()
	make := exec.Command("cdb", "-c", "-m", path)
	make.Stdin = strings.NewReader(lines)
	if out, err := make.CombinedOutput(); err != nil {
		t.Fatalf("cdb (Debian package tinycdb, see scripts/deps): %v\n%s", err, out)
	}
}

func cdbTableOf(t testing.TB, lines string) *Table {
	t.Helper()
	path := mapFile(t, "")
	makeCDB(t, path, lines)
	return newTable(t, config.Route{Kind: "file", Path: path, Format: config.MapCDB})
}

func TestCDB(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("long", 200) + "@example.net"
	table := cdbTableOf(t, "alice@example.com s1\nbob s2\n@example.org s3\nünï@exämple s1\n"+long+" s2\nbob s3\n")
	for user, want := range map[string]string{
		"alice@example.com": "s1", "Alice@Example.com": "s1", "bob": "s2", // the first record, as readers of the format do
		"eve@example.org": "s3", "ünï@exämple": "s1", long: "s2", "eve": "", "alice@example.co": "", "": "",
		strings.Repeat("x", 10_000): "",
	} {
		if got := placeOf(t, table, user); got != want {
			t.Errorf("%.40q is on %q; want %q", user, got, want)
		}
	}
	want := []Answer{{Route: table.routes[0].name(), Shard: "s3", Reason: "the map has a line for the user's domain"}}
	if diff := cmp.Diff(want, table.Explain(t.Context(), "eve@example.org")); diff != "" {
		t.Errorf("Explain (-want +got):\n%s", diff)
	}
	if s := table.Maps()[0]; s.Users != 6 {
		t.Errorf("the database has %d records", s.Users)
	}
	if got := placeOf(t, cdbTableOf(t, "* s2\n"), "anybody"); got != "s2" {
		t.Errorf("the default is %q", got)
	}
	if got := placeOf(t, cdbTableOf(t, ""), "anybody"); got != "" {
		t.Errorf("an empty database names %q", got)
	}
}

// TestCDBMany finds each of many users, and none of as many others.
func TestCDBMany(t *testing.T) {
	t.Parallel()
	const users = 10_000
	var lines strings.Builder
	for i := range users {
		fmt.Fprintf(&lines, "user%d@example.com s%d\n", i, i%3+1)
	}
	table := cdbTableOf(t, lines.String())
	for i := range users {
		if got, want := placeOf(t, table, fmt.Sprintf("user%d@example.com", i)), fmt.Sprintf("s%d", i%3+1); got != want {
			t.Fatalf("user%d is on %q; want %s", i, got, want)
		}
		if got := placeOf(t, table, fmt.Sprintf("nobody%d@example.com", i)); got != "" {
			t.Fatalf("nobody%d is on %q", i, got)
		}
	}
}

func TestCDBErrors(t *testing.T) {
	t.Parallel()
	path := mapFile(t, "")
	makeCDB(t, path, "alice s1\nBob s1\ncarol s9\n@example.org s2\n")
	_, err := New(new(Names), []config.Route{{Kind: "file", Path: path, Format: config.MapCDB}}, shards)
	want := []string{
		"route file " + path + `: record 2: user "Bob" is never found, because users are compared in their normal form: write "bob"`,
		"route file " + path + `: record 3: user "carol": unknown shard "s9": use one of s1, s2, s3`,
	}
	if diff := cmp.Diff(want, strings.Split(fmt.Sprint(err), "\n")); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
	for name, content := range map[string][]byte{
		"text": []byte("alice s1\n"), "empty": nil, "zeros": make([]byte, 4096), "ones": bytes.Repeat([]byte{0xff}, 4096),
	} {
		if _, errs := newCDB(bytes.NewReader(content), int64(len(content)), new(Names), shards); len(errs) != 1 || !errors.Is(errs[0], errCDB) {
			t.Errorf("%s: %v", name, errs)
		}
	}
	makeCDB(t, path, strings.Repeat("alice s1\n", 100))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if _, errs := newCDB(bytes.NewReader(whole[:n]), int64(n), new(Names), shards); len(errs) == 0 {
			t.Fatalf("a database that was cut to %d of %d bytes is taken", n, len(whole))
		}
	}
}

// TestCDBCutShort: a file that is cut short under a decision is an error and
// not a user who is unknown.
func TestCDBCutShort(t *testing.T) {
	t.Parallel()
	path := mapFile(t, "")
	makeCDB(t, path, "alice s1\nbob s2\n")
	table := newTable(t, config.Route{Kind: "file", Path: path, Format: config.MapCDB})
	if err := os.Truncate(path, 2060); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"alice", "bob"} {
		d, err := table.Route(t.Context(), user)
		if !errors.Is(err, errCDB) {
			t.Errorf("%s: %+v, %v", user, d, err)
		}
		if answers := table.Explain(t.Context(), user); answers[0].Err == nil {
			t.Errorf("%s is explained: %+v", user, answers)
		}
	}
}

func TestCDBDoesNotAllocate(t *testing.T) {
	table := cdbTableOf(t, "user@example.com s1\n@example.org s1\n")
	for _, user := range []string{"user@example.com", "someone@example.org"} {
		if got := testing.AllocsPerRun(100, func() {
			if _, err := table.Route(t.Context(), user); err != nil {
				t.Fatal(err)
			}
		}); got > 0 {
			t.Errorf("Route(%q) allocates %v times", user, got)
		}
	}
}

func FuzzCDB(f *testing.F) {
	path := mapFile(f, "")
	makeCDB(f, path, "alice@example.com s1\nbob s2\n@example.org s3\n")
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole[cdbHeader:], "bob", uint32(0), uint32(1))
	f.Add([]byte{}, "", uint32(0), uint32(0))
	f.Add(bytes.Repeat([]byte{0xff}, 64), "x", uint32(2), uint32(1<<31))
	f.Fuzz(func(t *testing.T, rest []byte, user string, place, slots uint32) {
		// The header is the original's, but for the table of the user: a fuzzer
		// hardly finds one that makes sense.
		content := append(bytes.Clone(whole[:cdbHeader]), rest...)
		table := content[8*(cdbHash(user)&0xff):]
		binary.LittleEndian.PutUint32(table, place)
		binary.LittleEndian.PutUint32(table[4:], slots)
		for _, content := range [][]byte{content, rest} {
			db, errs := newCDB(bytes.NewReader(content), int64(len(content)), new(Names), shards)
			if (db == nil) != (errs != nil) {
				t.Fatalf("%v, %v", db, errs)
			}
			if db == nil {
				// What is only said by the errors of records is asked as well:
				// a sound file may be damaged later.
				db = &constantDB{file: bytes.NewReader(content), size: int64(len(content)), shards: shards}
				db.tables[cdbHash(user)&0xff] = cdbTable{place % uint32(len(content)+1), slots % 1000}
			}
			if shard, ok, err := db.find(user); ok && (err != nil || int(shard) >= len(shards)) {
				t.Fatalf("find = %d, %v, %v", shard, ok, err)
			}
		}
	})
}
