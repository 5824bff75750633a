// Package record keeps an appraisal in a file, so that it can be made again: with the same policy the same verdict, with
// another policy that one's. A .jurat file holds what the peer presented and what was fetched for it. It holds no secret
// and is trusted for nothing: a replay verifies every byte as if it had just arrived.
package record

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictjson"
)

// MaxSize bounds a file in bytes.
const MaxSize = 8 << 20

// Bounds on what a file may list.
const (
	maxChain   = 16
	maxFetched = 64
	maxText    = 1024
)

// Record is one appraisal.
type Record struct {
	Time       time.Time // of the appraisal, by the relying party's clock
	Target     string    // what was connected to, for people
	ServerName string    // the name the peer had to attest; empty for a client
	Client     bool      // the peer was a client, whom nobody connects to by name
	Chain      [][]byte  // DER certificates, leaf first; empty for bare evidence
	Session    *Session  // evidence for the connection; nil where the leaf carries it
	Evidence   *attest.Evidence
	Fetched    []Fetched
	Challenge  []byte // the relying party's nonce, where there was one
}

// Session is what a peer presented for one connection. None of it is secret: the exporter's value was made for this
// evidence alone.
type Session struct {
	Profile             string // what the hardware signed; empty for our own
	Suite               uint16 // TLS cipher suite
	Challenge, Exporter [32]byte
	Attestation         []byte // CMW record
	Asked               time.Time
}

// Fetched is one answer of an Endorser: endorsements, or why there are none.
type Fetched struct {
	Ref          attest.Ref
	Endorsements []attest.Endorsement
	Problem      *attest.Error
}

const version = 1

// The file: JSON with a fixed order of keys, bytes in base64.
type file struct {
	Jurat      int           `json:"jurat"`
	Time       time.Time     `json:"time"`
	Target     string        `json:"target"`
	ServerName string        `json:"server_name,omitempty"`
	Client     bool          `json:"client,omitempty"`
	Chain      [][]byte      `json:"chain,omitempty"`
	Session    *session      `json:"session,omitempty"`
	Evidence   *evidence     `json:"evidence,omitempty"`
	Fetched    []fetchedJSON `json:"fetched,omitempty"`
	Challenge  string        `json:"challenge,omitempty"`
}

type evidence struct {
	Format       string        `json:"format"`
	Raw          []byte        `json:"raw"`
	Endorsements []endorsement `json:"endorsements,omitempty"`
	EventLog     []byte        `json:"event_log,omitempty"`
}

type session struct {
	Profile     string    `json:"profile,omitempty"`
	Suite       uint16    `json:"cipher_suite"`
	Challenge   []byte    `json:"challenge"`
	Exporter    []byte    `json:"exporter"`
	Attestation []byte    `json:"attestation"`
	Asked       time.Time `json:"asked"`
}

type endorsement struct {
	Kind string `json:"kind"`
	Raw  []byte `json:"raw"`
}

type fetchedJSON struct {
	Service      string        `json:"service"`
	Path         string        `json:"path"`
	Kind         string        `json:"kind"`
	Endorsements []endorsement `json:"endorsements,omitempty"`
	Problem      *problem      `json:"problem,omitempty"`
}

type problem struct {
	Code  string `json:"code"`
	Check string `json:"check,omitempty"`
	Got   string `json:"got,omitempty"`
	Want  string `json:"want,omitempty"`
	Hint  string `json:"hint,omitempty"`
	Text  string `json:"text,omitempty"`
}

// Encode writes a record. Equal records give equal bytes.
func Encode(r *Record) ([]byte, error) {
	f := file{Jurat: version, Time: r.Time.UTC().Round(0), Target: r.Target, ServerName: r.ServerName, Client: r.Client, Chain: r.Chain, Challenge: hex.EncodeToString(r.Challenge)}
	if s := r.Session; s != nil {
		f.Session = &session{s.Profile, s.Suite, s.Challenge[:], s.Exporter[:], s.Attestation, s.Asked.UTC().Round(0)}
	}
	if r.Evidence != nil {
		f.Evidence = &evidence{string(r.Evidence.Format), r.Evidence.Raw, pack(r.Evidence.Endorsements), r.Evidence.EventLog}
	}
	for _, e := range r.Fetched {
		out := fetchedJSON{Service: e.Ref.Service, Path: e.Ref.Path, Kind: string(e.Ref.Kind), Endorsements: pack(e.Endorsements)}
		if p := e.Problem; p != nil {
			out.Problem = &problem{Code: string(p.Code), Check: p.Check, Got: p.Got, Want: p.Want, Hint: p.Hint}
			if p.Err != nil {
				out.Problem.Text = p.Err.Error()
			}
		}
		f.Fetched = append(f.Fetched, out)
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.encode()
}

func (f *file) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	err := enc.Encode(f)
	return b.Bytes(), err
}

func pack(list []attest.Endorsement) []endorsement {
	var out []endorsement
	for _, e := range list {
		out = append(out, endorsement{string(e.Kind), e.Raw})
	}
	return out
}

func unpack(list []endorsement) []attest.Endorsement {
	var out []attest.Endorsement
	for _, e := range list {
		out = append(out, attest.Endorsement{Kind: attest.Kind(e.Kind), Raw: e.Raw})
	}
	return out
}

// Decode reads a record. Its errors are *attest.Error with code J208.
func Decode(raw []byte) (*Record, error) {
	if err := strictjson.Check(raw, limits()); err != nil {
		return nil, malformed(err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	var f file
	if err := dec.Decode(&f); err != nil {
		return nil, malformed(err)
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	challenge, err := hex.DecodeString(f.Challenge)
	if err != nil {
		return nil, malformed(err)
	}
	r := &Record{Time: f.Time.UTC(), Target: f.Target, ServerName: f.ServerName, Client: f.Client, Chain: f.Chain}
	if len(challenge) > 0 {
		r.Challenge = challenge
	}
	if s := f.Session; s != nil {
		r.Session = &Session{s.Profile, s.Suite, [32]byte(s.Challenge), [32]byte(s.Exporter), s.Attestation, s.Asked.UTC()}
	}
	if f.Evidence != nil {
		r.Evidence = &attest.Evidence{Format: attest.Format(f.Evidence.Format), Raw: f.Evidence.Raw, Endorsements: unpack(f.Evidence.Endorsements), EventLog: f.Evidence.EventLog}
	}
	for _, e := range f.Fetched {
		out := Fetched{Ref: attest.Ref{Service: e.Service, Path: e.Path, Kind: attest.Kind(e.Kind)}, Endorsements: unpack(e.Endorsements)}
		if p := e.Problem; p != nil {
			out.Problem = &attest.Error{Code: attest.Code(p.Code), Check: p.Check, Got: p.Got, Want: p.Want, Hint: p.Hint}
			if p.Text != "" {
				out.Problem.Err = errors.New(p.Text)
			}
		}
		r.Fetched = append(r.Fetched, out)
	}
	return r, nil
}

func (f *file) check() error {
	switch {
	case f.Jurat != version:
		return malformed(fmt.Errorf("version %d, not %d", f.Jurat, version))
	case f.Time.IsZero():
		return malformed(errors.New("no time"))
	case len(f.Chain) == 0 && f.Evidence == nil:
		return malformed(errors.New("neither a chain nor evidence"))
	case len(f.Chain) > 0 && f.Evidence != nil:
		return malformed(errors.New("both a chain and bare evidence: which of them counts is not for the file to say"))
	case f.Session != nil && len(f.Chain) == 0:
		return malformed(errors.New("evidence for a connection without the chain of its end"))
	case f.Session != nil && (len(f.Session.Challenge) != 32 || len(f.Session.Exporter) != 32 || f.Session.Asked.IsZero()):
		return malformed(errors.New("evidence for a connection without challenge, exporter or time"))
	case !written(f.Time), f.Session != nil && !written(f.Session.Asked):
		return malformed(errors.New("a time that UTC has no four digits for"))
	case len(f.Chain) > 0 && (f.ServerName == "") != f.Client:
		return malformed(errors.New("a chain without the name that was expected, or a client with one"))
	case len(f.Chain) > 0 && !f.Client && hostOf(f.Target) != f.ServerName:
		return malformed(errors.New("a target that is not the name that was expected: a verdict would be read as one about it"))
	case f.Client && !isAddress(f.Target):
		return malformed(errors.New("a client with a name: a verdict would be read as one about it"))
	case len(f.Chain) > maxChain, len(f.Fetched) > maxFetched:
		return malformed(errors.New("too many entries"))
	case len(f.Target) > maxText, len(f.ServerName) > maxText, len(f.Challenge) > maxText:
		return malformed(errors.New("a text of more than 1024 bytes"))
	}
	for _, e := range f.Fetched {
		if (e.Problem == nil) == (len(e.Endorsements) == 0) {
			return malformed(errors.New("an answer with neither or both of endorsements and problem"))
		}
		// What stands for a failed fetch can say that nothing was had, never that all is well.
		if e.Problem != nil && !attest.Code(e.Problem.Code).Undecidable() {
			return malformed(fmt.Errorf("a failed fetch with code %.20q", e.Problem.Code))
		}
	}
	return nil
}

// written reports whether RFC 3339 can say a time in UTC, as a verdict does: with an offset it reaches a day further.
func written(t time.Time) bool { return t.UTC().Year() >= 0 && t.UTC().Year() <= 9999 }

// hostOf is the host of "host:port", and empty for anything else.
func hostOf(target string) string {
	host, _, _ := net.SplitHostPort(target)
	return host
}

// isAddress reports whether target is the address that a client came from.
func isAddress(target string) bool {
	_, err := netip.ParseAddrPort(target)
	return err == nil
}

func malformed(err error) error {
	return &attest.Error{Code: attest.CodeMalformedRecord, Check: "record", Err: err}
}

// limits: a reader that took the first of two keys would otherwise see another record than one that took the last.
func limits() strictjson.Limits {
	return strictjson.Limits{Size: MaxSize, Depth: 9, Key: func(key string) bool {
		return strings.Trim(key, "abcdefghijklmnopqrstuvwxyz_") == ""
	}}
}
