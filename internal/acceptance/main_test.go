// Package acceptance tests doveadm-proxy as its users meet it: the built
// binary between the real doveadm command, or a raw client, and real Dovecot
// backends.
package acceptance

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

var buildDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "acceptance-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// whole: what "make compat" adds. The everyday run does a part of it, in the same
// way.
var whole = flag.Bool("whole", false, "compare the output of 150 users and not of 6, save a gigabyte and not a quarter, connect for 10,000 commands and not for 2,000")

// The binary is built twice: most tests run it with the race detector, those
// that look at memory without.
var (
	racy  = sync.OnceValues(func() (string, error) { return build("racy", "-race") })
	plain = sync.OnceValues(func() (string, error) { return build("plain") })
)

// build builds it in one of two ways, so that no package is compiled in a third
// one: with the race detector, or as make build does.
func build(name string, flags ...string) (string, error) {
	path := filepath.Join(buildDir, name)
	args := append([]string{"build", "-buildvcs=false", "-o", path}, flags...)
	cmd := exec.Command("go")
	if !slices.Contains(flags, "-race") {
		args = append(args, "-trimpath")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	cmd.Args = append(append(cmd.Args, args...), "../../cmd/doveadm-proxy")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}
