// Package ear makes and verifies EAT Attestation Results (draft-ietf-rats-ear, profile tag:ietf.org,2026:rats/ear#03):
// what a Verifier found, signed by the Verifier, so that a Relying Party which trusts that Verifier need not appraise the
// Evidence itself. A result is a JSON Web Token or a CBOR Web Token. It may be tied to the key of its holder (RFC 7800,
// RFC 8747): without the proof that whoever shows it holds that key, a result is anybody's.
package ear

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictcbor"
	"github.com/jurat-tls/jurat/attest/strictjson"
)

// Profile is the one that this package makes and accepts.
const Profile = "tag:ietf.org,2026:rats/ear#03"

// Submodule labels the appraisal in what this package makes: there is one attester.
const Submodule = "jurat"

// Tier is how far a Verifier vouches for something (draft-ietf-rats-ar4si section 3.2). Tiers are words, not degrees: none
// is neither better nor worse than warning, and only TierAffirming affirms.
type Tier int8

// Values of Tier. The zero value vouches for nothing.
const (
	TierNone            Tier = 0
	TierAffirming       Tier = 2
	TierWarning         Tier = 32
	TierContraindicated Tier = 96
)

var tierNames = map[Tier]string{TierNone: "none", TierAffirming: "affirming", TierWarning: "warning", TierContraindicated: "contraindicated"}

func (t Tier) String() string { return tierNames[t] }

func tierNamed(name string) (Tier, bool) {
	for t, n := range tierNames {
		if n == name {
			return t, true
		}
	}
	return 0, false
}

// vectorNames are the categories of the trustworthiness vector, in the order of their CBOR labels.
var vectorNames = []string{
	"instance-identity", "configuration", "executables", "file-system", "hardware", "runtime-opaque", "storage-opaque", "sourced-data",
}

// Limits on what is read.
const (
	MaxSize  = 64 << 10
	maxNonce = 64
	minNonce = 8
)

// EAR is an Attestation Result. One that Verify returned was signed by a Verifier that the caller trusts, and has not
// expired; what it says is in Status.
type EAR struct {
	Issued     time.Time
	Expires    time.Time
	Developer  string // of the Verifier
	Build      string
	Nonce      []byte           // the relying party's; empty for none
	Holder     *ecdsa.PublicKey // whose result this is; nil: it is tied to nobody
	Status     Tier
	Vector     map[string]Tier // by category, such as "hardware"
	PolicyIDs  []string
	Appraisal  Appraisal
	Submodules []string // labels of all appraisals, of which Status is the worst
}

// Appraisal is what this package adds to an appraisal, as the claim jurat_appraisal.
type Appraisal struct {
	Verdict    string `json:"verdict"`
	Code       string `json:"code,omitempty"`
	Binding    string `json:"binding,omitempty"`
	Evidence   string `json:"evidence_sha256,omitempty"`
	Time       int64  `json:"time,omitempty"` // of the appraisal, Unix seconds
	Vendor     string `json:"vendor,omitempty"`
	TEE        string `json:"tee,omitempty"`
	Product    string `json:"product,omitempty"`
	Generation string `json:"generation,omitempty"`
	Simulated  bool   `json:"simulated,omitempty"`
}

// Verifier names who makes results.
type Verifier struct{ Developer, Build string }

// New makes the result of an appraisal, valid for a lifetime from now on, tied to the holder's key; nil ties it to nobody.
func New(r *attest.Result, by Verifier, holder *ecdsa.PublicKey, nonce []byte, now time.Time, lifetime time.Duration) (*EAR, error) {
	if by.Developer == "" || by.Build == "" {
		return nil, usage("a verifier without a name", "developer and build")
	}
	if lifetime <= 0 {
		return nil, usage("a lifetime of "+lifetime.String(), "one above zero")
	}
	if len(nonce) != 0 && (len(nonce) < minNonce || len(nonce) > maxNonce) {
		return nil, usage("a nonce of another size", "8 to 64 bytes")
	}
	e := &EAR{
		Issued: now.UTC().Truncate(time.Second), Developer: by.Developer, Build: by.Build, Nonce: slices.Clone(nonce), Holder: holder,
		Status: statusOf(r), Vector: vectorOf(r), Submodules: []string{Submodule},
		Appraisal: Appraisal{Verdict: r.Verdict().String(), Code: string(r.Code()), Binding: string(r.Level()), Evidence: r.EvidenceDigest(), Time: r.Time().Unix()},
	}
	e.Expires = e.Issued.Add(lifetime.Truncate(time.Second))
	if id := r.PolicyID(); id != "" {
		e.PolicyIDs = []string{id}
	}
	if c := r.Claims(); c != nil {
		a := &e.Appraisal
		a.Vendor, a.TEE, a.Product, a.Generation, a.Simulated = c.Vendor, c.TEE, c.Product, c.Generation, c.Simulated
	}
	return e, nil
}

// statusOf is affirming for an affirmed result without a warning, and nothing else is.
func statusOf(r *attest.Result) Tier {
	switch {
	case r.Affirmed() && !slices.ContainsFunc(r.Checks(), func(c attest.Check) bool { return c.Status == attest.StatusWarn }):
		return TierAffirming
	case r.Affirmed():
		return TierWarning
	case r.Verdict() == attest.Undecided:
		return TierNone
	}
	return TierContraindicated
}

// vectorOf spreads the checks over categories. A category that nothing was checked in is not claimed.
func vectorOf(r *attest.Result) map[string]Tier {
	category := map[string]string{
		"binding": "instance-identity", "authenticity": "hardware", "platform": "hardware", "tcb": "hardware", "workload": "executables", "rules": "configuration",
	}
	v := map[string]Tier{}
	for _, c := range r.Checks() {
		group, _, _ := strings.Cut(strings.TrimPrefix(c.ID, "floor."), ".")
		name, ok := category[group]
		if !ok {
			name = "configuration"
		}
		t := TierContraindicated
		switch {
		case c.Status == attest.StatusPass:
			t = TierAffirming
		case c.Status == attest.StatusWarn:
			t = TierWarning
		case c.Code.Undecidable():
			t = TierNone
		}
		v[name] = worse(v, name, t)
	}
	return v
}

// worse keeps what vouches for less: contraindicated, then none, then warning, then affirming.
func worse(v map[string]Tier, name string, t Tier) Tier {
	order := []Tier{TierContraindicated, TierNone, TierWarning, TierAffirming}
	old, ok := v[name]
	if !ok || slices.Index(order, t) < slices.Index(order, old) {
		return t
	}
	return old
}

// Affirming reports whether the Verifier affirmed. It is false for nil.
func (e *EAR) Affirming() bool { return e != nil && e.Status == TierAffirming }

// HolderIs reports whether the result is tied to key. A result that is tied to nobody is nobody's.
func (e *EAR) HolderIs(key *ecdsa.PublicKey) bool {
	return e != nil && e.Holder != nil && key != nil && e.Holder.Equal(key)
}

// Trust holds the keys of the Verifiers whose results count. The zero value trusts nobody.
type Trust struct{ keys []*ecdsa.PublicKey }

// TrustKeys trusts the Verifiers that hold these keys, of P-256 or P-384.
func TrustKeys(keys ...*ecdsa.PublicKey) Trust { return Trust{keys} }

// KeyID names a key in a token's header: the first 16 hex digits of the SHA-256 of its point. It is a hint and proves
// nothing.
func KeyID(key *ecdsa.PublicKey) (string, error) {
	point, err := key.Bytes()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(point)
	return hex.EncodeToString(sum[:8]), nil
}

// maxSkew is how far in the future a result may have been issued: clocks differ.
const maxSkew = time.Minute

// checked judges what is the same in both forms, and answers e.
func (e *EAR) checked(now time.Time) (*EAR, error) {
	switch {
	case now.Before(e.Issued.Add(-maxSkew)):
		return nil, refuse(attest.CodeResultExpired, "issued at "+e.Issued.Format(time.RFC3339), "before "+now.UTC().Format(time.RFC3339))
	case !now.Before(e.Expires):
		return nil, refuse(attest.CodeResultExpired, "expired at "+e.Expires.Format(time.RFC3339), "valid at "+now.UTC().Format(time.RFC3339))
	case e.Developer == "" || e.Build == "":
		return nil, malformed("no verifier id")
	case len(e.Nonce) != 0 && (len(e.Nonce) < minNonce || len(e.Nonce) > maxNonce):
		return nil, malformed("a nonce of another size")
	case len(e.Submodules) == 0:
		return nil, malformed("no appraisal")
	}
	return e, nil
}

// forSomebody refuses a result with an audience: nobody here identifies with one (RFC 7519 section 4.1.3).
func forSomebody() error {
	return refuse(attest.CodeUnknownField, "a result for a certain audience", "one without aud")
}

// notBefore refuses a result that is not valid yet.
func notBefore(from int64, now time.Time) error {
	if t := time.Unix(from, 0).UTC(); now.Before(t.Add(-maxSkew)) {
		return refuse(attest.CodeResultExpired, "not valid before "+t.Format(time.RFC3339), "valid at "+now.UTC().Format(time.RFC3339))
	}
	return nil
}

func refuse(code attest.Code, got, want string) *attest.Error {
	return attest.Refuse(code, "result", got, want)
}

// unreadable refuses what the strict readers of either encoding do not read.
func unreadable(err error) *attest.Error {
	code := attest.CodeMalformed
	if errors.Is(err, strictjson.ErrDuplicate) || errors.Is(err, strictcbor.ErrDuplicate) {
		code = attest.CodeDuplicateField
	}
	return &attest.Error{Code: code, Check: "result", Err: err}
}

func malformed(got string) *attest.Error {
	return refuse(attest.CodeMalformed, got, "an attestation result")
}

func usage(got, want string) *attest.Error { return refuse(attest.CodeUsage, got, want) }
