package proxy

import (
	"bytes"

	"github.com/doveadm-proxy/doveadm-proxy/doveadm"
)

// userColumn puts the user name in front of each row, as clients below version
// 1.3 expect it when they run a command for several users: there the server
// does that. There is no row separator, so rows are counted.
type userColumn struct {
	field   []byte // the escaped name and a TAB
	columns int64  // of a row without it
	at      int64  // fields of the current row that are complete
	inside  bool   // the current field has begun
	out     []byte
}

func newUserColumn(user string, columns int) *userColumn {
	return &userColumn{field: append(doveadm.AppendEscaped(nil, user), '\t'), columns: int64(columns)}
}

// insert returns output with the column. It is valid until the next call.
func (c *userColumn) insert(output []byte) []byte {
	c.out = c.out[:0]
	for len(output) > 0 {
		if c.at == 0 && !c.inside {
			c.out = append(c.out, c.field...)
		}
		i := bytes.IndexByte(output, '\t')
		c.inside = i < 0
		if c.inside {
			i = len(output) - 1
		} else if c.at++; c.at == c.columns {
			c.at = 0
		}
		c.out = append(c.out, output[:i+1]...)
		output = output[i+1:]
	}
	return c.out
}
