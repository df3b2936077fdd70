package dovecot

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// process is one live process.
type process struct {
	pid  int
	name string // at most 15 bytes, as the kernel keeps it
}

// processGroup lists the live processes of a process group. Zombies do not
// count: what Dovecot's master leaves behind is reaped by the system's first
// process, which in a container may never do it.
func processGroup(group int) []process {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var found []process
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		if p, pgrp, state := parseStat(string(stat)); pgrp == group && state != "Z" && state != "X" {
			found = append(found, p)
		}
	}
	return found
}

// parseStat reads the beginning of /proc/PID/stat, see proc_pid_stat(5):
// "PID (NAME) STATE PPID PGRP ...", where the name may contain anything.
func parseStat(stat string) (p process, group int, state string) {
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return process{}, 0, ""
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) < 3 {
		return process{}, 0, ""
	}
	p.name = stat[open+1 : end]
	p.pid, _ = strconv.Atoi(strings.TrimSpace(stat[:open]))
	group, _ = strconv.Atoi(fields[2])
	return p, group, fields[0]
}
