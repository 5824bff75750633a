package nitro

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"math/big"
	"testing"
	"time"
)

// What is remembered is used, and its memory is bounded.
func TestLinks(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
		SignatureAlgorithm: x509.ECDSAWithSHA384, BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := NewRoots(der)
	if err != nil {
		t.Fatal(err)
	}
	root := roots.find(der)
	var k links
	first, err := k.extend(root, der)
	if err != nil || len(k.good) != 1 {
		t.Fatal(err, len(k.good))
	}
	if again, err := k.extend(root, der); err != nil || again != first {
		t.Error("a known link is verified again:", err)
	}
	// The same certificate elsewhere in a chain is another link.
	if other, err := k.extend(first, der); err != nil || other == first || len(k.good) != 2 {
		t.Error(err, len(k.good))
	}
	if _, err := k.extend(root, append(der, 0)); err == nil || len(k.good) != 2 {
		t.Error("what does not verify is remembered:", err, len(k.good))
	}
	for i := range maxLinks - 2 {
		var id [32]byte
		binary.BigEndian.PutUint64(id[:], uint64(i))
		k.good[sha256.Sum256(id[:])] = first
	}
	if _, err := k.extend(&link{Certificate: first.Certificate, key: first.key}, der); err != nil || len(k.good) != 1 {
		t.Errorf("%d remembered: %v", len(k.good), err)
	}
}
