// Command gotest runs go test with the arguments it is given, prints what go
// test prints, and fails also if a test was skipped. A test that cannot run
// where it should run has not passed, and go test alone does not show it.
//
// Now and then (seen with Go 1.26.8) the race detector itself crashes when a
// bubble of testing/synctest moves its clock. The packages in which it did, and
// in which nothing failed, are tested once more. For that, flags have their
// values behind an equals sign.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	crashed, code := test(args, stdout, stderr)
	if len(crashed) == 0 {
		return code
	}
	fmt.Fprintln(stdout, "the race detector crashed, once more:", strings.Join(crashed, " "))
	again := slices.DeleteFunc(slices.Clone(args), func(arg string) bool { return !strings.HasPrefix(arg, "-") })
	crashed, code = test(append(again, crashed...), stdout, stderr)
	if len(crashed) > 0 {
		return 1
	}
	return code
}

// test runs go test once. It returns the packages in which the race detector
// crashed, if there is no other failure, or else the exit code.
func test(args []string, stdout, stderr io.Writer) (crashed []string, code int) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = stderr
	events, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return nil, 1
	}
	skipped, crashed, failed, err := report(events, stdout)
	if err != nil {
		// Let go test go on to its end, and its exit code decide as well.
		fmt.Fprintln(stderr, "reading the output of go test:", err)
		io.Copy(io.Discard, events)
	}
	for _, test := range skipped {
		fmt.Fprintf(stdout, "skipped, which counts as a failure: %s\n", test)
	}
	exit := cmd.Wait()
	if err == nil && len(skipped) == 0 && !failed && len(crashed) > 0 {
		return crashed, 1
	}
	if exit != nil || err != nil || len(skipped) > 0 {
		fmt.Fprintln(stdout, "FAIL")
		return nil, 1
	}
	return nil, 0
}

// event is what go test -json writes, see "go doc test2json".
type event struct {
	Action  string
	Package string
	Test    string // empty: about the package
	Output  string
	Elapsed float64 // seconds, at the end of a test or package
}

// results are a package's tests as they come in.
type results struct {
	order  []string // tests, in the order of their start
	output map[string]*bytes.Buffer
	passed map[string]bool
	slow   []string // lines about tests that took long
}

// slowTest is how many seconds a test, with those in it, may take without being
// mentioned. Those that run beside each other have the time of all of them.
const slowTest = 30

// report prints of the events of go test -json what go test prints without -v:
// the closing line of each package, and all that a failed test said. It
// returns the tests that were skipped, each with its reason, the packages in
// which only the race detector crashed, and whether another one failed.
func report(events io.Reader, w io.Writer) (skipped, crashed []string, failed bool, err error) {
	packages := map[string]*results{}
	decoder := json.NewDecoder(events)
	for {
		var e event
		if err := decoder.Decode(&e); err == io.EOF {
			return skipped, crashed, failed, nil
		} else if err != nil {
			return skipped, crashed, failed, err
		}
		p := packages[e.Package]
		if p == nil {
			p = &results{output: map[string]*bytes.Buffer{}, passed: map[string]bool{}}
			packages[e.Package] = p
		}
		switch e.Action {
		case "build-output":
			io.WriteString(w, e.Output)
		case "output":
			p.add(e.Test, e.Output)
		case "skip", "pass":
			if e.Test == "" {
				p.printClosing(w)
				delete(packages, e.Package)
				continue
			}
			p.passed[e.Test] = true
			if e.Elapsed >= slowTest {
				p.slow = append(p.slow, fmt.Sprintf("\t%.0fs\t%s\n", e.Elapsed, e.Test))
			}
			if e.Action == "skip" {
				reason := strings.Join(strings.Fields(p.output[e.Test].String()), " ")
				skipped = append(skipped, e.Package+" "+reason)
			}
		case "fail":
			if e.Test == "" {
				p.printFailed(w)
				delete(packages, e.Package)
				if p.raceDetectorCrashed() {
					crashed = append(crashed, e.Package)
				} else {
					failed = true
				}
			}
		}
	}
}

// raceDetectorCrashed reports whether the process died of a fault in the
// runtime while it moved the clock of a bubble, and nothing had failed.
func (r *results) raceDetectorCrashed() bool {
	var all strings.Builder
	for _, output := range r.output {
		all.Write(output.Bytes())
	}
	text := all.String()
	return strings.Contains(text, "SIGSEGV: segmentation violation\nPC=") &&
		strings.Contains(text, "\ninternal/synctest.Run(") &&
		!strings.Contains(text, "WARNING: DATA RACE") && !strings.Contains(text, "--- FAIL")
}

func (r *results) add(test, output string) {
	if strings.HasPrefix(output, "=== ") {
		return
	}
	if r.output[test] == nil {
		r.output[test] = &bytes.Buffer{}
		r.order = append(r.order, test)
	}
	r.output[test].WriteString(output)
}

// printClosing prints the last line of a package, "ok" or "no test files", and
// which of its tests took long.
func (r *results) printClosing(w io.Writer) {
	if r.output[""] == nil {
		return
	}
	for line := range strings.Lines(r.output[""].String()) {
		if strings.HasPrefix(line, "ok ") || strings.HasPrefix(line, "? ") {
			io.WriteString(w, line)
		}
	}
	for _, line := range r.slow {
		io.WriteString(w, line)
	}
}

// printFailed prints what did not pass, tests included that never ended
// because the process did, and then what belongs to the package.
func (r *results) printFailed(w io.Writer) {
	for _, test := range r.order {
		if test != "" && !r.passed[test] {
			w.Write(r.output[test].Bytes())
		}
	}
	if r.output[""] != nil {
		w.Write(r.output[""].Bytes())
	}
}
