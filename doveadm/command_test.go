package doveadm

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestCommand(t *testing.T) {
	tests := map[string]struct {
		line string // as a server of minor 3 gets it
		old  string // as others get it, where that differs
		cmd  Command
	}{
		"no user":   {line: "\t\twho", cmd: Command{Name: "who"}},
		"user":      {line: "\talice\tquota get", cmd: Command{User: "alice", Name: "quota get"}},
		"verbose":   {line: "v\talice\tindex\tINBOX", cmd: Command{Verbose: true, User: "alice", Name: "index", Args: []string{"INBOX"}}},
		"debug":     {line: "D\talice\tindex\tINBOX", cmd: Command{Debug: true, User: "alice", Name: "index", Args: []string{"INBOX"}}},
		"empty":     {line: "\t\t", cmd: Command{}},
		"arguments": {line: "\ta\tfetch\t\t-x\t\t", cmd: Command{User: "a", Name: "fetch", Args: []string{"", "-x", "", ""}}},
		"escapes": {
			line: "\ta\x01tb\tfetch\t\x01n\x01r\x011\x01t\tplain",
			cmd:  Command{User: "a\tb", Name: "fetch", Args: []string{"\n\r\x01\t", "plain"}},
		},
		"extra": {
			line: "vx\tproxy-ttl=3\x01tforward=key=value\x01tforward=k2=a\x011tb\talice\tmailbox list",
			old:  "v\talice\tmailbox list",
			cmd: Command{
				Verbose: true, User: "alice", Name: "mailbox list",
				Extra: []string{"proxy-ttl=3", "forward=key=value", "forward=k2=a\tb"},
			},
		},
		"empty extra": {line: "x\t\talice\twho", old: "\talice\twho", cmd: Command{User: "alice", Name: "who", Extra: []string{""}}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var got Command
			if err := got.Parse([]byte(tc.line)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.cmd, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("parsed (-want +got):\n%s", diff)
			}
			for m := MinorBase; m <= MaxMinor; m++ {
				want := tc.line
				if m < MinorExtraFields && tc.old != "" {
					want = tc.old
				}
				if diff := cmp.Diff("x"+want+"\n", string(AppendCommand([]byte("x"), &tc.cmd, m))); diff != "" {
					t.Errorf("written for minor %d (-want +got):\n%s", m, diff)
				}
			}
		})
	}
}

func TestParseWhatWeDoNotWrite(t *testing.T) {
	tests := map[string]struct {
		line string
		cmd  Command
	}{
		"debug and verbose":  {"vDv\ta\twho", Command{Debug: true, Verbose: true, User: "a", Name: "who"}},
		"a field for each x": {"xvx\ta=1\x01tb=2\tc=3\tu\twho", Command{Verbose: true, User: "u", Name: "who", Extra: []string{"a=1", "b=2", "c=3"}}},
		"escapes in flags":   {"\x01v\x01D\ta\twho", Command{Debug: true, Verbose: true, User: "a", Name: "who"}},
		"lone escape flag":   {"\x01\ta\twho", Command{User: "a", Name: "who"}},
		"broken escapes":     {"\ta\x01\twho\x01x\t\x01", Command{User: "a", Name: "whox", Args: []string{""}}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var got Command
			if err := got.Parse([]byte(tc.line)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.cmd, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	tests := map[string]struct {
		line string
		want error
		text string
	}{
		"empty line":        {"", ErrNoCommand, "No command given"},
		"one field":         {"quit", ErrNoCommand, ""},
		"two fields":        {"\talice", ErrNoCommand, ""},
		"x without field":   {"x\talice\twho", ErrNoCommand, ""},
		"two x, one field":  {"xx\ta=b\talice\twho", ErrNoCommand, ""},
		"unknown flag":      {"vQ\talice\twho", UnknownFlagError('Q'), "Unknown flag: Q"},
		"flag is a control": {"\x1b\talice\twho", UnknownFlagError(0x1b), `Unknown flag: \x1b`},
		"flag is not ASCII": {"é\talice\twho", UnknownFlagError(0xc3), `Unknown flag: \xc3`},
		"flag is escaped":   {"\x01t\talice\twho", UnknownFlagError('\t'), `Unknown flag: \x09`},
		"NUL in flags":      {"v\x010\talice\twho", ErrNUL, ""},
		"raw NUL":           {"\talice\x00x\twho", ErrNUL, ""},
		"NUL in user":       {"\talice\x010\twho", ErrNUL, ""},
		"NUL in name":       {"\talice\twho\x010", ErrNUL, ""},
		"NUL in argument":   {"\talice\twho\ta\t\x010", ErrNUL, ""},
		"NUL in extra":      {"x\ta=\x010\talice\twho", ErrNUL, ""},
		"NUL inside extra":  {"x\ta=\x0110\talice\twho", ErrNUL, ""},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			var c Command
			err := c.Parse([]byte(tc.line))
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if tc.text != "" && err.Error() != tc.text {
				t.Errorf("text %q, want %q", err.Error(), tc.text)
			}
		})
	}
}

func TestParseKeepsNothingOfTheLine(t *testing.T) {
	line := []byte("x\ta=b\tuser\tname\targ")
	var c Command
	if err := c.Parse(line); err != nil {
		t.Fatal(err)
	}
	for i := range line {
		line[i] = '#'
	}
	want := Command{User: "user", Name: "name", Args: []string{"arg"}, Extra: []string{"a=b"}}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := c.Parse([]byte("\tother\tname")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Command{User: "other", Name: "name"}, c, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("used again (-want +got):\n%s", diff)
	}
}

// requestLines returns the lines of the recorded clients after the login.
func requestLines(t testing.TB) [][]byte {
	var lines [][]byte
	for _, tr := range loadTranscripts(t) {
		for line := range bytes.Lines(tr.client) {
			line = bytes.TrimRight(line, "\r\n")
			if len(line) < 2000 && !bytes.HasPrefix(line, versionPrefix) && !bytes.HasPrefix(line, plainPrefix) {
				lines = append(lines, line)
			}
		}
	}
	slices.SortFunc(lines, bytes.Compare)
	return slices.CompactFunc(lines, bytes.Equal)
}

func FuzzCommand(f *testing.F) {
	for _, line := range requestLines(f) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		// As a line from a client.
		var c Command
		if err := c.Parse(line); err == nil {
			roundTrip(t, &c)
		}
		// As text that gets into a command.
		text := string(line)
		words := strings.Fields(text)
		c = Command{Verbose: len(line)%2 == 0, User: text, Name: text, Args: append(words, text), Extra: []string{text, ""}}
		roundTrip(t, &c)
	})
}

// roundTrip writes c for every version and reads it again.
func roundTrip(t *testing.T, c *Command) {
	t.Helper()
	for m := MinorBase; m <= MaxMinor; m++ {
		line := AppendCommand(nil, c, m)
		want := *c
		want.Verbose = c.Verbose && !c.Debug // D implies it
		tabs := 2 + len(c.Args)
		if m < MinorExtraFields {
			want.Extra = nil
		} else if len(c.Extra) > 0 {
			tabs++
		}
		if n := bytes.Count(line, []byte{'\t'}); n != tabs {
			t.Errorf("minor %d: %d TABs, want %d: %q", m, n, tabs, line)
		}
		body, ok := bytes.CutSuffix(line, []byte{'\n'})
		if !ok || bytes.ContainsAny(body, "\n\r\x00") {
			t.Errorf("minor %d: not one line: %q", m, line)
		}
		var got Command
		switch err := got.Parse(body); {
		case want.hasNUL():
			if err != ErrNUL {
				t.Errorf("minor %d: NUL was read as %v", m, err)
			}
		case err != nil:
			t.Errorf("minor %d: %v in %q", m, err, line)
		case got.Debug != want.Debug || got.Verbose != want.Verbose || got.User != want.User || got.Name != want.Name ||
			!slices.Equal(got.Args, want.Args) || !slices.Equal(got.Extra, want.Extra):
			t.Errorf("minor %d (-want +got):\n%s", m, cmp.Diff(want, got, cmpopts.EquateEmpty()))
		}
	}
}
