package dialect_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	sha2 "crypto/sha512"
	"testing"
)

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

func sha384(b []byte) []byte {
	s := sha2.Sum384(b)
	return s[:]
}

func sha512(b []byte) []byte {
	s := sha2.Sum512(b)
	return s[:]
}

func zip(t testing.TB, raw []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
