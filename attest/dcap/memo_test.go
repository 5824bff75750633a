package dcap

import "testing"

// A memo holds no more than it may, and takes no input for another.
func TestMemo(t *testing.T) {
	t.Parallel()
	m := memo[int]{max: 2}
	if _, ok := m.get(nil); ok {
		t.Error("an empty memo knows something")
	}
	for i := range 9 {
		m.put([]byte{byte(i)}, i)
		if v, ok := m.get([]byte{byte(i)}); !ok || v != i || len(m.good) > 2 {
			t.Errorf("%d: %d, %v, %d entries", i, v, ok, len(m.good))
		}
		if _, ok := m.get([]byte{byte(i), 0}); ok {
			t.Error("took one input for another")
		}
	}
}
