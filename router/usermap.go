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
	"unsafe"
)

const (
	defaultUser = "*"

	maxMapLine   = 4096 // bytes
	maxMapErrors = 20   // reported one by one; the rest is counted
)

// userMap is a map from users to shards, made for millions of users: keys and
// entries stand one behind the other in large pieces of memory, which are never
// copied to grow, and nothing in them is a pointer for the garbage collector to
// follow. Of five million users of 23 bytes each takes 53 bytes, also while the
// map is read; in a Go map without the line numbers one takes 80.
type userMap struct {
	keys    [][]byte     // pieces of keyPiece bytes
	entries [][]mapEntry // pieces of entryPiece, in the order of lines
	slots   []uint32     // open-addressing hash table of indexes of entries, plus one; 0 is free
	seed    maphash.Seed

	entryCount int
	scratch    []byte // of append
}

const (
	keyPiece   = 1 << 20
	entryPiece = 1 << 16
	maxMapKey  = 1<<16 - 1
)

type mapEntry struct {
	key   uint64 // its place in keys, shifted by 16, and its length
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
	m.build(shards, &errs)
	return m, errs.all("line")
}

// splitMapLine returns the two columns of a line; both are empty if it has
// nothing to say.
func splitMapLine(line []byte) (user, shard []byte, err error) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	for i, c := range line {
		if isControl(rune(c)) && c != '\t' {
			return nil, nil, fmt.Errorf("control character %#02x at byte %d: remove it", c, i+1)
		}
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
	var err error
	if m.scratch, err = names.appendKey(m.scratch[:0], user); err != nil {
		return err
	}
	if len(m.scratch) > maxMapKey {
		return fmt.Errorf("%q has more than %d bytes in its normal form: remove the line", user, maxMapKey)
	}
	last := len(m.keys) - 1
	if last < 0 || len(m.keys[last])+len(m.scratch) > keyPiece {
		m.keys = append(m.keys, nil)
		if last++; last > 0 { // the first one grows: most maps are small
			m.keys[last] = make([]byte, 0, keyPiece)
		}
	}
	place := uint64(last*keyPiece + len(m.keys[last]))
	m.keys[last] = append(m.keys[last], m.scratch...)
	if m.entryCount%entryPiece == 0 {
		m.entries = append(m.entries, nil)
		if m.entryCount > 0 {
			m.entries[m.entryCount/entryPiece] = make([]mapEntry, 0, entryPiece)
		}
	}
	piece := &m.entries[m.entryCount/entryPiece]
	*piece = append(*piece, mapEntry{key: place<<16 | uint64(len(m.scratch)), line: line, shard: shard})
	m.entryCount++
	return nil
}

// build makes the hash table and finds duplicates. A user with two lines for
// the same shard is harmless; with two shards it is an error.
func (m *userMap) build(shards []string, errs *mapErrors) {
	m.slots = make([]uint32, 1<<bits.Len(uint(m.entryCount+m.entryCount/3))) // never more than three quarters full
	for i := range m.entryCount {
		e := m.entry(i)
		key := m.key(e)
		slot := m.slot(maphash.Bytes(m.seed, key), string(key))
		if first := m.slots[slot]; first == 0 {
			m.slots[slot] = uint32(i + 1)
		} else if first := m.entry(int(first - 1)); first.shard != e.shard {
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
	return m.entry(int(i - 1)), true
}

// slot returns the slot that holds user, or the free one where it belongs.
func (m *userMap) slot(hash uint64, user string) uint64 {
	mask := uint64(len(m.slots) - 1)
	for s := hash & mask; ; s = (s + 1) & mask {
		if i := m.slots[s]; i == 0 || string(m.key(m.entry(int(i-1)))) == user {
			return s
		}
	}
}

func (m *userMap) entry(i int) mapEntry { return m.entries[i/entryPiece][i%entryPiece] }

func (m *userMap) key(e mapEntry) []byte {
	place := e.key >> 16
	piece := m.keys[place/keyPiece]
	return piece[place%keyPiece:][:e.key&0xffff]
}

func (m *userMap) find(user string) (shard uint32, ok bool, err error) {
	e, ok := m.lookup(user)
	return e.shard, ok, nil
}

func (m *userMap) line(user string) uint32 {
	e, _ := m.lookup(user)
	return e.line
}

func (m *userMap) count() int { return m.entryCount }

func (m *userMap) memory() int {
	size := 4 * len(m.slots)
	for _, piece := range m.keys {
		size += cap(piece)
	}
	for _, piece := range m.entries {
		size += cap(piece) * int(unsafe.Sizeof(mapEntry{}))
	}
	return size
}

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

// all returns the errors in the order of lines, each as "line 3: problem" where
// a line is what the map has.
func (e *mapErrors) all(what string) []error {
	slices.SortStableFunc(e.first, func(a, b mapError) int { return cmp.Compare(a.line, b.line) })
	var errs []error
	for _, one := range e.first {
		errs = append(errs, fmt.Errorf("%s %d: %w", what, one.line, one.problem))
	}
	if e.more > 0 {
		errs = append(errs, fmt.Errorf("and %d more %ss are wrong", e.more, what))
	}
	return errs
}
