package ear

import (
	"crypto/ecdsa"
	"encoding/json"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cose"
	"github.com/jurat-tls/jurat/attest/strictcbor"
	"github.com/jurat-tls/jurat/attest/strictjson"
)

// Labels of claims in a CWT (RFC 8392, RFC 8747, RFC 9711, draft-ietf-rats-ear).
const (
	labelAudience   = 3
	labelExpires    = 4
	labelNotBefore  = 5
	labelIssued     = 6
	labelHolder     = 8
	labelNonce      = 10
	labelProfile    = 265
	labelSubmods    = 266
	labelStatus     = 1000
	labelVector     = 1001
	labelPolicies   = 1003
	labelVerifier   = 1004
	labelOurs       = -70100 // private: jurat_appraisal, as JSON text
	confirmationKey = 1
	verifierDevelop = 0
	verifierBuild   = 1
	maxOurs         = 4 << 10
)

// SignCWT signs e as a CBOR Web Token: an untagged COSE_Sign1. The key is of P-256 or P-384.
func SignCWT(e *EAR, key *ecdsa.PrivateKey) ([]byte, error) {
	if _, err := algorithmOf(&key.PublicKey); err != nil {
		return nil, err
	}
	ours, err := json.Marshal(e.Appraisal)
	if err != nil {
		return nil, err
	}
	vector := map[int64]any{}
	for i, name := range vectorNames {
		if t, ok := e.Vector[name]; ok {
			vector[int64(i)] = int64(t)
		}
	}
	appraisal := map[int64]any{labelStatus: int64(e.Status), labelOurs: string(ours)}
	if len(vector) > 0 {
		appraisal[labelVector] = vector
	}
	if len(e.PolicyIDs) > 0 {
		appraisal[labelPolicies] = e.PolicyIDs
	}
	claims := map[int64]any{
		labelProfile: Profile, labelStatus: int64(e.Status), labelIssued: e.Issued.Unix(), labelExpires: e.Expires.Unix(),
		labelVerifier: map[int64]any{verifierDevelop: e.Developer, verifierBuild: e.Build},
		labelSubmods:  map[string]any{Submodule: appraisal},
	}
	if len(e.Nonce) > 0 {
		claims[labelNonce] = e.Nonce
	}
	if e.Holder != nil {
		holder, err := cose.KeyMap(e.Holder)
		if err != nil {
			return nil, err
		}
		claims[labelHolder] = map[int64]any{confirmationKey: holder}
	}
	payload, err := strictcbor.Marshal(claims)
	if err != nil {
		return nil, err
	}
	return cose.Sign(key, payload)
}

// VerifyCWT verifies a token: a COSE_Sign1 with or without its tag.
func VerifyCWT(raw []byte, trust Trust, now time.Time) (*EAR, error) {
	if len(raw) > MaxSize {
		return nil, refuse(attest.CodeOversized, "an attestation result that is too long", "")
	}
	message, err := cose.Parse(raw)
	if err != nil {
		return nil, err
	}
	signed := false
	for _, key := range trust.keys {
		if _, err := algorithmOf(key); err == nil && message.Verify(key) == nil {
			signed = true
			break
		}
	}
	if !signed {
		return nil, refuse(attest.CodeResultSigner, "a signature by nobody who is trusted", "")
	}
	v, err := strictcbor.Parse(message.Payload, strictcbor.Limits{Depth: 6, Items: 64, AnyLength: true})
	if err != nil {
		return nil, unreadable(err)
	}
	return fromCWT(v, now)
}

func fromCWT(v strictcbor.Value, now time.Time) (*EAR, error) {
	if profile, _ := v.Get(labelProfile).Text(); profile != Profile {
		return nil, refuse(attest.CodeUnknownVersion, profile, Profile)
	}
	issued, ok1 := v.Get(labelIssued).Int()
	expires, ok2 := v.Get(labelExpires).Int()
	by := v.Get(labelVerifier)
	if !ok1 || !ok2 || !by.IsMap() {
		return nil, malformed("no iat, exp or verifier id")
	}
	e := &EAR{Issued: time.Unix(issued, 0).UTC(), Expires: time.Unix(expires, 0).UTC(), Status: TierAffirming, Vector: map[string]Tier{}}
	e.Developer, _ = by.Get(verifierDevelop).Text()
	e.Build, _ = by.Get(verifierBuild).Text()
	if n := v.Get(labelNonce); n.Present() {
		if e.Nonce, _ = n.Bytes(); len(e.Nonce) == 0 {
			return nil, malformed("a nonce that is no byte string")
		}
	}
	if v.Get(labelAudience).Present() {
		return nil, forSomebody()
	}
	if b := v.Get(labelNotBefore); b.Present() {
		from, ok := b.Int()
		if !ok {
			return nil, malformed("nbf that is no whole number")
		}
		if err := notBefore(from, now); err != nil {
			return nil, err
		}
	}
	if h := v.Get(labelHolder); h.Present() {
		key, err := cose.KeyFrom(h.Get(confirmationKey))
		if err != nil || h.Len() != 1 {
			// A confirmation that is not understood ties it to somebody unknown, not to nobody.
			return nil, refuse(attest.CodeUnknownField, "a key confirmation of another kind", "cnf with the COSE_Key of an elliptic curve")
		}
		e.Holder = key
	}
	submods := v.Get(labelSubmods)
	for i := range submods.Len() {
		name, a := submods.Entry(i)
		label, ok := name.Text()
		if !ok {
			return nil, malformed("an appraisal without a label")
		}
		if err := e.addCWT(label, a); err != nil {
			return nil, err
		}
	}
	if s := v.Get(labelStatus); s.Present() {
		tier, ok := tierOf(s)
		if !ok {
			return nil, malformed("a status that is no tier")
		}
		e.lower(tier)
	}
	return e.checked(now)
}

func tierOf(v strictcbor.Value) (Tier, bool) {
	n, ok := v.Int()
	if !ok || n < 0 || n > 127 {
		return 0, false
	}
	_, known := tierNames[Tier(n)]
	return Tier(n), known
}

func (e *EAR) addCWT(label string, a strictcbor.Value) error {
	status, ok := tierOf(a.Get(labelStatus))
	if !ok {
		return malformed("a status that is no tier")
	}
	vector := map[string]Tier{}
	if v := a.Get(labelVector); v.Present() {
		if !v.IsMap() {
			return malformed("a vector that is no map")
		}
		for i := range v.Len() {
			key, value := v.Entry(i)
			at, ok1 := key.Uint()
			n, ok2 := value.Int()
			if !ok1 || !ok2 || at >= uint64(len(vectorNames)) || n < -128 || n > 127 {
				return malformed("a category that is none")
			}
			vector[vectorNames[at]] = Tier(n)
		}
	}
	var policies []string
	if p := a.Get(labelPolicies); p.Present() {
		items, ok := p.Array()
		if !ok {
			return malformed("policy ids that are no list")
		}
		for _, item := range items {
			id, ok := item.Text()
			if !ok {
				return malformed("a policy id that is no text")
			}
			policies = append(policies, id)
		}
	}
	var ours *Appraisal
	if o := a.Get(labelOurs); o.Present() {
		text, _ := o.Text()
		if err := strictjson.Check([]byte(text), strictjson.Limits{Size: maxOurs, Depth: 2, Key: anyKey}); err != nil {
			return unreadable(err)
		}
		ours = new(Appraisal)
		if err := json.Unmarshal([]byte(text), ours); err != nil {
			return unreadable(err)
		}
	}
	return e.add(label, status, vector, policies, ours)
}
