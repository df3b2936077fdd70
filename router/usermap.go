package router

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/bits"
	"slices"
	"unicode/utf8"
)

const (
	defaultUser = "*"

	maxMapLine   = 4096 // bytes
	maxMapErrors = 20   // reported one by one; the rest is counted
)

// userMap is a map from users to shards, made for millions of users: the keys
// stand one behind the other in one piece of memory, and nothing in it is a
// pointer for the garbage collector to follow. A user of 23 bytes takes 47
// bytes; in a Go map without the line numbers it takes 80.
type userMap struct {
	keys    []byte
	entries []mapEntry // in the order of lines, with one behind the last that ends its key
	slots   []uint32   // open-addressing hash table of indexes into entries, plus one; 0 is free
	seed    maphash.Seed
}

type mapEntry struct {
	start uint64 // of the key in keys; it ends where the next one starts
	line  uint32
	shard uint32 // index into the shards the map was read for
}

// readUserMap reads the lines of a file route, as the package comment describes
// them. The errors name each line that is wrong.
func readUserMap(r io.Reader, names *Names, shards []string) (*userMap, []error) {
	index := make(map[string]uint32, len(shards))
	for i, shard := range shards {
		index[shard] = uint32(i)
	}
	m := &userMap{seed: maphash.MakeSeed()}
	var errs mapErrors
	lines := bufio.NewReaderSize(r, maxMapLine)
	for number := uint32(1); ; number++ {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			errs.add(number, fmt.Errorf("line of more than %d bytes: write \"user shard\"", maxMapLine))
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = lines.ReadSlice('\n')
			}
			line = nil
		}
		if err != nil && err != io.EOF {
			return nil, []error{fmt.Errorf("cannot read the map: %w", err)}
		}
		if number == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff")) // some editors mark UTF-8 so
		}
		user, shard, problem := splitMapLine(line)
		switch {
		case problem != nil:
			errs.add(number, problem)
		case len(user) > 0:
			i, ok := index[string(shard)]
			if !ok {
				errs.add(number, checkShard(string(shard), shards))
			} else {
				if err := m.append(names, user, number, i); err != nil {
					errs.add(number, err)
				}
			}
		}
		if err == io.EOF {
			break
		}
	}
	m.entries = append(m.entries, mapEntry{start: uint64(len(m.keys))})
	m.build(shards, &errs)
	return m, errs.all()
}

// splitMapLine returns the two columns of a line; both are empty if it has
// nothing to say.
func splitMapLine(line []byte) (user, shard []byte, err error) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if i := bytes.IndexFunc(line, func(r rune) bool { return isControl(r) && r != '\t' }); i >= 0 {
		return nil, nil, fmt.Errorf("control character %#02x at byte %d: remove it", line[i], i+1)
	}
	user, rest := mapColumn(line)
	if len(user) == 0 {
		return nil, nil, nil
	}
	shard, rest = mapColumn(rest)
	if len(shard) == 0 {
		return nil, nil, fmt.Errorf("no shard behind %q: write \"user shard\"", user)
	}
	if extra, _ := mapColumn(rest); len(extra) > 0 {
		return nil, nil, fmt.Errorf("a third column, %q: write \"user shard\", and a # before a comment", extra)
	}
	switch {
	case !utf8.Valid(user):
		return nil, nil, fmt.Errorf("user %q is not UTF-8: convert the file", user)
	case string(user) == "@":
		return nil, nil, errors.New("no domain behind the @: write \"@domain shard\", or \"* shard\" for everybody else")
	case string(user) != defaultUser && bytes.IndexByte(user, '*') >= 0:
		return nil, nil, fmt.Errorf("%q is a pattern: write \"@domain shard\" for a whole domain, "+
			"\"* shard\" for everybody else, or use a match route", user)
	}
	return user, shard, nil
}

// mapColumn returns the first column of a line and what follows it; a comment
// is no column.
func mapColumn(line []byte) (column, rest []byte) {
	line = bytes.TrimLeft(line, " \t")
	if len(line) == 0 || line[0] == '#' {
		return nil, nil
	}
	if i := bytes.IndexAny(line, " \t"); i >= 0 {
		return line[:i], line[i:]
	}
	return line, nil
}

// append adds an entry, with the key in normal form. The map is of no use
// before build.
func (m *userMap) append(names *Names, user []byte, line, shard uint32) error {
	e := mapEntry{start: uint64(len(m.keys)), line: line, shard: shard}
	keys, err := names.appendKey(m.keys, user)
	if err != nil {
		return err
	}
	m.keys, m.entries = keys, append(m.entries, e)
	return nil
}

// build makes the hash table and finds duplicates. A user with two lines for
// the same shard is harmless; with two shards it is an error.
func (m *userMap) build(shards []string, errs *mapErrors) {
	m.keys, m.entries = bytes.Clone(m.keys), slices.Clone(m.entries) // without the room to grow
	m.slots = make([]uint32, 1<<bits.Len(uint(2*len(m.entries))))    // never more than half full
	for i := range len(m.entries) - 1 {
		key, e := m.key(i), m.entries[i]
		slot := m.slot(maphash.Bytes(m.seed, key), string(key))
		if first := m.slots[slot]; first == 0 {
			m.slots[slot] = uint32(i + 1)
		} else if first := m.entries[first-1]; first.shard != e.shard {
			errs.add(e.line, fmt.Errorf("%q is given to %s, and on line %d to %s: remove one of the lines",
				key, shards[e.shard], first.line, shards[first.shard]))
		}
	}
}

// lookup returns the entry of exactly this user.
func (m *userMap) lookup(user string) (mapEntry, bool) {
	i := m.slots[m.slot(maphash.String(m.seed, user), user)]
	if i == 0 {
		return mapEntry{}, false
	}
	return m.entries[i-1], true
}

// slot returns the slot that holds user, or the free one where it belongs.
func (m *userMap) slot(hash uint64, user string) uint64 {
	mask := uint64(len(m.slots) - 1)
	for s := hash & mask; ; s = (s + 1) & mask {
		if i := m.slots[s]; i == 0 || string(m.key(int(i-1))) == user {
			return s
		}
	}
}

func (m *userMap) key(i int) []byte { return m.keys[m.entries[i].start:m.entries[i+1].start] }

// mapErrors collects what is wrong with a map.
type mapErrors struct {
	first []mapError
	more  int
}

type mapError struct {
	line    uint32
	problem error
}

func (e *mapErrors) add(line uint32, problem error) {
	if len(e.first) == maxMapErrors {
		e.more++
		return
	}
	e.first = append(e.first, mapError{line, problem})
}

// all returns the errors in the order of lines, each as "line 3: problem".
func (e *mapErrors) all() []error {
	slices.SortStableFunc(e.first, func(a, b mapError) int { return cmp.Compare(a.line, b.line) })
	var errs []error
	for _, one := range e.first {
		errs = append(errs, fmt.Errorf("line %d: %w", one.line, one.problem))
	}
	if e.more > 0 {
		errs = append(errs, fmt.Errorf("and %d more lines are wrong", e.more))
	}
	return errs
}
