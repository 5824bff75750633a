package nitro

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"slices"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// chain is root, authorities, leaf.
type chain []*link

func (c chain) root() *link { return c[0] }
func (c chain) leaf() *link { return c[len(c)-1] }

func (c chain) has(der []byte) bool {
	return slices.ContainsFunc(c, func(l *link) bool { return bytes.Equal(l.Raw, der) })
}

// verifyChain checks the document's chain from a trusted root down. What depends on the time or on a certificate's place
// is checked every time; only decoded certificates with a good signature are remembered.
func (v *Verifier) verifyChain(d *Document, now time.Time) (chain, error) {
	root := v.roots.find(d.CABundle[0])
	if root == nil {
		return nil, attest.Refuse(attest.CodeUntrustedRoot, checkChain, attest.Fingerprint(d.CABundle[0]), "a trusted root first in the bundle")
	}
	c := chain{root}
	for _, der := range append(d.CABundle[1:len(d.CABundle):len(d.CABundle)], d.Certificate) {
		next, err := v.known.extend(c.leaf(), der)
		if err != nil {
			return nil, err
		}
		c = append(c, next)
	}
	for i, l := range c[:len(c)-1] {
		if err := l.checkAuthority(len(c) - 2 - i); err != nil {
			return nil, err
		}
	}
	if err := c.leaf().checkLeaf(); err != nil {
		return nil, err
	}
	for _, l := range c {
		if !l.validAt(now) {
			return nil, attest.Refuse(attest.CodeChainExpired, checkChain, attest.Quote(l.Subject.CommonName)+" valid "+stamp(l.NotBefore)+" to "+stamp(l.NotAfter), "valid at "+stamp(now))
		}
	}
	// The leaf's key is made for hours: what it signs carries a time within them.
	if l := c.leaf(); !l.validAt(d.Timestamp) {
		return nil, attest.Refuse(attest.CodeChainExpired, checkTime, "a document of "+stamp(d.Timestamp), "made between "+stamp(l.NotBefore)+" and "+stamp(l.NotAfter))
	}
	return c, nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// links remembers certificates whose signature verified under the chain above them. That depends on nothing but the bytes
// hashed into the key, so that an entry never has to be dropped. Authorities are shared by many enclaves, and a leaf lives
// hours.
type links struct {
	mu   sync.Mutex
	good map[[32]byte]*link
}

// maxLinks bounds the memory: a few KiB each.
const maxLinks = 1024

// extend verifies the certificate that follows parent.
func (k *links) extend(parent *link, der []byte) (*link, error) {
	h := sha256.New()
	h.Write(parent.id[:])
	h.Write(der)
	id := [32]byte(h.Sum(nil))
	k.mu.Lock()
	known := k.good[id]
	k.mu.Unlock()
	if known != nil {
		return known, nil
	}
	l, err := parseLink(der)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(l.RawIssuer, parent.RawSubject) {
		return nil, attest.Refuse(attest.CodeChain, checkChain, attest.Quote(l.Subject.CommonName)+" issued by "+attest.Quote(l.Issuer.CommonName), parent.Subject.CommonName)
	}
	if l.SignatureAlgorithm != x509.ECDSAWithSHA384 {
		return nil, attest.Refuse(attest.CodeUnknownAlgorithm, checkChain, attest.Quote(l.Subject.CommonName)+" signed with "+l.SignatureAlgorithm.String(), x509.ECDSAWithSHA384.String())
	}
	if sum := sha512.Sum384(l.RawTBSCertificate); !ecdsa.VerifyASN1(parent.key, sum[:], l.Signature) {
		return nil, attest.Refuse(attest.CodeChain, checkChain, "a signature that does not verify on "+attest.Quote(l.Subject.CommonName), "one by "+parent.Subject.CommonName)
	}
	l.id = id
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.good == nil || len(k.good) >= maxLinks {
		k.good = map[[32]byte]*link{}
	}
	k.good[id] = l
	return l, nil
}
