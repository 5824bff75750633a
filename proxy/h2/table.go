package h2

// table finds the streams of a connection by their numbers: open addressing, at most half full. Numbers come one after
// the other, so that most streams are where they are first looked for.
type table struct {
	slots []*Stream
	count int
}

func (t *table) get(id uint32) *Stream {
	if t.count == 0 {
		return nil
	}
	mask := uint32(len(t.slots) - 1)
	for i := id >> 1 & mask; ; i = (i + 1) & mask {
		if s := t.slots[i]; s == nil || s.id == id {
			return s
		}
	}
}

func (t *table) put(s *Stream) {
	if 2*(t.count+1) > len(t.slots) {
		old := t.slots
		t.slots = make([]*Stream, max(8, 2*len(old)))
		for _, o := range old {
			if o != nil {
				t.place(o)
			}
		}
	}
	t.place(s)
	t.count++
}

func (t *table) place(s *Stream) {
	mask := uint32(len(t.slots) - 1)
	i := s.id >> 1 & mask
	for t.slots[i] != nil {
		i = (i + 1) & mask
	}
	t.slots[i] = s
}

func (t *table) remove(id uint32) {
	mask := uint32(len(t.slots) - 1)
	i := id >> 1 & mask
	for t.slots[i] == nil || t.slots[i].id != id {
		i = (i + 1) & mask
	}
	// Those that lie behind move up, unless that would put them before where they are looked for.
	for j := i; ; {
		t.slots[i] = nil
		for {
			j = (j + 1) & mask
			if t.slots[j] == nil {
				if t.count--; t.count == 0 && len(t.slots) > 128 {
					t.slots = nil // what one burst needed is not held for ever
				}
				return
			}
			if (j-t.slots[j].id>>1)&mask >= (j-i)&mask {
				break
			}
		}
		t.slots[i] = t.slots[j]
		i = j
	}
}

// snapshot answers the numbers of all streams, for loops in which some end.
func (t *table) snapshot() []uint32 {
	if t.count == 0 {
		return nil
	}
	all := make([]uint32, 0, t.count)
	for _, s := range t.slots {
		if s != nil {
			all = append(all, s.id)
		}
	}
	return all
}
