// Package wellknown is the document at /.well-known/attestation: evidence for a nonce and for the key of the connection that it
// is asked for over, for clients that speak HTTP and no more. docs/wellknown.md describes it.
//
// The hardware signs the root of a tree that sessions are in as well (ratls/session). What one nonce adds to it has another length
// and another beginning than what a session adds: neither can be shown as the other.
package wellknown

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/attest/strictjson"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/session"
)

const (
	// Path is where the document is.
	Path = "/.well-known/attestation"
	// MediaType is that of the document.
	MediaType = "application/json"
	// Profile names the format, and separates its leaves from all others that the same hardware signs.
	Profile = "jurat-wellknown-1"
	// MaxSize bounds a document in bytes.
	MaxSize = 128 << 10
)

// Bounds of a nonce in bytes.
const (
	MinNonce = 16
	MaxNonce = 64
)

// maxProof bounds the hashes of an inclusion proof: no tree is deeper.
const maxProof = 64

// Document is evidence for a nonce and a key, decoded and not judged.
type Document struct {
	Nonce      []byte
	Connection [32]byte // SHA-256 of the SubjectPublicKeyInfo of the certificate that the connection showed
	Identity   [32]byte // the same of the leaf that carries evidence; Connection where that is what was shown
	cmw.Session
}

// Leaf is what d adds to the tree whose root the hardware signs. Every field has a fixed length.
func (d *Document) Leaf() merkle.Hash {
	nonce := sha256.Sum256(d.Nonce)
	b := append(make([]byte, 0, 1+len(Profile)+4*32), 0x00) // the leaf prefix of RFC 9162
	b = append(b, Profile...)
	for _, part := range [...][32]byte{nonce, d.Connection, d.Identity, d.Config} {
		b = append(b, part[:]...)
	}
	return sha256.Sum256(b)
}

// ReportData is what the hardware has to have signed. The error is for an inclusion proof that fits no tree of its size.
func (d *Document) ReportData() (attest.ReportData, error) {
	root, ok := merkle.Root(d.Leaf(), d.Index, d.Size, d.Proof)
	if !ok {
		return attest.ReportData{}, malformed(errors.New("an inclusion proof that fits no tree of its size"))
	}
	return session.ReportData(d.Size, root, d.Config), nil
}

// text is bytes in base64url without padding, of which there is one spelling.
type text []byte

var encoding = base64.RawURLEncoding.Strict()

func (t text) MarshalText() ([]byte, error) { return encoding.AppendEncode(nil, t), nil }

func (t *text) UnmarshalText(raw []byte) error {
	if bytes.ContainsAny(raw, "\r\n") {
		return errors.New("line breaks in base64url")
	}
	out, err := encoding.DecodeString(string(raw))
	*t = out
	return err
}

type document struct {
	Profile    string   `json:"eat_profile"`
	Nonce      text     `json:"eat_nonce"`
	Connection text     `json:"connection_spki_sha256"`
	Identity   text     `json:"identity_spki_sha256"`
	Config     text     `json:"config_sha256"`
	Tree       tree     `json:"tree"`
	Evidence   evidence `json:"evidence"`
}

type tree struct {
	Size  uint64 `json:"size"`
	Index uint64 `json:"index"`
	Proof []text `json:"proof"`
}

type evidence struct {
	Format       string        `json:"format"`
	Raw          text          `json:"raw"`
	Log          text          `json:"event_log,omitempty"`
	Endorsements []endorsement `json:"endorsements"`
}

type endorsement struct {
	Kind string `json:"kind"`
	Raw  text   `json:"raw"`
}

// Marshal encodes a document.
func Marshal(d *Document) ([]byte, error) {
	out := document{
		Profile: Profile, Nonce: d.Nonce, Connection: d.Connection[:], Identity: d.Identity[:], Config: d.Config[:],
		Tree:     tree{Size: d.Size, Index: d.Index, Proof: []text{}},
		Evidence: evidence{Format: string(d.Evidence.Format), Raw: d.Evidence.Raw, Log: d.Evidence.EventLog, Endorsements: []endorsement{}},
	}
	for i := range d.Proof {
		out.Tree.Proof = append(out.Tree.Proof, d.Proof[i][:])
	}
	for _, e := range d.Evidence.Endorsements {
		out.Evidence.Endorsements = append(out.Evidence.Endorsements, endorsement{string(e.Kind), e.Raw})
	}
	raw, err := json.Marshal(out)
	if len(raw) > MaxSize {
		return nil, oversized(len(raw))
	}
	return raw, err
}

// Unmarshal is the inverse of Marshal. Its errors are *attest.Error.
func Unmarshal(raw []byte) (*Document, error) {
	if len(raw) > MaxSize {
		return nil, oversized(len(raw))
	}
	key := func(key string) bool { return strings.Trim(key, "abcdefghijklmnopqrstuvwxyz_0123456789") == "" }
	if err := strictjson.Check(raw, strictjson.Limits{Size: MaxSize, Depth: 5, Key: key}); err != nil {
		return nil, malformed(err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var in document
	if err := dec.Decode(&in); err != nil {
		return nil, malformed(err)
	}
	switch {
	case in.Profile != Profile:
		return nil, &attest.Error{Code: attest.CodeUnknownFormat, Check: "evidence", Got: fmt.Sprintf("%.60q", in.Profile), Want: Profile}
	case len(in.Nonce) < MinNonce, len(in.Nonce) > MaxNonce:
		return nil, malformed(fmt.Errorf("a nonce of %d bytes", len(in.Nonce)))
	case len(in.Connection) != 32, len(in.Identity) != 32, len(in.Config) != 32:
		return nil, malformed(errors.New("a digest that is not of SHA-256"))
	case len(in.Tree.Proof) > maxProof, len(in.Evidence.Endorsements) > attest.MaxEndorsements:
		return nil, malformed(errors.New("too many entries"))
	}
	d := &Document{Nonce: in.Nonce, Connection: [32]byte(in.Connection), Identity: [32]byte(in.Identity)}
	d.Session = cmw.Session{
		Evidence: &attest.Evidence{Format: attest.Format(in.Evidence.Format), Raw: in.Evidence.Raw, EventLog: in.Evidence.Log},
		Config:   [32]byte(in.Config), Size: in.Tree.Size, Index: in.Tree.Index,
	}
	for _, h := range in.Tree.Proof {
		if len(h) != len(merkle.Hash{}) {
			return nil, malformed(errors.New("a hash that is not of SHA-256"))
		}
		d.Proof = append(d.Proof, merkle.Hash(h))
	}
	for _, e := range in.Evidence.Endorsements {
		d.Evidence.Endorsements = append(d.Evidence.Endorsements, attest.Endorsement{Kind: attest.Kind(e.Kind), Raw: e.Raw})
	}
	return d, nil
}

// Nonce reads the nonce of a query, in which nothing else may stand.
func Nonce(query string) ([]byte, error) {
	values, err := url.ParseQuery(query)
	if err != nil || len(values) != 1 || len(values["nonce"]) != 1 {
		return nil, errors.New("want ?nonce=, and nothing else")
	}
	var nonce text
	if err := nonce.UnmarshalText([]byte(values.Get("nonce"))); err != nil || len(nonce) < MinNonce || len(nonce) > MaxNonce {
		return nil, fmt.Errorf("want a nonce of %d to %d random bytes in base64url without padding", MinNonce, MaxNonce)
	}
	return nonce, nil
}

// Query is the inverse of Nonce.
func Query(nonce []byte) string { return "nonce=" + encoding.EncodeToString(nonce) }

func malformed(err error) error {
	return &attest.Error{Code: attest.CodeMalformed, Check: "evidence", Err: err}
}

func oversized(n int) error {
	return &attest.Error{Code: attest.CodeOversized, Check: "evidence", Got: fmt.Sprintf("a document of %d bytes", n), Want: fmt.Sprintf("at most %d", MaxSize)}
}
