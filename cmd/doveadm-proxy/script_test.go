package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"doveadm-proxy": main})
}

// TestScripts runs the command line as its users do.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exitcode": exitCode,
			"daemon":   daemonCommand,
		},
	})
}

// exitCode is the script command "exitcode N PROGRAM ARGS...".
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode N program args...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// daemonCommand is the script command "daemon CONFIG": it runs the daemon until
// the end of the script and waits until it is ready.
func daemonCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: daemon config")
	}
	read, write, err := os.Pipe()
	ts.Check(err)
	exe, err := exec.LookPath("doveadm-proxy")
	ts.Check(err)
	cmd := exec.Command(exe, "serve", "--config", args[0])
	cmd.Dir, cmd.Stderr = ts.Getenv("WORK"), write
	cmd.Env = append(os.Environ(), "WORK="+ts.Getenv("WORK"))
	ts.Check(cmd.Start())
	write.Close()
	ready, ended := make(chan bool, 2), make(chan struct{})
	var log strings.Builder
	go func() {
		defer close(ended)
		defer read.Close()
		for lines := bufio.NewScanner(read); lines.Scan(); {
			fmt.Fprintln(&log, lines.Text())
			if strings.Contains(lines.Text(), "ready:") {
				ready <- true
			}
		}
		ready <- false
	}()
	ts.Defer(func() {
		cmd.Process.Signal(os.Interrupt)
		<-ended
		if err := cmd.Wait(); err != nil {
			ts.Logf("the daemon ended with %v:\n%s", err, &log)
		}
	})
	if !<-ready {
		<-ended
		ts.Fatalf("the daemon does not start:\n%s", &log)
	}
}
