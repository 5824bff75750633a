package cca

import (
	"encoding/binary"
	"testing"
)

// What is remembered is used, and its memory is bounded.
func TestPlatforms(t *testing.T) {
	t.Parallel()
	v := NewVerifier(nil)
	a := &anchor{}
	token := &Token{platformRaw: []byte("token")}
	if _, err := v.verifyPlatform(token); err == nil {
		t.Fatal("a platform is known from the start")
	}
	v.known.add(digest(token.platformRaw), a)
	if got, err := v.verifyPlatform(token); got != a {
		t.Errorf("a known platform is verified again: %v", err)
	}
	var id [32]byte
	for i := range maxPlatforms {
		binary.BigEndian.PutUint64(id[:], uint64(i))
		v.known.add(id, a)
		if n := len(v.known.good); n > maxPlatforms || n == 1 && i < maxPlatforms-1 {
			t.Fatalf("%d remembered after %d", n, i)
		}
	}
	if len(v.known.good) != 1 {
		t.Errorf("%d remembered", len(v.known.good))
	}
}
