package proxy

// firstRow finds out how many columns "mailbox status all" has on a backend
// from version 1.3 on, whose release is not told: 10 up to 2.4.1, from 2.4.2 on
// 11, because "deleted" is one of all. Until it knows, it holds the output back:
// of a row that breaks off before nobody could say where it would end.
type firstRow struct {
	columns int // 0: not known yet
	held    []byte
	field   int // index of the field that has begun
	length  int // of what there is of it
	passed  bool
}

// The column of the mailbox's GUID if there is no "deleted", or else of its
// size in decimal digits (at most 20).
const (
	guidField  = 8
	guidLength = 32
)

// maxHeld is far more than a row whose first field is a mailbox name.
const maxHeld = 64 << 10

// take takes bytes of channel 0 and returns what can be passed on, which is
// valid until the next call.
func (f *firstRow) take(p []byte) []byte {
	if f.passed {
		return p
	}
	for _, b := range p {
		if b == '\n' {
			f.passed = true // the end of the output
			break
		}
		if b != '\t' {
			f.length++
			continue
		}
		if f.field == guidField {
			f.columns = 11
			if f.length == guidLength {
				f.columns = 10
			}
			f.passed = true
			break
		}
		f.field++
		f.length = 0
	}
	f.held = append(f.held, p...)
	if !f.passed && len(f.held) <= maxHeld {
		return nil
	}
	f.passed = true
	return f.held
}
