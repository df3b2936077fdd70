package router

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"unicode/utf8"
	"unsafe"
)

// constantDB reads a constant database as cdbmake(1) and cdb(1) write it: a
// table of 256 hash tables, the records, and the hash tables. It stays on disk,
// where a decision takes two reads of a few bytes, and is not mapped into
// memory, because a mapped file that somebody cuts short ends the process. What
// is read is checked against the size of the file, and a file that makes no
// sense is an error, not a user who is not in it.
//
// The format is described at https://cr.yp.to/cdb/cdb.txt.
type constantDB struct {
	file   io.ReaderAt
	size   int64
	users  int // records
	tables [256]cdbTable
	index  map[string]uint32 // of shards
	shards []string
}

type cdbTable struct{ place, slots uint32 }

const (
	cdbHeader = 256 * 8 // bytes of the table of tables, and where the records begin

	// cdbSlots is how many slots are read at a time: hash tables are half full,
	// so the second read is rare.
	cdbSlots = 8
	// maxCDBKey and maxCDBShard bound what is read of a record.
	maxCDBKey   = maxMapLine
	maxCDBShard = 128
)

var errCDB = errors.New("not a sound constant database")

// cdbBuffer is what a decision reads into; it would not stay on the stack.
type cdbBuffer struct {
	slots  [8 * cdbSlots]byte
	record [8 + maxCDBKey + maxCDBShard]byte
}

var cdbBuffers = sync.Pool{New: func() any { return new(cdbBuffer) }}

// openCDB opens a database and checks every record.
func openCDB(file *os.File, names *Names, shards []string) (*constantDB, []error) {
	info, err := file.Stat()
	if err != nil {
		return nil, []error{err}
	}
	return newCDB(file, info.Size(), names, shards)
}

func newCDB(file io.ReaderAt, size int64, names *Names, shards []string) (*constantDB, []error) {
	db := &constantDB{file: file, size: size, index: make(map[string]uint32), shards: shards}
	for i, shard := range shards {
		db.index[shard] = uint32(i)
	}
	header := make([]byte, cdbHeader)
	if _, err := io.ReadFull(io.NewSectionReader(file, 0, size), header); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: it has %d bytes and needs %d at least; make it with a tool such as cdb(1), or remove format to use a text file", errCDB, size, cdbHeader)
		}
		return nil, []error{err}
	}
	if size > math.MaxUint32 {
		return nil, []error{fmt.Errorf("%w: it is larger than 4 GiB", errCDB)}
	}
	end := size // of the records
	entries := int64(0)
	for i := range db.tables {
		t := cdbTable{binary.LittleEndian.Uint32(header[8*i:]), binary.LittleEndian.Uint32(header[8*i+4:])}
		if int64(t.place) < cdbHeader || int64(t.place)+8*int64(t.slots) > size {
			return nil, []error{fmt.Errorf("%w: hash table %d does not lie within the file: was it cut short?", errCDB, i)}
		}
		end = min(end, int64(t.place))
		entries += int64(t.slots)
		db.tables[i] = t
	}
	if end+8*entries != size {
		return nil, []error{fmt.Errorf("%w: its hash tables do not end where the file ends: was it cut short?", errCDB)}
	}
	if errs := db.check(end, names); errs != nil {
		return nil, errs
	}
	return db, nil
}

// check reads the records, which end at end.
func (db *constantDB) check(end int64, names *Names) []error {
	var errs mapErrors
	r := bufio.NewReaderSize(io.NewSectionReader(db.file, cdbHeader, end-cdbHeader), 1<<16)
	buf := make([]byte, maxCDBKey+maxCDBShard)
	for place := int64(cdbHeader); place < end; {
		if _, err := io.ReadFull(r, buf[:8]); err != nil {
			return []error{fmt.Errorf("%w: at byte %d: %w", errCDB, place, err)}
		}
		keyLen, dataLen := int64(binary.LittleEndian.Uint32(buf)), int64(binary.LittleEndian.Uint32(buf[4:]))
		place += 8 + keyLen + dataLen
		db.users++
		record := uint32(db.users)
		if place > end {
			return []error{fmt.Errorf("%w: record %d does not end before the hash tables", errCDB, record)}
		}
		if keyLen > maxCDBKey || dataLen > maxCDBShard {
			errs.add(record, fmt.Errorf("a key of %d bytes and a value of %d: write a user or @domain as the key and a shard as the value", keyLen, dataLen))
			if _, err := r.Discard(int(keyLen + dataLen)); err != nil {
				return []error{fmt.Errorf("%w: record %d: %w", errCDB, record, err)}
			}
			continue
		}
		if _, err := io.ReadFull(r, buf[:keyLen+dataLen]); err != nil {
			return []error{fmt.Errorf("%w: record %d: %w", errCDB, record, err)}
		}
		key, shard := buf[:keyLen], buf[keyLen:keyLen+dataLen]
		if problem := checkMapUser(key, names); problem != nil {
			errs.add(record, problem)
		} else if _, ok := db.index[string(shard)]; !ok {
			errs.add(record, fmt.Errorf("user %q: %w", key, checkShard(string(shard), db.shards)))
		}
	}
	return errs.all("record")
}

// checkMapUser checks a key of a database, which nobody has brought into normal
// form.
func checkMapUser(user []byte, names *Names) error {
	for _, c := range user {
		if isControl(rune(c)) {
			return fmt.Errorf("user %q has a control character: remove it", user)
		}
	}
	switch {
	case len(user) == 0:
		return errors.New("an empty user: remove the record")
	case !utf8.Valid(user):
		return fmt.Errorf("user %q is not UTF-8: convert it", user)
	}
	normal, err := names.appendKey(nil, user)
	if err == nil && !bytes.Equal(normal, user) {
		err = fmt.Errorf("user %q is never found, because users are compared in their normal form: write %q", user, normal)
	}
	return err
}

// find returns the shard of exactly this user: of the first record, where there
// are several.
func (db *constantDB) find(user string) (shard uint32, ok bool, err error) {
	if len(user) > maxCDBKey {
		return 0, false, nil
	}
	hash := cdbHash(user)
	table := db.tables[hash&0xff]
	if table.slots == 0 {
		return 0, false, nil
	}
	buf := cdbBuffers.Get().(*cdbBuffer)
	defer cdbBuffers.Put(buf)
	slot := hash >> 8 % table.slots
	for seen := uint32(0); seen < table.slots; {
		n := min(cdbSlots, table.slots-slot, table.slots-seen)
		slots := buf.slots[:8*n]
		if err := db.read(slots, int64(table.place)+8*int64(slot)); err != nil {
			return 0, false, err
		}
		for ; len(slots) > 0; slots = slots[8:] {
			place := binary.LittleEndian.Uint32(slots[4:])
			if place == 0 {
				return 0, false, nil
			}
			if binary.LittleEndian.Uint32(slots) != hash {
				continue
			}
			shard, ok, err := db.record(buf, place, user)
			if ok || err != nil {
				return shard, ok, err
			}
		}
		seen += n
		if slot += n; slot == table.slots {
			slot = 0
		}
	}
	return 0, false, nil
}

func (db *constantDB) line(string) uint32 { return 0 }

func (db *constantDB) count() int { return db.users }

func (db *constantDB) memory() int { return int(unsafe.Sizeof(*db)) }

// record returns the shard of the record at a place if it is user's.
func (db *constantDB) record(buf *cdbBuffer, place uint32, user string) (shard uint32, ok bool, err error) {
	// A shard is shorter than this as a rule; what is missing is read below.
	guess := min(int64(8+len(user)+32), db.size-int64(place))
	if guess < 8 {
		return 0, false, fmt.Errorf("%w: a slot names a place behind the end of the file", errCDB)
	}
	got := buf.record[:guess]
	if err := db.read(got, int64(place)); err != nil {
		return 0, false, err
	}
	keyLen, dataLen := binary.LittleEndian.Uint32(got), binary.LittleEndian.Uint32(got[4:])
	if int64(keyLen) != int64(len(user)) {
		return 0, false, nil
	}
	if dataLen > maxCDBShard || int64(place)+8+int64(keyLen)+int64(dataLen) > db.size {
		return 0, false, fmt.Errorf("%w: a record does not end within the file", errCDB)
	}
	whole := buf.record[:8+keyLen+dataLen]
	if len(whole) > len(got) {
		if err := db.read(whole, int64(place)); err != nil {
			return 0, false, err
		}
	}
	if string(whole[8:8+keyLen]) != user {
		return 0, false, nil
	}
	shard, known := db.index[string(whole[8+keyLen:])]
	if !known {
		return 0, false, fmt.Errorf("the value of user %q: %w", user, checkShard(string(whole[8+keyLen:]), db.shards))
	}
	return shard, true, nil
}

func (db *constantDB) read(b []byte, at int64) error {
	if _, err := db.file.ReadAt(b, at); err != nil {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%w: it was cut short after it was opened: replace such a file by renaming another one", errCDB)
		}
		return fmt.Errorf("cannot read the map: %w", err)
	}
	return nil
}

// cdbHash is the hash function of the format.
func cdbHash(user string) uint32 {
	h := uint32(5381)
	for i := range len(user) {
		h = (h<<5 + h) ^ uint32(user[i])
	}
	return h
}
