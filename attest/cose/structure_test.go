package cose

import (
	"bytes"
	"testing"

	"github.com/jurat-tls/jurat/attest/strictcbor"
)

// What is signed is CBOR as others write it, whatever the length.
func TestSigStructure(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 23, 24, 255, 256, 65535, 65536} {
		payload := bytes.Repeat([]byte{7}, n)
		want, err := strictcbor.Marshal([]any{"Signature1", []byte{0xa1, 1, 0x38, 0x22}, []byte{}, payload})
		if err != nil {
			t.Fatal(err)
		}
		if got := sigStructure([]byte{0xa1, 1, 0x38, 0x22}, payload); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: got %.32x, want %.32x", n, got, want)
		}
	}
}
