package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// keepMemory makes the kernel write no core of this process, and keeps other
// processes of the same user from reading its memory: passwords are in it.
// Those of root still can.
func keepMemory() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_DUMPABLE): %w", err)
	}
	return nil
}
