package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each case is a package with one test file, given to the real go test.
func TestRun(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       string // times are replaced by TIME
		code       int
	}{
		{
			"passes", `func TestA(t *testing.T) { t.Log("noise") }`,
			"ok  \tpassesTIME\n", 0,
		},
		{
			"skips", `func TestA(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Skip("no program") }) }`,
			"ok  \tskipsTIME\n" +
				"skipped, which counts as a failure: skips main_test.go:3: no program --- SKIP: TestA/sub (TIME)\n" +
				"FAIL\n", 1,
		},
		{
			"fails", `func TestA(t *testing.T) {}; func TestB(t *testing.T) { t.Run("sub", func(t *testing.T) { t.Error("wrong") }) }`,
			"    main_test.go:3: wrong\n--- FAIL: TestB/sub (TIME)\n--- FAIL: TestB (TIME)\n" +
				"FAIL\nFAIL\tfailsTIME\nFAIL\n", 1,
		},
		{
			"crashes", // the first time, as the race detector does
			`func TestA(t *testing.T) {
				if os.WriteFile("second", nil, 0o600); len(os.Args) > 0 {
					if _, err := os.Stat("first"); err != nil {
						os.WriteFile("first", nil, 0o600)
						println("SIGSEGV: segmentation violation\nPC=0x1\n\ninternal/synctest.Run(0x1)")
						os.Exit(2)
					}
				}
			}`,
			"SIGSEGV: segmentation violation\nPC=0x1\n\ninternal/synctest.Run(0x1)\nFAIL\tcrashesTIME\n" +
				"the race detector crashed, once more: crashes\nok  \tcrashesTIME\n", 0,
		},
		{
			"exits", `func TestA(t *testing.T) { println("why"); os.Exit(3) }`,
			"why\nFAIL\texitsTIME\nFAIL\n", 1,
		},
		{
			"broken", `func TestA(t *testing.T) { wrong() }`,
			"# broken [broken.test]\n./main_test.go:3:45: undefined: wrong\nFAIL\tbroken [build failed]\nFAIL\n", 1,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "go.mod"), "module "+tt.name+"\n\ngo 1.26.0\n")
			write(t, filepath.Join(dir, "main_test.go"),
				"package main\nimport (\"os\"; \"testing\")\nvar _ = os.Args; "+tt.body+"\n")
			t.Chdir(dir)
			var stdout, stderr bytes.Buffer
			code := run([]string{"."}, &stdout, &stderr)
			times := regexp.MustCompile(`\s?[0-9.]+s\b`)
			got := times.ReplaceAllString(stdout.String(), "TIME")
			if diff := cmp.Diff(tt.want, got); diff != "" || code != tt.code {
				t.Errorf("exit code %d, want %d; stderr %q; stdout (-want +got):\n%s", code, tt.code, stderr.String(), diff)
			}
		})
	}
}

func TestSlow(t *testing.T) {
	events := `{"Action":"pass","Package":"p","Test":"TestQuick","Elapsed":29.9}
{"Action":"pass","Package":"p","Test":"TestLong/part","Elapsed":31}
{"Action":"pass","Package":"p","Test":"TestLong","Elapsed":100.4}
{"Action":"output","Package":"p","Output":"ok  \tp\t101s\n"}
{"Action":"pass","Package":"p","Elapsed":101}
`
	var out bytes.Buffer
	if _, _, _, err := report(strings.NewReader(events), &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("ok  \tp\t101s\n\t31s\tTestLong/part\n\t100s\tTestLong\n", out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
