package api

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/jurat-tls/jurat/attest"
	pb "github.com/jurat-tls/jurat/xds/api/jurat/config/v1alpha1"
)

// The types of the messages, as google.protobuf.Any has them.
const (
	TypeValidator  = prefix + "jurat.config.v1alpha1.AttestationValidator"
	TypeIdentity   = prefix + "jurat.config.v1alpha1.AttestedIdentity"
	TypePolicy     = prefix + "jurat.config.v1alpha1.AttestationPolicy"
	TypeReferences = prefix + "jurat.config.v1alpha1.ReferenceValues"
)

const prefix = "type.googleapis.com/"

// What a message may hold at most.
const (
	MaxMessage    = 16 << 20 // bytes of one, serialized
	MaxPolicy     = 1 << 20  // bytes of the text of a policy
	MaxFiles      = 256      // files of a policy, or of reference values
	MaxReferences = 64       // sets of reference values of one policy
	maxName       = 255      // bytes of a name
)

// MinReattest keeps peers from being asked faster than a TEE can answer.
const MinReattest = time.Second

// Validator is what a peer has to prove: an AttestationValidator whose pki_mode is EVIDENCE_ONLY.
type Validator struct {
	Policy   string        // the name of the policy that it has to meet
	Reattest time.Duration // how often it has to attest anew; 0 is half of what the policy has as freshness.evidence
	Name     string        // what a server's evidence has to be for; "" where the validator does not say
}

// Policy is an AttestationPolicy.
type Policy struct {
	Name       string
	Serial     uint64            // grows with every change
	Text       string            // of a policy file, which was not parsed
	Files      map[string][]byte // that the text names
	References []string          // the names of ReferenceValues with further ones
}

// References is ReferenceValues.
type References struct {
	Name   string
	Serial uint64            // grows with every change
	Files  map[string][]byte // by the names that policies give them
}

// DecodeValidator reads an AttestationValidator, which came as a google.protobuf.Any of that type and value.
func DecodeValidator(typ string, value []byte) (Validator, error) {
	var m pb.AttestationValidator
	if err := decode(typ, value, TypeValidator, &m); err != nil {
		return Validator{}, err
	}
	switch m.GetPkiMode() {
	case pb.AttestationValidator_EVIDENCE_ONLY:
	case pb.AttestationValidator_PKI_MODE_UNSPECIFIED:
		return Validator{}, missing("pki_mode", "EVIDENCE_ONLY")
	default:
		return Validator{}, bad("pki_mode", m.GetPkiMode().String(), "EVIDENCE_ONLY")
	}
	if err := checkName("policy", m.GetPolicy()); err != nil {
		return Validator{}, err
	}
	v := Validator{Policy: m.GetPolicy(), Name: m.GetName()}
	if d := m.GetReattest(); d != nil {
		if d.CheckValid() != nil || d.AsDuration() < MinReattest {
			return Validator{}, bad("reattest", fmt.Sprintf("%d.%09ds", d.GetSeconds(), d.GetNanos()), "at least "+MinReattest.String())
		}
		v.Reattest = d.AsDuration()
	}
	if v.Name != "" && !isName(v.Name) {
		return Validator{}, bad("name", quote(v.Name), "a DNS name or an IP address")
	}
	return v, nil
}

// DecodeIdentity reads an AttestedIdentity, which says nothing but that it is there.
func DecodeIdentity(typ string, value []byte) error {
	return decode(typ, value, TypeIdentity, new(pb.AttestedIdentity))
}

// DecodePolicy reads an AttestationPolicy. The text is not looked at.
func DecodePolicy(typ string, value []byte) (Policy, error) {
	var m pb.AttestationPolicy
	if err := decode(typ, value, TypePolicy, &m); err != nil {
		return Policy{}, err
	}
	p := Policy{Name: m.GetName(), Serial: m.GetSerial(), Text: m.GetPolicy(), Files: m.GetFiles(), References: m.GetReferenceValues()}
	return p, p.check()
}

func (p *Policy) check() error {
	switch {
	case p.Text == "":
		return missing("policy", "the text of a policy file")
	case len(p.Text) > MaxPolicy:
		return bad("policy", strconv.Itoa(len(p.Text))+" bytes", fmt.Sprintf("at most %d", MaxPolicy))
	case len(p.References) > MaxReferences:
		return bad("reference_values", strconv.Itoa(len(p.References)), fmt.Sprintf("at most %d", MaxReferences))
	}
	for i, name := range p.References {
		at := fmt.Sprintf("reference_values[%d]", i)
		if err := checkName(at, name); err != nil {
			return err
		}
		if slices.Contains(p.References[:i], name) {
			return bad(at, quote(name), "a name that is not there before")
		}
	}
	return named(p.Name, p.Serial, p.Files)
}

// DecodeReferences reads ReferenceValues. The files are not looked at.
func DecodeReferences(typ string, value []byte) (References, error) {
	var m pb.ReferenceValues
	if err := decode(typ, value, TypeReferences, &m); err != nil {
		return References{}, err
	}
	r := References{Name: m.GetName(), Serial: m.GetSerial(), Files: m.GetFiles()}
	return r, r.check()
}

func (r *References) check() error {
	if len(r.Files) == 0 {
		return missing("files", "a file")
	}
	return named(r.Name, r.Serial, r.Files)
}

// Encode answers the serialized AttestationValidator.
func (v Validator) Encode() ([]byte, error) {
	m := &pb.AttestationValidator{Policy: v.Policy, PkiMode: pb.AttestationValidator_EVIDENCE_ONLY, Name: v.Name}
	if v.Reattest != 0 {
		m.Reattest = durationpb.New(v.Reattest)
	}
	raw, err := encode(m)
	if err == nil {
		_, err = DecodeValidator(TypeValidator, raw)
	}
	return raw, err
}

// Encode answers the serialized AttestationPolicy, always the same bytes for the same policy.
func (p Policy) Encode() ([]byte, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	return encode(&pb.AttestationPolicy{Name: p.Name, Serial: p.Serial, Policy: p.Text, Files: p.Files, ReferenceValues: p.References})
}

// Encode answers the serialized ReferenceValues, always the same bytes for the same files.
func (r References) Encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return encode(&pb.ReferenceValues{Name: r.Name, Serial: r.Serial, Files: r.Files})
}

func encode(m proto.Message) ([]byte, error) {
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	switch {
	case err != nil: // a text that is not UTF-8
		return nil, bad("", err.Error(), "text in UTF-8")
	case len(raw) > MaxMessage:
		return nil, &attest.Error{Code: attest.CodeOversized, Check: check, Got: strconv.Itoa(len(raw)) + " bytes", Want: fmt.Sprintf("at most %d", MaxMessage)}
	}
	return raw, nil
}

// named checks what policies and reference values have in common.
func named(name string, serial uint64, files map[string][]byte) error {
	if err := checkName("name", name); err != nil {
		return err
	}
	if serial == 0 {
		return missing("serial", "a number above 0")
	}
	if len(files) > MaxFiles {
		return bad("files", strconv.Itoa(len(files)), fmt.Sprintf("at most %d", MaxFiles))
	}
	for file := range files {
		if err := checkName("files", file); err != nil {
			return err
		}
	}
	return nil
}

func checkName(at, name string) error {
	switch {
	case name == "":
		return missing(at, "a name")
	case len(name) > maxName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return bad(at, quote(name), fmt.Sprintf("a name of at most %d bytes without control characters", maxName))
	}
	return nil
}

// isName reports whether s is an IP address, or a name as certificates have it.
func isName(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.ToLower(s), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

const check = "xds"

func quote(s string) string { return fmt.Sprintf("%.100q", s) }

func bad(at, got, want string) error {
	return &attest.Error{Code: attest.CodeConfigValue, Check: check, Subject: at, Got: got, Want: want}
}

func missing(at, want string) error {
	return &attest.Error{Code: attest.CodeConfigMissing, Check: check, Subject: at, Want: want}
}
