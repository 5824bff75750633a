package trace

import (
	"encoding/hex"

	"github.com/jurat-tls/jurat/proxy/message"
)

// TraceID is of all spans of one trace. All zero is none.
type TraceID [16]byte

// String is lower-case hex.
func (id TraceID) String() string { return hex.EncodeToString(id[:]) }

// SpanID is of one span. All zero is none.
type SpanID [8]byte

// String is lower-case hex.
func (id SpanID) String() string { return hex.EncodeToString(id[:]) }

// Flags are the trace-flags that are known. The others are not passed on by who takes part in a trace.
type Flags uint8

// The known flags.
const (
	Sampled  Flags = 1 << iota // whoever sent the context may have recorded its span
	RandomID                   // the last seven bytes of the trace id are random (level 2)

	known = Sampled | RandomID
)

// Context is a span as the spans below it see it. Its zero value is none.
type Context struct {
	TraceID TraceID
	SpanID  SpanID
	Flags   Flags
}

// Valid reports whether c names a span.
func (c Context) Valid() bool { return c.TraceID != TraceID{} && c.SpanID != SpanID{} }

const (
	parentName = "traceparent"
	stateName  = "tracestate"

	parentSize = 55
)

// String is c as a traceparent of version 00.
func (c Context) String() string {
	b := make([]byte, 0, parentSize)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, c.TraceID[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, c.SpanID[:])
	b = append(b, '-')
	return string(hex.AppendEncode(b, []byte{byte(c.Flags & known)}))
}

// Parse reads a traceparent (section 3.2). Version 00 has exactly its four fields. What follows them in a higher version, and
// flags that are not known, are overlooked. It answers false for version ff, ids that are all zero, and hex in upper case.
func Parse(s string) (Context, bool) {
	if len(s) < parentSize || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return Context{}, false
	}
	var version, flags [1]byte
	var c Context
	if !lowerHex(version[:], s[:2]) || !lowerHex(c.TraceID[:], s[3:35]) || !lowerHex(c.SpanID[:], s[36:52]) || !lowerHex(flags[:], s[53:55]) {
		return Context{}, false
	}
	if len(s) > parentSize && (version[0] == 0 || s[parentSize] != '-') || version[0] == 0xff || !c.Valid() {
		return Context{}, false
	}
	c.Flags = Flags(flags[0]) & known
	return c, true
}

// lowerHex fills b from the digits, which are twice as many.
func lowerHex(b []byte, digits string) bool {
	var bad byte
	for i := range b {
		high, low := nibble[digits[2*i]], nibble[digits[2*i+1]]
		bad |= high | low
		b[i] = high<<4 | low
	}
	return bad < 16
}

// nibble has 16 and above for what is no lower-case hex digit.
var nibble = func() (table [256]byte) {
	for c := range table {
		table[c] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		table[c] = byte(i)
	}
	return table
}()

// Extract reads the traceparent of a request. It answers false where there is none, more than one, or one that is malformed.
func Extract(fields message.Fields) (Context, bool) {
	found := -1
	for i := range fields {
		if message.Same(fields[i].Name, parentName) {
			if found >= 0 {
				return Context{}, false
			}
			found = i
		}
	}
	if found < 0 {
		return Context{}, false
	}
	return Parse(fields[found].Value)
}
