// Package ea makes and validates exported authenticators (RFC 9261) over crypto/tls: inside an established TLS 1.3
// connection, one end proves that it holds the key of a certificate, bound to this connection and to a request of the
// other end. The certificate's entry carries the cmw_attestation extension (draft-fossati-seat-expat).
package ea

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// Role of an endpoint in the TLS handshake.
type Role uint8

// Roles. The zero value is neither.
const (
	Client Role = 1
	Server Role = 2
)

// Other is the role of the other end.
func (r Role) Other() Role { return Client + Server - r }

func (r Role) String() string {
	switch r {
	case Client:
		return "client"
	case Server:
		return "server"
	default:
		return "nobody"
	}
}

// ContextSize is the length of the certificate_request_context that requests carry: the verifier's challenge.
const ContextSize = 32

// DefaultExtension is the codepoint of cmw_attestation, from the range for private use until one is assigned.
const DefaultExtension uint16 = 0xff00

// Handshake message types (RFC 8446 section 4, RFC 9261 section 4).
const (
	typeCertificate              = 11
	typeCertificateRequest       = 13
	typeCertificateVerify        = 15
	typeClientCertificateRequest = 17
	typeFinished                 = 20
)

const extSignatureAlgorithms = 13

// Signature schemes that are made or validated.
const (
	ecdsaP256 = 0x0403
	ecdsaP384 = 0x0503
	rsaPSS256 = 0x0804
	ed25519ID = 0x0807
)

// MaxChain bounds the certificates of an authenticator.
const MaxChain = 8

// maxRSA bounds an RSA key in bits, as crypto/tls does.
const maxRSA = 8192

var errMalformed = errors.New("malformed")

// Conn is one TLS connection seen from one end.
type Conn struct {
	extension uint16
	state     tls.ConnectionState
	newHash   func() hash.Hash
}

// New prepares authenticators over an established connection. extension is the codepoint of cmw_attestation.
func New(state tls.ConnectionState, extension uint16) (*Conn, error) {
	c := &Conn{extension: extension, state: state}
	if !state.HandshakeComplete || state.Version != tls.VersionTLS13 || state.DidResume {
		return nil, errors.New("authenticators need a complete TLS 1.3 handshake that was not a resumption")
	}
	switch state.CipherSuite {
	case tls.TLS_AES_128_GCM_SHA256, tls.TLS_CHACHA20_POLY1305_SHA256:
		c.newHash = sha256.New
	case tls.TLS_AES_256_GCM_SHA384:
		c.newHash = sha512.New384
	default:
		return nil, fmt.Errorf("cipher suite %04x is not known", state.CipherSuite)
	}
	return c, nil
}

// Export is the TLS exporter of the connection (RFC 8446 section 7.5).
func (c *Conn) Export(label string, context []byte, size int) ([]byte, error) {
	return c.state.ExportKeyingMaterial(label, context, size)
}

// message frames a handshake message whose body has about the given size.
func message(kind uint8, size int, body func(*cryptobyte.Builder)) ([]byte, error) {
	b := cryptobyte.NewBuilder(make([]byte, 0, 4+size))
	b.AddUint8(kind)
	b.AddUint24LengthPrefixed(body)
	return b.Bytes()
}

func requestType(from Role) uint8 {
	if from == Client {
		return typeClientCertificateRequest
	}
	return typeCertificateRequest
}

// Request asks the other end of from for an authenticator with attestation. challenge has to be fresh and random.
func (c *Conn) Request(from Role, challenge [ContextSize]byte) ([]byte, error) {
	return message(requestType(from), 64, func(b *cryptobyte.Builder) {
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(challenge[:]) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint16(extSignatureAlgorithms)
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
					for _, s := range []uint16{ecdsaP256, ecdsaP384, ed25519ID, rsaPSS256} {
						b.AddUint16(s)
					}
				})
			})
			b.AddUint16(c.extension) // empty: a wish for evidence
			b.AddUint16(0)
		})
	})
}

// request is a decoded authenticator request.
type request struct {
	challenge [ContextSize]byte
	schemes   []uint16
}

// Challenge decodes a request that from sent, and answers its context. A request without the wish for evidence is refused.
func (c *Conn) Challenge(from Role, raw []byte) ([ContextSize]byte, error) {
	r, err := c.parseRequest(from, raw)
	return r.challenge, err
}

func (c *Conn) parseRequest(from Role, raw []byte) (request, error) {
	var r request
	s := cryptobyte.String(raw)
	var kind uint8
	var body, context, extensions cryptobyte.String
	if !s.ReadUint8(&kind) || kind != requestType(from) || !s.ReadUint24LengthPrefixed(&body) || !s.Empty() ||
		!body.ReadUint8LengthPrefixed(&context) || !body.ReadUint16LengthPrefixed(&extensions) || !body.Empty() {
		return r, errMalformed
	}
	if len(context) != ContextSize {
		return r, fmt.Errorf("a context of %d bytes", len(context))
	}
	copy(r.challenge[:], context)
	found, err := extensionsOf(extensions)
	if err != nil {
		return r, err
	}
	if wish, ok := found[c.extension]; !ok || len(wish) != 0 {
		return r, errors.New("no wish for evidence")
	}
	var list cryptobyte.String
	algorithms := found[extSignatureAlgorithms]
	if !algorithms.ReadUint16LengthPrefixed(&list) || !algorithms.Empty() || len(list) == 0 {
		return r, errMalformed
	}
	for !list.Empty() {
		var scheme uint16
		if !list.ReadUint16(&scheme) {
			return r, errMalformed
		}
		r.schemes = append(r.schemes, scheme)
	}
	return r, nil
}

// extensionsOf reads an extension block. A repeated extension is refused: which of two counts would be the sender's choice.
func extensionsOf(s cryptobyte.String) (map[uint16]cryptobyte.String, error) {
	found := map[uint16]cryptobyte.String{}
	for !s.Empty() {
		var id uint16
		var value cryptobyte.String
		if !s.ReadUint16(&id) || !s.ReadUint16LengthPrefixed(&value) {
			return nil, errMalformed
		}
		if _, twice := found[id]; twice {
			return nil, fmt.Errorf("extension %04x twice", id)
		}
		found[id] = value
	}
	return found, nil
}

// Authenticate answers a request of the other end with the chain and its key, and with attestation in the leaf's entry.
func (c *Conn) Authenticate(sender Role, rawRequest []byte, chain [][]byte, key crypto.Signer, attestation []byte) ([]byte, error) {
	req, err := c.parseRequest(sender.Other(), rawRequest)
	if err != nil {
		return nil, err
	}
	if len(attestation) == 0 || len(attestation) > 1<<16-1 {
		return nil, fmt.Errorf("attestation of %d bytes does not fit its extension", len(attestation))
	}
	scheme, err := schemeOf(key.Public())
	if err != nil {
		return nil, err
	}
	if !slices.Contains(req.schemes, scheme) {
		return nil, fmt.Errorf("the other end does not know signature scheme %04x", scheme)
	}
	size := 512 + len(attestation) // the other messages follow in the same place
	for _, der := range chain {
		size += 8 + len(der)
	}
	certificate, err := message(typeCertificate, size, func(b *cryptobyte.Builder) {
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(req.challenge[:]) })
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
			for i, der := range chain {
				b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(der) })
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
					if i == 0 {
						b.AddUint16(c.extension)
						b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(attestation) })
					}
				})
			}
		})
	})
	if err != nil {
		return nil, err
	}
	transcript, finishedKey, err := c.secrets(sender)
	if err != nil {
		return nil, err
	}
	transcript.Write(rawRequest)
	transcript.Write(certificate)
	signature, err := sign(key, scheme, signed(transcript.Sum(nil)))
	if err != nil {
		return nil, err
	}
	verify, err := message(typeCertificateVerify, 4+len(signature), func(b *cryptobyte.Builder) {
		b.AddUint16(scheme)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(signature) })
	})
	if err != nil {
		return nil, err
	}
	transcript.Write(verify)
	finished, err := message(typeFinished, c.newHash().Size(), func(b *cryptobyte.Builder) { b.AddBytes(c.mac(finishedKey, transcript.Sum(nil))) })
	return append(append(certificate, verify...), finished...), err
}

// Shown is what an authenticator shows.
type Shown struct {
	Leaf        *x509.Certificate // the first of the chain
	Chain       [][]byte
	Attestation []byte
}

// Validate checks an authenticator that sender sent in answer to rawRequest, and answers the chain and the attestation.
// The sender holds the leaf's key and is the other end of this very connection; nothing is said about the certificate or
// the attestation itself.
func (c *Conn) Validate(sender Role, rawRequest, raw []byte) (*Shown, error) {
	req, err := c.parseRequest(sender.Other(), rawRequest)
	if err != nil {
		return nil, err
	}
	s := cryptobyte.String(raw)
	certificate, body, err := take(&s, typeCertificate)
	if err != nil {
		return nil, err
	}
	chain, attestation, err := c.parseCertificate(body, req.challenge)
	if err != nil {
		return nil, err
	}
	verify, verifyBody, err := take(&s, typeCertificateVerify)
	if err != nil {
		return nil, err
	}
	_, finished, err := take(&s, typeFinished)
	if err != nil {
		return nil, err
	}
	if !s.Empty() {
		return nil, errors.New("bytes after the authenticator")
	}
	leaf, err := c.parseLeaf(chain[0])
	if err != nil {
		return nil, err
	}
	transcript, finishedKey, err := c.secrets(sender)
	if err != nil {
		return nil, err
	}
	transcript.Write(rawRequest)
	transcript.Write(certificate)
	var scheme uint16
	var signature cryptobyte.String
	if !verifyBody.ReadUint16(&scheme) || !verifyBody.ReadUint16LengthPrefixed(&signature) || !verifyBody.Empty() {
		return nil, errMalformed
	}
	if want, err := schemeOf(leaf.PublicKey); err != nil || scheme != want {
		return nil, fmt.Errorf("signature scheme %04x does not fit the key", scheme)
	}
	if !verifySignature(leaf.PublicKey, scheme, signed(transcript.Sum(nil)), signature) {
		return nil, errors.New("the signature over this connection does not verify")
	}
	transcript.Write(verify)
	if !hmac.Equal(finished, c.mac(finishedKey, transcript.Sum(nil))) {
		return nil, errors.New("the authenticator is not of this connection")
	}
	return &Shown{Leaf: leaf, Chain: chain, Attestation: attestation}, nil
}

// parseLeaf parses a certificate, unless it is the one that the handshake was about.
func (c *Conn) parseLeaf(der []byte) (*x509.Certificate, error) {
	if peer := c.state.PeerCertificates; len(peer) > 0 && bytes.Equal(peer[0].Raw, der) {
		return peer[0], nil
	}
	return x509.ParseCertificate(der)
}

// take reads one handshake message of a kind, whole and its body.
func take(s *cryptobyte.String, kind uint8) (whole []byte, body cryptobyte.String, err error) {
	before := []byte(*s)
	var got uint8
	if !s.ReadUint8(&got) || got != kind || !s.ReadUint24LengthPrefixed(&body) {
		return nil, nil, errMalformed
	}
	return before[:len(before)-len(*s)], body, nil
}

func (c *Conn) parseCertificate(body cryptobyte.String, challenge [ContextSize]byte) (chain [][]byte, attestation []byte, err error) {
	var context, list cryptobyte.String
	if !body.ReadUint8LengthPrefixed(&context) || !body.ReadUint24LengthPrefixed(&list) || !body.Empty() {
		return nil, nil, errMalformed
	}
	if string(context) != string(challenge[:]) {
		return nil, nil, errors.New("the authenticator answers another request")
	}
	for !list.Empty() {
		var der, extensions cryptobyte.String
		if !list.ReadUint24LengthPrefixed(&der) || len(der) == 0 || !list.ReadUint16LengthPrefixed(&extensions) || len(chain) == MaxChain {
			return nil, nil, errMalformed
		}
		found, err := extensionsOf(extensions)
		if err != nil {
			return nil, nil, err
		}
		// Evidence stands in the first entry and nothing else stands anywhere: an extension nobody asked for is refused
		// (RFC 8446 section 4.2).
		if len(chain) == 0 {
			attestation = found[c.extension]
			delete(found, c.extension)
		}
		if len(found) != 0 {
			return nil, nil, errors.New("an extension nobody asked for")
		}
		chain = append(chain, der)
	}
	if len(chain) == 0 || len(attestation) == 0 {
		return nil, nil, errors.New("no evidence")
	}
	return chain, attestation, nil
}

// secrets are the start of the transcript, which is of this connection and role alone, and the key of the Finished
// message (RFC 9261 section 5.1).
func (c *Conn) secrets(sender Role) (transcript hash.Hash, finishedKey []byte, err error) {
	if sender != Client && sender != Server {
		return nil, nil, errors.New("an authenticator of nobody")
	}
	size := c.newHash().Size()
	context, err := c.Export("EXPORTER-"+sender.String()+" authenticator handshake context", nil, size)
	if err != nil {
		return nil, nil, err
	}
	finishedKey, err = c.Export("EXPORTER-"+sender.String()+" authenticator finished key", nil, size)
	transcript = c.newHash()
	transcript.Write(context)
	return transcript, finishedKey, err
}

func (c *Conn) mac(key, transcript []byte) []byte {
	m := hmac.New(c.newHash, key)
	m.Write(transcript)
	return m.Sum(nil)
}

// signed is what CertificateVerify signs (RFC 8446 section 4.4.3, with the context string of RFC 9261 section 5.2.2).
func signed(transcript []byte) []byte {
	out := make([]byte, 0, 128+len(transcript))
	for range 64 {
		out = append(out, 0x20)
	}
	out = append(out, "Exported Authenticator"...)
	out = append(out, 0)
	return append(out, transcript...)
}

func schemeOf(pub crypto.PublicKey) (uint16, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return ecdsaP256, nil
		case elliptic.P384():
			return ecdsaP384, nil
		}
	case ed25519.PublicKey:
		return ed25519ID, nil
	case *rsa.PublicKey:
		// The other end chooses the key, and what a signature costs to check grows with the square of its size.
		if bits := k.N.BitLen(); bits >= 2048 && bits <= maxRSA {
			return rsaPSS256, nil
		}
	}
	return 0, fmt.Errorf("no signature scheme for a key of type %T", pub)
}

func digest(scheme uint16, message []byte) ([]byte, crypto.Hash) {
	switch scheme {
	case ecdsaP384:
		sum := sha512.Sum384(message)
		return sum[:], crypto.SHA384
	case ed25519ID:
		return message, 0
	default:
		sum := sha256.Sum256(message)
		return sum[:], crypto.SHA256
	}
}

func sign(key crypto.Signer, scheme uint16, message []byte) ([]byte, error) {
	d, h := digest(scheme, message)
	var opts crypto.SignerOpts = h
	if scheme == rsaPSS256 {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h}
	}
	return key.Sign(rand.Reader, d, opts)
}

func verifySignature(pub crypto.PublicKey, scheme uint16, message, signature []byte) bool {
	d, h := digest(scheme, message)
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, d, signature)
	case ed25519.PublicKey:
		return ed25519.Verify(k, d, signature)
	case *rsa.PublicKey:
		return rsa.VerifyPSS(k, h, d, signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h}) == nil
	}
	return false
}
