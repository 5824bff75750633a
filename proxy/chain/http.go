package chain

import (
	"bytes"
	"strings"
)

// What the first line of a request may have, for it to be taken for one: in whole, and its method, of which the longest that is
// registered has 17 bytes.
const (
	maxLine   = 16 << 10
	maxMethod = 32
)

// preface is what a connection of HTTP/2 begins with (RFC 9113 section 3.4).
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// DetectHTTP answers which HTTP the first bytes of a connection without TLS are of: http/1.0, http/1.1, h2c or "" for none; and whether
// that is clear, or more bytes could make something else of it. It is after 16 KiB at the latest. What is taken for a request need not
// be a sound one.
func DetectHTTP(p []byte) (name string, clear bool) {
	if n := min(len(p), len(preface)); string(p[:n]) == preface[:n] {
		if n < len(preface) {
			return "", false
		}
		return "h2c", true
	}
	line, _, whole := bytes.Cut(p[:min(len(p), maxLine)], []byte("\n"))
	method, rest, spaced := bytes.Cut(line, []byte(" "))
	switch {
	case len(method) > maxMethod, len(method) == 0 && spaced, len(bytes.Trim(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-")) > 0:
		return "", true
	case !whole:
		return "", len(line) == maxLine
	}
	rest = bytes.TrimSuffix(rest, []byte("\r"))
	for _, name := range []string{"http/1.1", "http/1.0"} {
		if bytes.HasSuffix(rest, []byte(" "+strings.ToUpper(name))) {
			return name, true
		}
	}
	return "", true
}
