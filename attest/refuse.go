package attest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// Refuse makes an Error of what a check found and what it wanted to find.
func Refuse(code Code, check, got, want string) *Error {
	return &Error{Code: code, Check: check, Got: got, Want: want}
}

// Quote shows text that somebody else chose: its first 64 characters, with whatever could pass for more than text escaped.
func Quote(s string) string { return fmt.Sprintf("%.64q", s) }

// Day shows the day of t in UTC.
func Day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// Abbreviate shows both ends of b in hexadecimal, or all of it where that is short.
func Abbreviate(b []byte) string {
	s := hex.EncodeToString(b)
	if len(s) > 20 {
		return s[:8] + "…" + s[len(s)-8:]
	}
	return s
}

// Fingerprint names a certificate or a key by the SHA-256 of its DER: "sha256:" and 64 digits.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// AllZero reports whether b holds no bit: how the hardware says that a field is not there.
func AllZero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}
