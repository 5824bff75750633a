package relaylab

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"sync"

	"golang.org/x/crypto/cryptobyte"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/attest/strictcbor"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/ea"
	"github.com/jurat-tls/jurat/ratls/session"
)

// Frames of the session tier as they are on the wire.
const (
	data byte = iota
	end
	hello
	request
	authenticator
	proof
	verdict
)

type clientHello struct {
	Protocols []string `cbor:"1,keyasint"`
	Earlier   []byte   `cbor:"2,keyasint"`
}

type serverHello struct {
	Protocol string `cbor:"1,keyasint"`
	Earlier  bool   `cbor:"2,keyasint"`
	Asks     bool   `cbor:"3,keyasint"`
}

type verdictBody struct {
	Affirmed bool   `cbor:"1,keyasint"`
	Code     string `cbor:"2,keyasint"`
}

func cbor(v any) []byte {
	raw, err := strictcbor.Marshal(v)
	check(err)
	return raw
}

func frame(kind byte, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(kind)<<24|uint32(len(body))), body...)
}

func helloOf(h any) []byte { return frame(hello, cbor(h)) }

var affirmation = func() []byte { return frame(verdict, cbor(verdictBody{Affirmed: true})) }

// seat is one end of a TLS connection that the attacker holds.
type seat struct {
	*tls.Conn
	role ea.Role // of the attacker
}

// terminate answers a genuine client with a certificate whose key the attacker has.
func terminate(victim net.Conn, own tls.Certificate, protos ...string) *seat {
	conn := tls.Server(victim, &tls.Config{Certificates: []tls.Certificate{own}, NextProtos: protos, SessionTicketsDisabled: true})
	check(conn.Handshake())
	return &seat{conn, ea.Server}
}

// join is the attacker as a client over raw. It verifies nothing.
func join(raw net.Conn, protos ...string) *seat {
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: protos})
	check(conn.Handshake())
	return &seat{conn, ea.Client}
}

// reach is the attacker's own connection to the TEE, which is there for everybody.
func (g *tee) reach(protos ...string) *seat { return join(g.dial(), protos...) }

func (s *seat) say(frames ...[]byte) {
	_, err := s.Write(slices.Concat(frames...))
	check(err)
}

// next reads one frame, whatever it is.
func (s *seat) next() (kind byte, body []byte) {
	var head [4]byte
	_, err := io.ReadFull(s, head[:])
	check(err)
	body = make([]byte, int(head[1])<<16|int(head[2])<<8|int(head[3]))
	_, err = io.ReadFull(s, body)
	check(err)
	return head[0], body
}

// take reads the frame that is due.
func (s *seat) take(kind byte) []byte {
	got, body := s.next()
	if got != kind {
		panic(gone{errOdd})
	}
	return body
}

func (s *seat) takeHello(v any) { check(strictcbor.Unmarshal(s.take(hello), v)) }

// drain reads to the end, and counts the bytes of the application that it meets. Where the other end says that it has no more,
// this one says so too.
func (s *seat) drain() (application int) {
	defer func() {
		if p := recover(); p != nil {
			if _, ended := p.(gone); !ended {
				panic(p)
			}
		}
	}()
	for {
		switch kind, body := s.next(); kind {
		case data:
			application += len(body)
		case end:
			_, _ = s.Write(frame(end, nil))
			_ = s.CloseWrite()
		}
	}
}

func (s *seat) export(label string, context []byte, size int) []byte {
	state := s.ConnectionState()
	out, err := state.ExportKeyingMaterial(label, context, size)
	check(err)
	return out
}

// chain is that of the other end.
func (s *seat) chain() (raw [][]byte) {
	for _, c := range s.ConnectionState().PeerCertificates {
		raw = append(raw, c.Raw)
	}
	return raw
}

// leaf is what evidence for this connection has to commit to, if sender shows the certificate der in answer to challenge.
func (s *seat) leaf(sender ea.Role, der []byte, challenge [32]byte) merkle.Hash {
	return session.Leaf(sender, spki(der), challenge, [32]byte(s.export("EXPORTER-jurat-attestation-"+sender.String(), challenge[:], 32)))
}

// message is one handshake message of TLS.
func message(kind byte, body func(*cryptobyte.Builder)) []byte {
	var b cryptobyte.Builder
	b.AddUint8(kind)
	b.AddUint24LengthPrefixed(body)
	return b.BytesOrPanic()
}

const (
	wish      = 0xff00 // the extension cmw_attestation
	fromTLS   = 13     // CertificateRequest, of a server
	fromOther = 17     // ClientCertificateRequest
)

// ask is a request for evidence with a challenge of the attacker's choice, and without the wish for evidence if that is 0.
func ask(from ea.Role, challenge [32]byte, wish uint16) []byte {
	kind := byte(fromTLS)
	if from == ea.Client {
		kind = fromOther
	}
	return message(kind, func(b *cryptobyte.Builder) {
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(challenge[:]) })
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
			b.AddUint16(13) // signature_algorithms: ecdsa_secp256r1_sha256
			b.AddBytes([]byte{0, 4, 0, 2, 4, 3})
			if wish != 0 {
				b.AddUint16(wish)
				b.AddUint16(0)
			}
		})
	})
}

func random() (out [32]byte) {
	_, _ = rand.Read(out[:])
	return out
}

// challengeOf reads that of a request: it stands behind the header of the message and its own length.
func challengeOf(request []byte) [32]byte {
	if len(request) < 37 || request[4] != 32 {
		panic(gone{errOdd})
	}
	return [32]byte(request[5:37])
}

// attestationOf takes the evidence out of an authenticator.
func attestationOf(authenticator []byte) (chain [][]byte, attestation []byte) {
	s := cryptobyte.String(authenticator)
	var kind uint8
	var body, context, list, der, extensions, value cryptobyte.String
	var id uint16
	if !s.ReadUint8(&kind) || !s.ReadUint24LengthPrefixed(&body) || !body.ReadUint8LengthPrefixed(&context) || !body.ReadUint24LengthPrefixed(&list) ||
		!list.ReadUint24LengthPrefixed(&der) || !list.ReadUint16LengthPrefixed(&extensions) || !extensions.ReadUint16(&id) || !extensions.ReadUint16LengthPrefixed(&value) {
		panic(gone{errOdd})
	}
	return [][]byte{der}, value
}

// sign makes an authenticator for this connection in answer to a request: with a key that the attacker has, everything in it
// is right but what the evidence says. extension 0 leaves the evidence out.
func (s *seat) sign(sender ea.Role, request []byte, chain [][]byte, key crypto.Signer, extension uint16, attestation []byte) []byte {
	challenge := challengeOf(request)
	certificate := message(11, func(b *cryptobyte.Builder) {
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(challenge[:]) })
		b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) {
			for i, der := range chain {
				b.AddUint24LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(der) })
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
					if i == 0 && extension != 0 {
						b.AddUint16(extension)
						b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(attestation) })
					}
				})
			}
		})
	})
	transcript := sha256.New()
	transcript.Write(s.export("EXPORTER-"+sender.String()+" authenticator handshake context", nil, 32))
	transcript.Write(request)
	transcript.Write(certificate)
	signed := []byte{}
	for range 64 {
		signed = append(signed, ' ')
	}
	sum := sha256.Sum256(append(append(signed, "Exported Authenticator\x00"...), transcript.Sum(nil)...))
	signature, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	check(err)
	verify := message(15, func(b *cryptobyte.Builder) {
		b.AddUint16(0x0403)
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(signature) })
	})
	transcript.Write(verify)
	mac := hmac.New(sha256.New, s.export("EXPORTER-"+sender.String()+" authenticator finished key", nil, 32))
	mac.Write(transcript.Sum(nil))
	return slices.Concat(certificate, verify, message(20, func(b *cryptobyte.Builder) { b.AddBytes(mac.Sum(nil)) }))
}

// shuttle forwards everything both ways. The end of one direction is passed on as such, so that the victim sees what it would
// see of the genuine end.
func shuttle(a, b *seat) {
	pass := func(to, from *seat) {
		if _, err := io.Copy(to, from); err != nil {
			_ = from.Close()
		}
		_ = to.CloseWrite()
	}
	var both sync.WaitGroup
	both.Go(func() { pass(a, b) })
	pass(b, a)
	both.Wait()
}

// carry encodes evidence for a session, as the attacker would have it.
func carry(ev *attest.Evidence, size, index uint64, proof ...merkle.Hash) []byte {
	raw, err := cmw.MarshalSession(&cmw.Session{Evidence: ev, Config: config, Size: size, Index: index, Proof: proof})
	check(err)
	return raw
}

func unpack(attestation []byte) *cmw.Session {
	s, _, err := cmw.UnmarshalSession(attestation)
	check(err)
	if s == nil {
		panic(gone{errOdd})
	}
	return s
}

func repack(s *cmw.Session) []byte {
	raw, err := cmw.MarshalSession(s)
	check(err)
	return raw
}

func tlsOf(own tls13Leaf) tls.Certificate {
	return tls.Certificate{Certificate: own.chain, PrivateKey: own.key}
}

func isEvidence(e pkix.Extension) bool { return e.Id.Equal(cmw.OID()) }
