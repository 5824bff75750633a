package cmw

import (
	"crypto/sha256"
	"net/netip"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

// profile separates this claims buffer from every other that the same hardware might sign.
const profile = "jurat-certificate-1"

// Binding is what the hardware's signature commits to in the certificate tier.
type Binding struct {
	SPKI                []byte // DER of the leaf's SubjectPublicKeyInfo
	NotBefore, NotAfter time.Time
	DNSNames            []string
	IPs                 []netip.Addr
	Config              [32]byte // digest of the measured configuration
}

// claims has the "pubkey-hash" of TCG DICE tagged evidence, so that a verifier of that dialect can read the buffer; it
// ignores the others.
type claims struct {
	PubkeyHash []byte   `cbor:"pubkey-hash"` // encoded [1, SHA-256 of the SPKI]; 1 is sha-256 in IANA's named information registry
	Profile    string   `cbor:"profile"`
	NotBefore  int64    `cbor:"not-before"` // seconds since 1970
	NotAfter   int64    `cbor:"not-after"`
	Names      []string `cbor:"names"` // "dns:" or "ip:" and the name, sorted
	Config     []byte   `cbor:"config"`
}

type namedHash struct {
	_    struct{} `cbor:",toarray"`
	Alg  int
	Hash []byte
}

// Claims is the claims buffer: one canonical CBOR map.
func (b Binding) Claims() ([]byte, error) {
	spki := sha256.Sum256(b.SPKI)
	hash, err := strictcbor.Marshal(namedHash{Alg: 1, Hash: spki[:]})
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(b.DNSNames)+len(b.IPs))
	for _, n := range b.DNSNames {
		names = append(names, "dns:"+n)
	}
	for _, ip := range b.IPs {
		names = append(names, "ip:"+ip.Unmap().String())
	}
	slices.Sort(names)
	return strictcbor.Marshal(claims{
		PubkeyHash: hash, Profile: profile, NotBefore: b.NotBefore.Unix(), NotAfter: b.NotAfter.Unix(),
		Names: names, Config: b.Config[:],
	})
}

// ReportData is what the hardware has to sign: the SHA-256 of the claims buffer, then zeros, as in TCG DICE tagged
// evidence.
func (b Binding) ReportData() (attest.ReportData, error) {
	var rd attest.ReportData
	buf, err := b.Claims()
	if err != nil {
		return rd, err
	}
	sum := sha256.Sum256(buf)
	copy(rd[:], sum[:])
	return rd, nil
}
