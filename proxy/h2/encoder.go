package h2

import (
	"hash/maphash"
	"math"
)

// encoder writes header blocks (RFC 7541). What it finds again it indexes, from the second time that it meets a field: one
// that differs in each message then costs no room in the table. It leaves strings as they are: Huffman's code would save
// bytes on links that have enough, and cost both ends time.
type encoder struct {
	limit   int // bytes of the table, at most what the peer and we allow
	lowest  int // that limit has been since the last block, to be told first (RFC 7541 section 4.2)
	changed bool

	size     int
	sizes    []int // of the entries from first on, oldest first
	first    int
	inserted uint32 // entries ever; the newest has this number
	evicted  uint32 // entries ever; those up to this number are gone

	known []entry  // what is in the peer's table, as far as it is remembered: each field has a group of places where it may be
	met   []uint64 // bits, two for each field that was met, as its hash says
	meets int      // fields in met
}

// entry is a field that was given a number in the table.
type entry struct {
	name, value string
	number      uint32
	hash        uint32
}

const (
	knownFields  = 16 // powers of two: a connection that carries little holds little
	mostFields   = 512
	ways         = 4
	metWords     = 64
	mostMet      = 256 // then one of 60 that were not met seems to have been; they are forgotten, and those in the table found
	firstDynamic = 62
)

func newEncoder() encoder { return encoder{limit: initialTable, lowest: initialTable} }

// setLimit is told what the peer and we allow.
func (e *encoder) setLimit(n int) {
	if n == e.limit && !e.changed {
		return
	}
	e.lowest, e.limit, e.changed = min(e.lowest, n), n, true
	e.shrink(n)
}

// forget makes the next block empty the peer's table: after a block that was made but is not sent, the two would differ.
func (e *encoder) forget() {
	e.shrink(0)
	e.lowest, e.changed = 0, true
}

// begin is called before the first field of a block.
func (e *encoder) begin(dst []byte) []byte {
	if !e.changed {
		return dst
	}
	e.changed = false
	if e.lowest < e.limit {
		// Any size up to the lowest will do, and Go's decoder takes a second one only while its table is empty.
		e.shrink(0)
		dst = appendInt(dst, 0x20, 5, 0)
	}
	e.lowest = e.limit
	return appendInt(dst, 0x20, 5, e.limit)
}

// find writes a field as a number where the table has it. What is in it was found to be valid and no secret.
func (e *encoder) find(dst []byte, hash uint32, name, value string) ([]byte, bool) {
	if e.known == nil {
		return dst, false
	}
	group := e.group(hash)
	for i := range group {
		k := &group[i]
		if k.hash == hash && k.number > e.evicted && k.value == value && k.name == name {
			return appendInt(dst, 0x80, 7, firstDynamic+int(e.inserted-k.number)), true
		}
	}
	return dst, false
}

// add writes a valid field that find has not found, and takes it into the table if it has been met before.
func (e *encoder) add(dst []byte, hash uint32, static int, name, value string) []byte {
	size := len(name) + len(value) + 32
	if size > e.limit/4 || e.inserted == math.MaxUint32 { // it would drive out the rest; or there are no numbers left
		return appendLiteral(dst, 0, 4, static, name, value)
	}
	if e.known == nil {
		e.known, e.met = make([]entry, knownFields), make([]uint64, metWords)
	}
	if !e.meet(hash) {
		return appendLiteral(dst, 0, 4, static, name, value)
	}
	e.shrink(e.limit - size)
	e.inserted++
	e.size += size
	e.sizes = append(e.sizes, size)
	k := e.place(hash)
	for k.number > e.evicted && len(e.known) < mostFields {
		old := e.known
		e.known = make([]entry, 2*len(old))
		for _, o := range old {
			if o.number > e.evicted {
				*e.place(o.hash) = o
			}
		}
		k = e.place(hash)
	}
	*k = entry{name, value, e.inserted, hash}
	return appendLiteral(dst, 0x40, 6, static, name, value)
}

// meet reports whether a field was met before. That one differs in each message does not make others forgotten each time.
func (e *encoder) meet(hash uint32) bool {
	first, second := hash>>20, hash>>8&0xfff
	a, b := &e.met[first/64], &e.met[second/64]
	met := *a>>(first%64)&1 != 0 && *b>>(second%64)&1 != 0
	if !met {
		if e.meets++; e.meets > mostMet {
			clear(e.met)
			e.meets = 1
		}
		*a |= 1 << (first % 64)
		*b |= 1 << (second % 64)
	}
	return met
}

// group is where a field may be.
func (e *encoder) group(hash uint32) *[ways]entry {
	at := hash & uint32(len(e.known)-1) &^ (ways - 1)
	return (*[ways]entry)(e.known[at:])
}

// place is where a field is put: in the place of the oldest of its group.
func (e *encoder) place(hash uint32) *entry {
	group := e.group(hash)
	oldest := &group[0]
	for i := range group {
		if group[i].number < oldest.number {
			oldest = &group[i]
		}
	}
	return oldest
}

// hash spreads fields; clients don't know its seed, and cannot make theirs meet.
func (p *Pool) hash(name, value string) uint32 {
	return uint32(maphash.String(p.seed, name)>>32)*31 + uint32(maphash.String(p.seed, value)>>32)
}

// shrink evicts the oldest entries until the rest has n bytes or less (RFC 7541 section 4.3).
func (e *encoder) shrink(n int) {
	for e.size > n && e.first < len(e.sizes) {
		e.size -= e.sizes[e.first]
		e.first++
		e.evicted++
	}
	if 2*e.first >= len(e.sizes) {
		e.sizes = e.sizes[:copy(e.sizes, e.sizes[e.first:])]
		e.first = 0
	}
}

func appendIndexed(dst []byte, n int) []byte { return appendInt(dst, 0x80, 7, n) }

func appendLiteral(dst []byte, kind byte, bits uint, static int, name, value string) []byte {
	dst = appendInt(dst, kind, bits, static)
	if static == 0 {
		dst = append(appendInt(dst, 0, 7, len(name)), name...)
	}
	return append(appendInt(dst, 0, 7, len(value)), value...)
}

// appendInt writes n in the low bits of a byte that begins with kind, and as many more bytes as it takes (RFC 7541
// section 5.1).
func appendInt(dst []byte, kind byte, bits uint, n int) []byte {
	most := 1<<bits - 1
	if n < most {
		return append(dst, kind|byte(n))
	}
	dst = append(dst, kind|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

// static is the number of name in the static table (RFC 7541 appendix A), or 0.
func static(name string) int {
	switch name {
	case "accept-charset":
		return 15
	case "accept-encoding":
		return 16
	case "accept-language":
		return 17
	case "accept-ranges":
		return 18
	case "accept":
		return 19
	case "access-control-allow-origin":
		return 20
	case "age":
		return 21
	case "allow":
		return 22
	case "authorization":
		return 23
	case "cache-control":
		return 24
	case "content-disposition":
		return 25
	case "content-encoding":
		return 26
	case "content-language":
		return 27
	case "content-length":
		return 28
	case "content-location":
		return 29
	case "content-range":
		return 30
	case "content-type":
		return 31
	case "cookie":
		return 32
	case "date":
		return 33
	case "etag":
		return 34
	case "expect":
		return 35
	case "expires":
		return 36
	case "from":
		return 37
	case "host":
		return 38
	case "if-match":
		return 39
	case "if-modified-since":
		return 40
	case "if-none-match":
		return 41
	case "if-range":
		return 42
	case "if-unmodified-since":
		return 43
	case "last-modified":
		return 44
	case "link":
		return 45
	case "location":
		return 46
	case "max-forwards":
		return 47
	case "proxy-authenticate":
		return 48
	case "proxy-authorization":
		return 49
	case "range":
		return 50
	case "referer":
		return 51
	case "refresh":
		return 52
	case "retry-after":
		return 53
	case "server":
		return 54
	case "set-cookie":
		return 55
	case "strict-transport-security":
		return 56
	case "transfer-encoding":
		return 57
	case "user-agent":
		return 58
	case "vary":
		return 59
	case "via":
		return 60
	case "www-authenticate":
		return 61
	}
	return 0
}

// secret reports whether a field called name is never to get into a table, from where it could be guessed bit by bit
// (RFC 7541 section 7.1).
func secret(name string) bool {
	switch name {
	case "authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token", "x-csrf-token", "x-xsrf-token":
		return true
	}
	return false
}
