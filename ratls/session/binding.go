package session

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/ea"
)

// ALPN is the protocol id of the session tier.
const ALPN = "jurat/1"

// domain separates this report data from all other that the same hardware might sign.
const domain = "jurat-session-1"

// ChallengeSize is the length of a verifier's challenge and of an exporter's value in bytes.
const ChallengeSize = 32

// Leaf is what one session adds to a tree: role of the sender, digest of its SubjectPublicKeyInfo, the verifier's
// challenge and the exporter of the connection. Every field has a fixed length, so that no two sets of fields share one
// encoding.
func Leaf(sender ea.Role, spki, challenge, exporter [32]byte) merkle.Hash {
	var b [2 + 3*32]byte
	b[0], b[1] = 0x00, byte(sender) // 0x00 is the leaf prefix of RFC 9162: a leaf is no node
	copy(b[2:], spki[:])
	copy(b[34:], challenge[:])
	copy(b[66:], exporter[:])
	return sha256.Sum256(b[:])
}

// ReportData is what the hardware has to sign for a tree: its size, its root, and the digest of the measured
// configuration.
func ReportData(size uint64, root merkle.Hash, config [32]byte) attest.ReportData {
	var b [len(domain) + 8 + 2*32]byte
	n := copy(b[:], domain)
	binary.BigEndian.PutUint64(b[n:], size)
	copy(b[n+8:], root[:])
	copy(b[n+40:], config[:])
	return sha512.Sum512(b[:])
}

// Profile says what the hardware signs for a session. Both ends have to have the same.
type Profile string

// Profiles.
const (
	// ProfileOwn is that of this package: one quote serves many sessions.
	ProfileOwn Profile = ""
	// ProfileExpat is the binder of draft-fossati-seat-expat-03: the digest, by the hash of the cipher suite, of the
	// SubjectPublicKeyInfo and the 32 bytes that the exporter "Attestation" gives for the challenge. The draft leaves open how
	// the key is encoded; DER is what others take. Each session takes a quote of its own, the label is the same for both
	// roles, and the configuration is not signed: it is for meeting others.
	ProfileExpat Profile = "expat-03"
)

// Valid reports whether p is one of the profiles above.
func (p Profile) Valid() bool { return p == ProfileOwn || p == ProfileExpat }

// label of the exporter. In our own it differs by role, so that an end can't be shown its own evidence (reflection).
func (p Profile) label(sender ea.Role) string {
	if p == ProfileExpat {
		return "Attestation"
	}
	return "EXPORTER-jurat-attestation-" + sender.String()
}

// Binder is what the hardware signs in ProfileExpat, in a connection with the given cipher suite: a digest of 32 or 48
// bytes, and zeros.
func Binder(suite uint16, spki []byte, exporter [ChallengeSize]byte) (data attest.ReportData) {
	h := sha256.New()
	if suite == tls.TLS_AES_256_GCM_SHA384 {
		h = sha512.New384()
	}
	h.Write(spki)
	h.Write(exporter[:]) // of fixed length: where the key ends is in no doubt
	copy(data[:], h.Sum(nil))
	return data
}

// Presented is what an end showed of itself in one exchange, with what is needed to appraise it again. It holds no secret.
type Presented struct {
	Profile     Profile
	Suite       uint16 // TLS cipher suite
	Sender      ea.Role
	Chain       [][]byte // DER certificates, leaf first; the sender has proven that it holds the leaf's key
	Attestation []byte   // CMW record with the evidence and its inclusion proof
	Challenge   [ChallengeSize]byte
	Exporter    [ChallengeSize]byte // the connection's exporter for sender and challenge, as computed at this end
	Asked       time.Time           // when the challenge was made, by the clock of the end that made it

	leaf *x509.Certificate // of Chain, when this was made by an exchange
}

// Leaf is the leaf of Chain where an exchange has parsed it; nil elsewhere.
func (p *Presented) Leaf() *x509.Certificate {
	if p.leaf == nil || len(p.Chain) == 0 || !bytes.Equal(p.leaf.Raw, p.Chain[0]) {
		return nil
	}
	return p.leaf
}

// Content is what was presented, decoded and not judged.
type Content struct {
	Evidence   *attest.Evidence
	Config     [32]byte          // digest of the measured configuration
	ReportData attest.ReportData // what the hardware has to have signed
}

// Open decodes what the owner of leaf presented.
func (p *Presented) Open(leaf *x509.Certificate) (*Content, error) {
	switch p.Profile {
	case ProfileOwn:
	case ProfileExpat:
		ev, _, err := cmw.UnmarshalRecord(p.Attestation)
		if err != nil {
			return nil, hinted(err)
		}
		return &Content{Evidence: ev, ReportData: Binder(p.Suite, leaf.RawSubjectPublicKeyInfo, p.Exporter)}, nil
	default:
		return nil, malformed(fmt.Sprintf("profile %.40q", p.Profile), nil)
	}
	s, reconnect, err := cmw.UnmarshalSession(p.Attestation)
	if err != nil {
		return nil, hinted(err)
	}
	if reconnect != nil {
		return nil, malformed("a proof of an earlier session in the place of evidence", nil)
	}
	root, ok := merkle.Root(Leaf(p.Sender, sha256.Sum256(leaf.RawSubjectPublicKeyInfo), p.Challenge, p.Exporter), s.Index, s.Size, s.Proof)
	if !ok {
		return nil, malformed("an inclusion proof that fits no tree of its size", nil)
	}
	return &Content{Evidence: s.Evidence, Config: s.Config, ReportData: ReportData(s.Size, root, s.Config)}, nil
}

// hinted says what to do about a record of another kind, which is what an end with another profile sends.
func hinted(err error) error {
	var coded *attest.Error
	if errors.As(err, &coded) && coded.Code == attest.CodeUnknownFormat {
		told := *coded
		told.Hint = "the other end may have another session profile: both have to have the same (session in jurat.yaml)"
		return &told
	}
	return err
}

// Expect answers the evidence that the owner of leaf presented, and what the hardware has to have signed for it.
func (p *Presented) Expect(leaf *x509.Certificate) (*attest.Evidence, attest.Expectation, error) {
	c, err := p.Open(leaf)
	if err != nil {
		return nil, attest.Expectation{}, err
	}
	// The challenge was random, so the evidence was made after it.
	return c.Evidence, attest.Expect(c.ReportData, attest.LevelSession, p.Asked).WithConfig(c.Config), nil
}

// Own is the certificate that an end presents.
type Own struct {
	Chain [][]byte      // DER, leaf first
	Key   crypto.Signer // of the leaf
	SPKI  [32]byte      // SHA-256 of the leaf's SubjectPublicKeyInfo
	DER   []byte        // SubjectPublicKeyInfo
}

// Prover is what an end presents of itself.
type Prover interface {
	// Leaf is what to present now.
	Leaf() (*Own, error)
	// Attest obtains evidence with ReportData over a tree that holds leaf, for a session with peer, whose name serves
	// fairness only. Who is patient lets others go first and waits for company.
	Attest(ctx context.Context, peer string, leaf merkle.Hash, patient bool) (*cmw.Session, error)
	// Quote obtains evidence with data for one session alone.
	Quote(ctx context.Context, data attest.ReportData) (*attest.Evidence, error)
}

// Verifier judges the other end of one connection.
type Verifier interface {
	// Appraise judges what the other end presented.
	Appraise(ctx context.Context, p *Presented) *attest.Result
	// Reconnect judges an end that proved a secret of an earlier session, in which it presented p and got the Result earlier.
	Reconnect(earlier *attest.Result, p *Presented) *attest.Result
}

// Rechecker is a Verifier of which a change of what it demands may find the Result of an open connection, and not the one that
// takes its place at the same moment, when the other end attests anew.
type Rechecker interface {
	// Recheck is called when a Result of Appraise has taken the place of another one. The answer is nil or a refusal, which ends
	// the connection.
	Recheck(ctx context.Context) *attest.Result
}

func malformed(got string, err error) error {
	return &attest.Error{Code: attest.CodeSessionExchange, Check: "binding.session", Got: got, Err: err}
}
