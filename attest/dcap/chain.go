package dcap

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// pckChain is a PCK certificate with its authorities, verified but for dates and revocation.
type pckChain struct {
	leaf, ca *x509.Certificate
	root     *root
	pck      *PCK
	service  string // servicePlatform or serviceProcessor
}

// Names of the PCK authorities in requests to the PCS.
const (
	servicePlatform  = "platform"
	serviceProcessor = "processor"
)

// serviceOf tells which of them an authority is; its name is checked elsewhere.
func serviceOf(ca *x509.Certificate) string {
	if strings.Contains(ca.Subject.CommonName, namePlatform) {
		return servicePlatform
	}
	return serviceProcessor
}

// binding is an attestation key that a chain certifies, verified likewise.
type binding struct {
	chain *pckChain
	key   *ecdsa.PublicKey
}

// maxChain is how many certificates a chain has: PCK, authority, root.
const maxChain = 3

// maxChainText bounds a chain in bytes: those known have under 4 KiB.
const maxChainText = 16 << 10

// parseChain decodes concatenated PEM: the PCK certificate, its issuer, the root. Each is encoded in the one way that PEM
// has for it, but for the ends of lines; there may be space between them, and one zero after them.
func parseChain(text []byte) (certs [maxChain]*x509.Certificate, err error) {
	if len(text) > maxChainText {
		return certs, attest.Refuse(attest.CodeOversized, checkChain, fmt.Sprintf("a PCK chain of %d bytes", len(text)), fmt.Sprintf("at most %d", maxChainText))
	}
	rest := bytes.ReplaceAll(bytes.TrimSuffix(text, []byte{0}), []byte("\r\n"), []byte("\n"))
	for i := range certs {
		rest = bytes.TrimSpace(rest)
		block, after := pem.Decode(rest)
		if block == nil || !bytes.HasPrefix(rest, bytes.TrimSpace(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}))) {
			return certs, attest.Refuse(attest.CodeMalformedEndorsement, checkChain, fmt.Sprintf("a PCK chain whose part %d is no certificate in PEM", i+1), "three certificates and nothing else")
		}
		if certs[i], err = parseCertificate(block.Bytes); err != nil {
			return certs, err
		}
		rest = after
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return certs, attest.Refuse(attest.CodeMalformedEndorsement, checkChain, "a PCK chain with more after its root", "three certificates and nothing else")
	}
	return certs, nil
}

// verifyChain decodes and verifies the chain in a quote (QVL 4.1.2.4.4, PckCertVerifier).
func (v *Verifier) verifyChain(text []byte) (*pckChain, error) {
	if known, ok := v.chains.get(text); ok {
		return known, nil
	}
	certs, err := parseChain(text)
	if err != nil {
		return nil, err
	}
	c := &pckChain{leaf: certs[0], ca: certs[1], root: v.roots.find(certs[2].Raw), service: serviceOf(certs[1])}
	if c.root == nil {
		return nil, untrusted(certs[2])
	}
	name, platform := nameProcessor, c.service == servicePlatform
	if platform {
		name = namePlatform
	}
	if err := checkAuthority(c.ca, name); err != nil {
		return nil, err
	}
	if err := checkIssued(c.ca, c.root.Certificate); err != nil {
		return nil, err
	}
	if err := checkLeaf(c.leaf, namePCK); err != nil {
		return nil, err
	}
	if err := checkIssued(c.leaf, c.ca); err != nil {
		return nil, err
	}
	if c.pck, err = parsePCK(c.leaf, platform); err != nil {
		return nil, err
	}
	v.chains.put(text, c)
	return c, nil
}

// certify verifies that the chain's PCK certifies the attestation key of q (QVL 4.1.2.4.12 and 13).
func (v *Verifier) certify(q *Quote) (*binding, error) {
	if known, ok := v.bindings.get(q.certified); ok {
		return known, nil
	}
	chain, err := v.verifyChain(q.chain)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(q.qeReport)
	if !ecdsa.VerifyASN1(chain.leaf.PublicKey.(*ecdsa.PublicKey), digest[:], derSignature(q.qeSignature)) {
		return nil, attest.Refuse(attest.CodeSignature, checkQE, "a report of the quoting enclave whose signature does not verify", "one by the PCK of the chain")
	}
	// The quoting enclave says which key is its own by what it has in its report.
	sum := sha256.Sum256(append(append(make([]byte, 0, keySize+len(q.qeAuth)), q.key...), q.qeAuth...))
	if data := q.qeReportData(); !bytes.Equal(data[:32], sum[:]) || !attest.AllZero(data[32:]) {
		return nil, attest.Refuse(attest.CodeLink, checkQE, "an attestation key that the quoting enclave does not name", "the one in its report data")
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, q.key...))
	if err != nil {
		return nil, attest.Refuse(attest.CodeUnknownAlgorithm, checkQE, "an attestation key that is no point of P-256", "")
	}
	b := &binding{chain, key}
	v.bindings.put(q.certified, b)
	return b, nil
}

// current checks the validity of certificates at now.
func current(now time.Time, certs ...*x509.Certificate) error {
	for _, cert := range certs {
		if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
			return attest.Refuse(attest.CodeChainExpired, checkChain, cert.Subject.CommonName+" valid "+attest.Day(cert.NotBefore)+" to "+attest.Day(cert.NotAfter), "valid on "+attest.Day(now))
		}
	}
	return nil
}
