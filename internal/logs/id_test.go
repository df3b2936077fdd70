package logs

import (
	"os"
	"syscall"
	"testing"
)

// idOf returns what JOURNAL_STREAM would have for f.
func idOf(t *testing.T, f *os.File) (device, inode uint64) {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Dev, st.Ino
}
