package nitro

import "encoding/binary"

// Unwrap gives the attestation document inside the envelope in which dstack keeps it, and raw itself where it is no such
// envelope. Nothing but the document is taken: events, report data and configuration beside it are signed by nobody.
//
// The envelope is SCALE: version 0, variant 2 (Nitro Enclave), document, list of events (name, payload), 64 bytes of report
// data, configuration.
func Unwrap(raw []byte) []byte {
	e := envelope{rest: raw}
	if len(raw) < 2 || raw[0] != 0 || raw[1] != 2 {
		return raw
	}
	e.take(2)
	document := e.bytes()
	for range min(e.compact(), len(raw)) {
		e.bytes()
		e.bytes()
	}
	e.take(64)
	e.bytes()
	if e.broken || len(e.rest) != 0 {
		return raw
	}
	return document
}

type envelope struct {
	rest   []byte
	broken bool
}

func (e *envelope) take(n int) []byte {
	if n > len(e.rest) {
		e.broken = true
		return nil
	}
	out := e.rest[:n:n]
	e.rest = e.rest[n:]
	return out
}

func (e *envelope) bytes() []byte { return e.take(e.compact()) }

// compact reads an integer of one, two or four bytes; its two lowest bits say which.
func (e *envelope) compact() int {
	first := e.take(1)
	if first == nil {
		return 0
	}
	var wide [4]byte
	size := 1 << (first[0] & 3)
	if size == 8 { // more than 2^30
		e.broken = true
		return 0
	}
	wide[0] = first[0]
	copy(wide[1:], e.take(size-1))
	return int(binary.LittleEndian.Uint32(wide[:]) >> 2)
}
