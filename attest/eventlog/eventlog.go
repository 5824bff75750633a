package eventlog

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// Algorithm is a TPM_ALG_ID of a hash.
type Algorithm uint16

// Hashes that logs use (TCG Algorithm Registry, table 3).
const (
	SHA1   Algorithm = 0x0004
	SHA256 Algorithm = 0x000b
	SHA384 Algorithm = 0x000c
	SHA512 Algorithm = 0x000d
)

// Size of a digest in bytes; 0 for an algorithm that is not known.
func (a Algorithm) Size() int {
	switch a {
	case SHA1:
		return 20
	case SHA256:
		return 32
	case SHA384:
		return 48
	case SHA512:
		return 64
	}
	return 0
}

// Event types that this package gives a meaning (Firmware Profile table 27).
const (
	NoAction  = 0x00000003 // EV_NO_ACTION: information, not extended into a register
	Separator = 0x00000004 // EV_SEPARATOR
)

// Bounds on a log.
const (
	MaxSize       = attest.MaxEventLog
	maxEvents     = 8192
	maxAlgorithms = 8
	maxDigest     = 64
	maxIndex      = 31
)

// Log is a decoded log.
type Log struct {
	Algorithms []Algorithm // of which each event has a digest
	Events     []Event     // in order, without the header
	// Locality is the one that started the measurements, from a StartupLocality event; it is where register 0 begins.
	Locality uint8
}

// Event is one entry.
type Event struct {
	Index   uint32 // PCR of a TPM; in a CCEL 0 for MRTD and 1 to 4 for RTMR0 to RTMR3
	Type    uint32
	Digests []Digest
	Data    []byte // not covered by any digest in general
}

// Digest is what was extended into the register's bank of one algorithm.
type Digest struct {
	Algorithm Algorithm
	Value     []byte
}

const check = "evidence.log"

func malformed(at int, format string, args ...any) *attest.Error {
	return &attest.Error{Code: attest.CodeMalformed, Check: check, Got: fmt.Sprintf("at byte %d: ", at) + fmt.Sprintf(format, args...)}
}

// reader takes fields off a log. For a field that is not there it gives zeros, and ok is false from then on.
type reader struct {
	raw []byte
	at  int
	ok  bool
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.raw)-r.at {
		r.ok = false
		return nil
	}
	b := r.raw[r.at : r.at+n : r.at+n]
	r.at += n
	return b
}

func (r *reader) u8() (v uint8) {
	if b := r.bytes(1); b != nil {
		v = b[0]
	}
	return v
}

func (r *reader) u16() (v uint16) {
	if b := r.bytes(2); b != nil {
		v = binary.LittleEndian.Uint16(b)
	}
	return v
}

func (r *reader) u32() (v uint32) {
	if b := r.bytes(4); b != nil {
		v = binary.LittleEndian.Uint32(b)
	}
	return v
}

// counted takes a length of 4 bytes and as many bytes.
func (r *reader) counted() []byte { return r.bytes(int(r.u32())) }

// Parse decodes a log. The area that firmware reserves for one is larger than the log: it ends where nothing but 00 or
// nothing but FF follows. The Log shares no memory with raw.
func Parse(raw []byte) (*Log, error) {
	if len(raw) > MaxSize {
		return nil, &attest.Error{Code: attest.CodeOversized, Check: check, Got: fmt.Sprintf("%d bytes", len(raw)), Want: fmt.Sprintf("at most %d", MaxSize)}
	}
	r := &reader{raw: bytes.Clone(raw), ok: true}
	log := new(Log)
	sizes, err := log.header(r)
	if err != nil {
		return nil, err
	}
	for end := filling(r.raw); r.at < end; {
		if len(log.Events) == maxEvents {
			return nil, malformed(r.at, "more than %d events", maxEvents)
		}
		e, err := event(r, sizes)
		if err != nil {
			return nil, err
		}
		log.Events = append(log.Events, e)
		if err := log.startup(r.at, e); err != nil {
			return nil, err
		}
	}
	return log, nil
}

// filling tells where nothing but 00 or nothing but FF follows. No event begins there: it has digests, of which 00000000h
// or FFFFFFFFh is no number.
func filling(raw []byte) int {
	return min(len(bytes.TrimRight(raw, "\x00")), len(bytes.TrimRight(raw, "\xff")))
}

// algorithm is one that the header declares.
type algorithm struct {
	id   Algorithm
	size int
}

// header decodes the first event, which has the form of a TCG_PCR_EVENT and holds a TCG_EfiSpecIDEvent (chapter 10.4.5.1).
// Its register is 0 in TCG2 and 1 in a CCEL, and says nothing.
func (l *Log) header(r *reader) ([]algorithm, error) {
	r.u32()
	kind, digest, data := r.u32(), r.bytes(20), r.counted()
	if kind != NoAction || bytes.Count(digest, []byte{0}) != 20 {
		return nil, malformed(0, "no header of a crypto agile log")
	}
	h := &reader{raw: data, ok: true}
	signature := h.bytes(16)
	h.u32() // platform class
	minor, major := h.u8(), h.u8()
	h.u8() // errata
	h.u8() // size of an UINTN
	count := h.u32()
	if string(signature) != "Spec ID Event03\x00" || major != 2 || minor != 0 || count == 0 || count > maxAlgorithms {
		return nil, malformed(0, "a header of another log than version 2.0 with 1 to %d algorithms", maxAlgorithms)
	}
	list := make([]algorithm, 0, count)
	for range count {
		a := algorithm{Algorithm(h.u16()), int(h.u16())}
		if known := a.id.Size(); a.size == 0 || a.size > maxDigest || known != 0 && a.size != known {
			return nil, malformed(0, "algorithm %#x with digests of %d bytes", uint16(a.id), a.size)
		}
		for _, other := range list {
			if other.id == a.id {
				return nil, duplicate("algorithm %#x in the header", a.id)
			}
		}
		list = append(list, a)
		l.Algorithms = append(l.Algorithms, a.id)
	}
	h.bytes(int(h.u8())) // vendor's information
	if !h.ok || h.at != len(data) {
		return nil, malformed(0, "a header of the wrong length")
	}
	return list, nil
}

func duplicate(format string, args ...any) *attest.Error {
	return &attest.Error{Code: attest.CodeDuplicateField, Check: check, Got: fmt.Sprintf(format, args...), Want: "once"}
}

// event decodes a TCG_PCR_EVENT2 (chapter 10.2.2): one digest of each declared algorithm.
func event(r *reader, sizes []algorithm) (e Event, err error) {
	start := r.at
	e.Index, e.Type = r.u32(), r.u32()
	count := r.u32()
	if e.Index > maxIndex || int64(count) != int64(len(sizes)) {
		return e, malformed(start, "register %d with %d digests", e.Index, count)
	}
	for range count {
		id := Algorithm(r.u16())
		for _, d := range e.Digests {
			if d.Algorithm == id {
				return e, duplicate("digest of algorithm %#x", id)
			}
		}
		size := 0
		for _, a := range sizes {
			if a.id == id {
				size = a.size
			}
		}
		if size == 0 {
			return e, malformed(start, "a digest of algorithm %#x, which the header does not declare", uint16(id))
		}
		e.Digests = append(e.Digests, Digest{id, r.bytes(size)})
	}
	e.Data = r.counted()
	if !r.ok {
		return e, malformed(start, "an event longer than the log")
	}
	return e, nil
}

// startup takes note of a StartupLocality event (chapter 10.4.5.3).
func (l *Log) startup(at int, e Event) error {
	locality, ok := bytes.CutPrefix(e.Data, []byte("StartupLocality\x00"))
	if e.Type != NoAction || e.Index != 0 || !ok {
		return nil
	}
	if len(locality) != 1 || locality[0] != 0 && locality[0] != 3 && locality[0] != 4 {
		return malformed(at, "startup from locality %x", locality)
	}
	l.Locality = locality[0]
	return nil
}

// Digest of the event in the bank of one algorithm, nil where there is none.
func (e *Event) Digest(a Algorithm) []byte {
	for _, d := range e.Digests {
		if d.Algorithm == a {
			return d.Value
		}
	}
	return nil
}
