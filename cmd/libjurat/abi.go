package main

/*
#define JURAT_NO_PROTOTYPES
#include "jurat.h"
#include <stdlib.h>
*/
import "C"

import (
	"bytes"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"
	"unsafe"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/cmd/internal/judge"
)

//export jurat_appraise
func jurat_appraise(in *C.jurat_request, answer **C.char) C.int {
	code, text := contained(func() (int, []byte) {
		r, err := take(in)
		if err != nil {
			return failure(err)
		}
		return r.answer(func() time.Time { return time.Now().UTC().Round(0) })
	})
	if answer != nil {
		*answer = given(text)
	}
	return C.int(code)
}

//export jurat_version
func jurat_version() *C.char {
	_, text := contained(func() (int, []byte) {
		version := "(devel)"
		if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
			version = info.Main.Version
		}
		var b bytes.Buffer
		if err := judge.WriteJSON(&b, map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}); err != nil {
			return failure(err)
		}
		return 0, b.Bytes()
	})
	return given(text)
}

//export jurat_free
func jurat_free(answer *C.char) { C.free(unsafe.Pointer(answer)) }

// given is text in memory that the caller frees; nil where there is none. C.CString would end the program instead.
func given(text []byte) *C.char {
	to := C.calloc(C.size_t(len(text)+1), 1)
	if to == nil {
		return nil
	}
	copy(unsafe.Slice((*byte)(to), len(text)), text)
	return (*C.char)(to)
}

// taker copies what a request points to, as far as all of it together is within bounds. The first error stays.
type taker struct {
	left C.size_t
	err  error
}

func (t *taker) bytes(what string, b C.jurat_bytes) []byte {
	switch {
	case t.err != nil || b.size == 0:
		return nil
	case b.data == nil:
		t.err = wrong("%s has a size and no data", what)
		return nil
	case b.size > t.left:
		t.err = &attest.Error{Code: attest.CodeConfigValue, Check: "request", Got: fmt.Sprintf("%s of %d bytes", what, uint64(b.size)), Want: "at most 16 MiB in all"}
		return nil
	}
	t.left -= b.size
	return C.GoBytes(b.data, C.int(b.size)) // within an int, as the bound is
}

func (t *taker) text(what string, b C.jurat_bytes) string { return string(t.bytes(what, b)) }

// count bounds an array before it is looked at.
func (t *taker) count(what string, at unsafe.Pointer, n C.size_t) int {
	switch {
	case t.err != nil || n == 0:
		return 0
	case at == nil || n > maxCount:
		t.err = wrong("%s: %d elements, want at most %d, and where they are", what, uint64(n), maxCount)
		return 0
	}
	return int(n)
}

const (
	maxBytes = 16 << 20
	maxCount = 64
)

// The header tells the same.
var (
	_ [C.JURAT_MAX_BYTES - maxBytes]struct{}
	_ [maxBytes - C.JURAT_MAX_BYTES]struct{}
	_ [C.JURAT_MAX_COUNT - maxCount]struct{}
	_ [maxCount - C.JURAT_MAX_COUNT]struct{}
)

// take makes a request of what C has.
func take(in *C.jurat_request) (*request, error) {
	if in == nil || in.struct_size != C.sizeof_jurat_request {
		return nil, wrong("no request, or one of another version of the library: struct_size has to be %d", C.sizeof_jurat_request)
	}
	t := &taker{left: maxBytes}
	r := &request{
		record: t.bytes("record", in.record), chain: t.bytes("chain", in.chain), evidence: t.bytes("evidence", in.evidence),
		target: t.text("target", in.target), policy: t.bytes("policy", in.policy), time: t.text("time", in.time),
		endorsements: t.text("endorsements", in.endorsements), format: t.text("format", in.format), eventLog: t.bytes("event_log", in.event_log),
		reportData: t.bytes("report_data", in.report_data), anyReportData: in.unsafe_any_report_data != 0, unsafeBinding: t.text("unsafe_binding", in.unsafe_binding),
	}
	for _, p := range unsafe.Slice(in.parts, t.count("parts", unsafe.Pointer(in.parts), in.parts_count)) {
		name := t.text("the name of a part", p.name)
		if _, twice := r.parts[name]; t.err == nil && (name == "" || twice) {
			t.err = wrong("a part without a name, or two with one")
		}
		if r.parts == nil {
			r.parts = map[string][]byte{}
		}
		r.parts[name] = t.bytes("a part", p.content)
	}
	for _, b := range unsafe.Slice(in.stapled, t.count("stapled", unsafe.Pointer(in.stapled), in.stapled_count)) {
		r.stapled = append(r.stapled, t.bytes("a stapled endorsement", b))
	}
	return r, t.err
}
