package evlog

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"testing"
	"time"
)

// A disk that was full for a moment loses the record that did not fit, and no other.
func TestFullDisk(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l, err := Open(dir, key, DefaultLimits, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	full, err := os.Open(os.DevNull) // refuses to be written to
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	keep := func(text string, want bool) {
		t.Helper()
		if _, err := l.Append([]byte(text)); (err == nil) != want {
			t.Fatalf("%s: %v", text, err)
		}
	}
	keep("one", true)
	hashes := l.hashes
	l.hashes = full
	keep("does not fit", false)
	l.hashes = hashes
	keep("two", true)
	heads := l.heads
	l.heads = full
	if l.Commit() == nil {
		t.Fatal("a head that was not written")
	}
	l.heads = heads
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	keep("three", true)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	a, err := Check(dir, UnsafeTrustAnybody())
	if err != nil || a.Kept != 3 {
		t.Fatalf("%+v, %v", a, err)
	}
}
