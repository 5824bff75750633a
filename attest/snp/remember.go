package snp

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"sync"
)

// maxRemembered bounds each memory of a Verifier. Only what is authentic is remembered, so that nobody but AMD can fill it.
const maxRemembered = 4096

// remembered maps SHA-256 digests of bytes to what follows from those bytes and nothing else, so that an entry never has
// to be dropped. The zero value is empty.
type remembered[T any] struct {
	mu    sync.Mutex
	known map[[32]byte]T
}

func (r *remembered[T]) get(id [32]byte) (v T, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, ok = r.known[id]
	return v, ok
}

func (r *remembered[T]) put(id [32]byte, v T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil || len(r.known) >= maxRemembered {
		r.known = map[[32]byte]T{}
	}
	r.known[id] = v
}

// memory spares a Verifier what it did before: decoding the certificates and lists of chains that verified, and their RSA
// signatures. Dates, roles and revocation are judged anew every time, and the report's own signature is never remembered.
type memory struct {
	signatures   remembered[struct{}]
	certificates remembered[endorsed]
	lists        remembered[*x509.RevocationList]
}

// endorsed is a decoded certificate of AMD's chain; leaf is nil where it is an authority.
type endorsed struct {
	cert *x509.Certificate
	leaf *leaf
}

// keep remembers the certificates of a chain that verified.
func (m *memory) keep(c *chain) {
	m.certificates.put(sha256.Sum256(c.leaf.Raw), endorsed{c.leaf.Certificate, c.leaf})
	for _, cert := range []*x509.Certificate{c.ask, c.ark} {
		m.certificates.put(sha256.Sum256(cert.Raw), endorsed{cert: cert})
	}
}

// certificate finds a certificate that verified before; a nil memory knows none.
func (m *memory) certificate(der []byte) (endorsed, bool) {
	if m == nil {
		return endorsed{}, false
	}
	return m.certificates.get(sha256.Sum256(der))
}

// list finds a revocation list that verified before; a nil memory knows none.
func (m *memory) list(der []byte) (*x509.RevocationList, bool) {
	if m == nil {
		return nil, false
	}
	return m.lists.get(sha256.Sum256(der))
}

// verify checks an RSA-PSS signature with SHA-384 and a salt of 48 bytes, the only kind AMD uses (57230 table 5), whatever
// the certificate says of its algorithm. Whether it verifies depends on nothing but the bytes hashed here.
func (m *memory) verify(issuer *x509.Certificate, tbs, signature []byte) bool {
	h := sha256.New()
	for _, part := range [][]byte{issuer.RawSubjectPublicKeyInfo, tbs, signature} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
	id := [32]byte(h.Sum(nil))
	if _, known := m.signatures.get(id); known {
		return true
	}
	// checkAuthority lets no issuer pass that has another kind of key.
	if verifyPSS(issuer.PublicKey.(*rsa.PublicKey), tbs, signature) != nil {
		return false
	}
	m.signatures.put(id, struct{}{})
	return true
}
