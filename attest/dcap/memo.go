package dcap

import "sync"

// memo remembers what was verified, by the whole of the bytes that it was made of: two inputs are never taken for one
// another, and nothing but what verified takes up memory. Whether a signature verifies never changes, so that an entry
// needs no end; whoever gets one judges its dates.
type memo[T any] struct {
	max int // entries; all are forgotten when there would be more

	mu   sync.RWMutex
	good map[string]T
}

func (m *memo[T]) get(raw []byte) (T, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	v, ok := m.good[string(raw)]
	return v, ok
}

func (m *memo[T]) put(raw []byte, v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.good == nil || len(m.good) >= m.max {
		m.good = map[string]T{}
	}
	m.good[string(raw)] = v
}
