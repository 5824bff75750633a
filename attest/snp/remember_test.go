package snp

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"testing"
)

// TestRememberedIsUsed: what is known is not computed again. Only a forged memory can show that.
func TestRememberedIsUsed(t *testing.T) {
	t.Parallel()
	anchor := AMDRoots().of(turin)
	ask := anchor.intermediates[0]
	var m memory
	if !m.verify(anchor.ark, ask.RawTBSCertificate, ask.Signature) || len(m.signatures.known) != 1 {
		t.Fatalf("%d signatures", len(m.signatures.known))
	}
	bad := append([]byte(nil), ask.Signature...)
	bad[9] ^= 1
	if m.verify(anchor.ark, ask.RawTBSCertificate, bad) || len(m.signatures.known) != 1 {
		t.Fatal("a bad signature verifies, or is remembered")
	}
	h := sha256.New()
	for _, part := range [][]byte{anchor.ark.RawSubjectPublicKeyInfo, ask.RawTBSCertificate, bad} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	m.signatures.put([32]byte(h.Sum(nil)), struct{}{})
	if !m.verify(anchor.ark, ask.RawTBSCertificate, bad) {
		t.Error("a known signature is verified again")
	}
	m.keep(&chain{leaf: &leaf{Certificate: anchor.intermediates[1]}, ask: ask, ark: anchor.ark})
	for _, cert := range []*x509.Certificate{anchor.intermediates[1], ask, anchor.ark} {
		if e, ok := m.certificate(cert.Raw); !ok || e.cert != cert || (e.leaf != nil) != (cert == anchor.intermediates[1]) {
			t.Errorf("%s is not known", cert.Subject)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	var r remembered[int]
	for i := range maxRemembered + 10 {
		r.put(sha256.Sum256([]byte{byte(i), byte(i >> 8)}), i)
		if len(r.known) > maxRemembered {
			t.Fatal(len(r.known))
		}
	}
	if v, ok := r.get(sha256.Sum256([]byte{1, 0})); ok {
		t.Errorf("%d survived the limit", v)
	}
	if v, ok := r.get(sha256.Sum256([]byte{byte((maxRemembered + 9) & 0xff), byte((maxRemembered + 9) >> 8)})); !ok || v != maxRemembered+9 {
		t.Error("the last is lost")
	}
}
