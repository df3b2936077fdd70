package router

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/doveadm-proxy/doveadm-proxy/config"
)

func TestReadUserMap(t *testing.T) {
	t.Parallel()
	content := "\ufeff# the map\r\n" +
		"\r\n" +
		"alice@example.com s1\r\n" +
		"\t Bob@Example.COM \t s2 \t\n" +
		"carol s3 # moved in spring\n" +
		"   # indented\n" +
		"@example.org s2\n" +
		"ünï@exämple s1\n" +
		"alice@example.com s1\n" + // twice the same is harmless
		"a#b s1\n" +
		"* s3" // no line break at the end
	table := newTable(t, config.Route{Kind: "file", Path: mapFile(t, content)})
	for user, want := range map[string]string{
		"alice@example.com": "s1 3", "ALICE@example.com": "s1 3", "bob@example.com": "s2 4", "carol": "s3 5",
		"dave@Example.org": "s2 7", "dave@x@example.org": "s3 11", "@example.org": "s2 7", "ünï@exämple": "s1 8",
		"a#b": "s1 10", "nobody": "s3 11", "alice@example.co": "s3 11", "lice@example.com": "s3 11", "*": "s3 11",
	} {
		answer := table.Explain(t.Context(), user)[0]
		_, line, _ := strings.Cut(answer.Reason, ": line ")
		if got := answer.Shard + " " + line; got != want {
			t.Errorf("%q: shard and line %s; want %s", user, got, want)
		}
		if d, err := table.Route(t.Context(), user); err != nil || d.Shard != answer.Shard {
			t.Errorf("Route(%q) = %+v, %v", user, d, err)
		}
	}
}

func TestReadEmptyMap(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "\n", "# nothing yet\n"} {
		table := newTable(t, config.Route{Kind: "file", Path: mapFile(t, content)})
		if d, err := table.Route(t.Context(), "alice"); !errors.Is(err, ErrNoRoute) {
			t.Errorf("an empty map gives %+v, %v", d, err)
		}
	}
}

func TestReadUserMapErrors(t *testing.T) {
	t.Parallel()
	content := strings.Join([]string{
		"alice s1",
		"bob",
		"carol s9",
		"dave s1 s2",
		"eve\x00 s1",
		"f\x7frank s1",
		"ALICE s2",
		"*@example.com s1",
		"@ s1",
		"gr\xfcn s1",
		"bob # no shard yet",
		strings.Repeat("x", 10_000) + " s1",
		"henry\rs1",
		"ok@example.com s1",
		"* s1",
		"* s2",
	}, "\n")
	_, errs := readUserMap(strings.NewReader(content), new(Names), shards)
	var got []string
	for _, err := range errs {
		got = append(got, err.Error())
	}
	want := []string{
		`line 2: no shard behind "bob": write "user shard"`,
		`line 3: unknown shard "s9": use one of s1, s2, s3`,
		`line 4: a third column, "s2": write "user shard", and a # before a comment`,
		`line 5: control character 0x00 at byte 4: remove it`,
		`line 6: control character 0x7f at byte 2: remove it`,
		`line 7: "alice" is given to s2, and on line 1 to s1: remove one of the lines`,
		`line 8: "*@example.com" is a pattern: write "@domain shard" for a whole domain, "* shard" for everybody else, or use a match route`,
		`line 9: no domain behind the @: write "@domain shard", or "* shard" for everybody else`,
		`line 10: user "gr\xfcn" is not UTF-8: convert the file`,
		`line 11: no shard behind "bob": write "user shard"`,
		`line 12: line of more than 4096 bytes: write "user shard"`,
		`line 13: control character 0x0d at byte 6: remove it`,
		`line 16: "*" is given to s2, and on line 15 to s1: remove one of the lines`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
}

// TestManyErrors: a file of another format does not fill the log.
func TestManyErrors(t *testing.T) {
	t.Parallel()
	_, errs := readUserMap(strings.NewReader(strings.Repeat("alice:s1\n", 1000)), new(Names), shards)
	if len(errs) != maxMapErrors+1 {
		t.Fatalf("%d errors", len(errs))
	}
	if got, want := errs[maxMapErrors].Error(), "and 980 more lines are wrong"; got != want {
		t.Errorf("%q; want %q", got, want)
	}
}

func TestReadUserMapFails(t *testing.T) {
	t.Parallel()
	cause := errors.New("the disk is on fire")
	r := io.MultiReader(strings.NewReader("alice s1\nbob s2\n"), iotest.ErrReader(cause))
	m, errs := readUserMap(r, new(Names), shards)
	if m != nil || len(errs) != 1 || !errors.Is(errs[0], cause) {
		t.Errorf("readUserMap = %v, %v", m, errs)
	}
}

func FuzzReadUserMap(f *testing.F) {
	for _, seed := range []string{
		"alice@example.com s1\n@example.org\ts2\n* s3\n", "# x\r\n\r\na s1 # y\n", "A s1\na s2", "a", "a s9\n", "a\x00b s1", "* s1\n*@x s1",
		"\xef\xbb\xbfa s1", strings.Repeat("x", 5000) + " s1\na s1",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		m, errs := readUserMap(bytes.NewReader(content), new(Names), shards)
		if len(errs) > 0 {
			return
		}
		// Without errors each line is found again, with its shard.
		for line := range strings.Lines(strings.TrimPrefix(string(content), "\ufeff")) {
			line, _, _ = strings.Cut(line, " #")
			line, _, _ = strings.Cut(line, "\t#")
			columns := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) })
			if len(columns) == 0 || columns[0][0] == '#' {
				continue
			}
			if e, ok := m.lookup(new(Names).User(columns[0])); !ok || shards[e.shard] != columns[1] {
				t.Fatalf("line %q: %v, %+v", line, ok, e)
			}
		}
		if e, ok := m.lookup("nobody in\tthe map"); ok {
			t.Fatalf("found what cannot be there: %+v", e)
		}
	})
}

// BenchmarkReadUserMap reads a map of a million users and reports what it keeps.
func BenchmarkReadUserMap(b *testing.B) {
	const users = 1_000_000
	var content bytes.Buffer
	for i := range users {
		fmt.Fprintf(&content, "user%07d@example.com s%d\n", i, i%3+1)
	}
	var m *userMap
	var errs []error
	b.SetBytes(int64(content.Len()))
	for b.Loop() {
		if m, errs = readUserMap(bytes.NewReader(content.Bytes()), new(Names), shards); errs != nil {
			b.Fatal(errs)
		}
	}
	b.ReportMetric(float64(m.memory())/users, "B/user")

	// The same in a Go map, to know what the compact one is worth.
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	plain := make(map[string]uint32)
	for line := range strings.Lines(content.String()) {
		user, _, _ := strings.Cut(line, " ")
		plain[strings.Clone(user)] = 1
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/users, "gomap-B/user")
	runtime.KeepAlive(plain)
	runtime.KeepAlive(m)
	runtime.KeepAlive(&content)
}
