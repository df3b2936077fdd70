package penalty

import "container/list"

// memory is a map of at most limit entries. Above that it forgets what was used
// longest ago.
type memory[K comparable, V any] struct {
	limit   int
	entries map[K]*list.Element // of an entry
	used    list.List           // the last one used longest ago
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newMemory[K comparable, V any](limit int) *memory[K, V] {
	return &memory[K, V]{limit: limit, entries: make(map[K]*list.Element)}
}

func (m *memory[K, V]) get(k K) (v V, ok bool) {
	e, ok := m.entries[k]
	if !ok {
		return v, false
	}
	m.used.MoveToFront(e)
	return e.Value.(*entry[K, V]).value, true
}

func (m *memory[K, V]) set(k K, v V) {
	if e, ok := m.entries[k]; ok {
		e.Value.(*entry[K, V]).value = v
		m.used.MoveToFront(e)
		return
	}
	if m.used.Len() >= m.limit {
		oldest := m.used.Back()
		m.used.Remove(oldest)
		delete(m.entries, oldest.Value.(*entry[K, V]).key)
	}
	m.entries[k] = m.used.PushFront(&entry[K, V]{k, v})
}

func (m *memory[K, V]) getOrAdd(k K, add func() V) V {
	if v, ok := m.get(k); ok {
		return v
	}
	v := add()
	m.set(k, v)
	return v
}

func (m *memory[K, V]) remove(k K) {
	if e, ok := m.entries[k]; ok {
		m.used.Remove(e)
		delete(m.entries, k)
	}
}
