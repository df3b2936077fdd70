package tlsconn

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRecords(t *testing.T) {
	stream := []byte("\x16\x03\x03\x00\x02ab" + "\x17\x03\x03\x00\x00" + "\x17\x03\x03\x01\x00" + strings.Repeat("c", 256))
	whole := map[int]bool{0: true, 7: true, 12: true, len(stream): true}
	for _, step := range []int{1, 2, 3, 5, 6, 7, 12, len(stream)} {
		var r records
		for at := 0; ; at += step {
			if at > len(stream) {
				break
			}
			if diff := cmp.Diff(!whole[at], r.inside()); diff != "" {
				t.Errorf("steps of %d, at %d: %s", step, at, diff)
			}
			r.follow(stream[at:min(at+step, len(stream))])
		}
	}
}

// FuzzRecords cuts a stream of records anywhere.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("\x16\x03\x03\x00\x02ab\x17\x03"), uint8(3))
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		var whole, cut records
		whole.follow(stream)
		for rest := stream; len(rest) > 0; {
			n := min(int(step)+1, len(rest))
			cut.follow(rest[:n])
			rest = rest[n:]
		}
		if whole.inside() != cut.inside() || whole.left != cut.left || whole.have != cut.have {
			t.Error(fmt.Sprint(whole, cut))
		}
	})
}
