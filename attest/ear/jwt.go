package ear

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictjson"
)

// mediaType is that of a JWT (draft-ietf-rats-ear section 5).
const mediaType = `eat-jwt; eat_profile="` + Profile + `"`

type jwtClaims struct {
	Profile  string          `json:"eat_profile"`
	Status   string          `json:"ear_status,omitempty"`
	Issued   *int64          `json:"iat"`
	Expires  *int64          `json:"exp"`
	Verifier *jwtVerifier    `json:"ear_verifier_id"`
	Nonce    *string         `json:"eat_nonce,omitempty"`
	Holder   json.RawMessage `json:"cnf,omitempty"`
	// What this package never writes, and has to heed (RFC 7519 sections 4.1.3 and 4.1.5).
	NotBefore json.RawMessage         `json:"nbf,omitempty"`
	Audience  json.RawMessage         `json:"aud,omitempty"`
	Submods   map[string]jwtAppraisal `json:"submods"`
}

type jwtVerifier struct {
	Developer string `json:"developer"`
	Build     string `json:"build"`
}

type jwtConfirmation struct {
	Key *jose.JSONWebKey `json:"jwk"`
}

type jwtAppraisal struct {
	Status    string          `json:"ear_status"`
	Vector    map[string]int8 `json:"ear_trustworthiness_vector,omitempty"`
	PolicyIDs []string        `json:"ear_appraisal_policy_ids,omitempty"`
	Ours      *Appraisal      `json:"jurat_appraisal,omitempty"`
}

// SignJWT signs e as a JSON Web Token in compact form. The key is of P-256 or P-384.
func SignJWT(e *EAR, key *ecdsa.PrivateKey) ([]byte, error) {
	algorithm, err := algorithmOf(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	id, err := KeyID(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	issued, expires := e.Issued.Unix(), e.Expires.Unix()
	c := jwtClaims{
		Profile: Profile, Status: e.Status.String(), Issued: &issued, Expires: &expires, Verifier: &jwtVerifier{e.Developer, e.Build},
		Submods: map[string]jwtAppraisal{Submodule: {Status: e.Status.String(), Vector: map[string]int8{}, PolicyIDs: e.PolicyIDs, Ours: &e.Appraisal}},
	}
	for name, t := range e.Vector {
		c.Submods[Submodule].Vector[name] = int8(t)
	}
	if len(e.Nonce) > 0 {
		nonce := base64.RawURLEncoding.EncodeToString(e.Nonce)
		c.Nonce = &nonce
	}
	if e.Holder != nil {
		holder, err := json.Marshal(jwtConfirmation{&jose.JSONWebKey{Key: e.Holder}})
		if err != nil {
			return nil, err
		}
		c.Holder = holder
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	options := (&jose.SignerOptions{}).WithType(mediaType).WithHeader("kid", id)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		return nil, err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return nil, err
	}
	compact, err := signed.CompactSerialize()
	return []byte(compact), err
}

func algorithmOf(key *ecdsa.PublicKey) (jose.SignatureAlgorithm, error) {
	switch key.Curve {
	case elliptic.P256():
		return jose.ES256, nil
	case elliptic.P384():
		return jose.ES384, nil
	}
	return "", refuse(attest.CodeUnknownAlgorithm, "a key of another curve", "P-256 or P-384")
}

// VerifyJWT verifies a token in compact form.
func VerifyJWT(raw []byte, trust Trust, now time.Time) (*EAR, error) {
	if len(raw) > MaxSize {
		return nil, refuse(attest.CodeOversized, "an attestation result that is too long", "")
	}
	token, err := jose.ParseSignedCompact(string(raw), []jose.SignatureAlgorithm{jose.ES256, jose.ES384})
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeMalformed, Check: "result", Got: "no JSON Web Signature by ES256 or ES384", Err: err}
	}
	// The library verifies what it decoded. Unused bits of base64 would let a token be written in several ways.
	if compact, _ := token.CompactSerialize(); compact != string(raw) {
		return nil, malformed("a token that is not written as its signer wrote it")
	}
	var payload []byte
	for _, key := range trust.keys {
		// The algorithm is the one of the key, whatever the token says: a key serves one.
		if algorithm, _ := algorithmOf(key); string(algorithm) != token.Signatures[0].Header.Algorithm {
			continue
		}
		if payload, err = token.Verify(key); err == nil {
			break
		}
		payload = nil
	}
	if payload == nil {
		return nil, refuse(attest.CodeResultSigner, "a signature by nobody who is trusted", "")
	}
	if err := strictjson.Check(payload, strictjson.Limits{Size: MaxSize, Depth: 8, Key: anyKey}); err != nil {
		return nil, unreadable(err)
	}
	var c jwtClaims
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, unreadable(err)
	}
	return c.result(now)
}

func (c *jwtClaims) result(now time.Time) (*EAR, error) {
	if c.Profile != Profile {
		return nil, refuse(attest.CodeUnknownVersion, c.Profile, Profile)
	}
	if c.Issued == nil || c.Expires == nil || c.Verifier == nil {
		return nil, malformed("no iat, exp or ear_verifier_id")
	}
	e := &EAR{Issued: time.Unix(*c.Issued, 0).UTC(), Expires: time.Unix(*c.Expires, 0).UTC(), Developer: c.Verifier.Developer, Build: c.Verifier.Build, Status: TierAffirming, Vector: map[string]Tier{}}
	if c.Nonce != nil {
		nonce, err := base64.RawURLEncoding.DecodeString(*c.Nonce)
		if err != nil || len(nonce) == 0 {
			return nil, malformed("a nonce that is not base64url")
		}
		e.Nonce = nonce
	}
	if c.Audience != nil {
		return nil, forSomebody()
	}
	if c.NotBefore != nil {
		var from int64
		if json.Unmarshal(c.NotBefore, &from) != nil {
			return nil, malformed("nbf that is no whole number")
		}
		if err := notBefore(from, now); err != nil {
			return nil, err
		}
	}
	if c.Holder != nil {
		var confirmation jwtConfirmation
		dec := json.NewDecoder(bytes.NewReader(c.Holder))
		dec.DisallowUnknownFields() // one way of confirmation, and no second one that would have to hold as well
		key, ok := (*ecdsa.PublicKey)(nil), false
		if dec.Decode(&confirmation) == nil && confirmation.Key != nil {
			key, ok = confirmation.Key.Key.(*ecdsa.PublicKey)
		}
		if !ok { // a confirmation that is not understood ties it to somebody unknown, not to nobody
			return nil, refuse(attest.CodeUnknownField, "a key confirmation of another kind", "cnf with the jwk of an elliptic curve")
		}
		e.Holder = key
	}
	for _, label := range slices.Sorted(maps.Keys(c.Submods)) {
		a := c.Submods[label]
		tier, ok := tierNamed(a.Status)
		if !ok {
			return nil, malformed("a status that is no tier")
		}
		vector := map[string]Tier{}
		for name, v := range a.Vector {
			vector[name] = Tier(v)
		}
		if err := e.add(label, tier, vector, a.PolicyIDs, a.Ours); err != nil {
			return nil, err
		}
	}
	if c.Status != "" {
		tier, ok := tierNamed(c.Status)
		if !ok {
			return nil, malformed("a status that is no tier")
		}
		e.lower(tier)
	}
	return e.checked(now)
}

// add takes one appraisal into account: the result is no better than its worst.
func (e *EAR) add(label string, status Tier, vector map[string]Tier, policies []string, ours *Appraisal) error {
	e.Submodules = append(e.Submodules, label)
	e.lower(status)
	for name, v := range vector {
		if !slices.Contains(vectorNames, name) {
			return malformed("a category that is none")
		}
		e.Vector[name] = worse(e.Vector, name, v.tier())
		// The status of an appraisal is no better than any of its categories; one that is was not made by the rules.
		if v.tier() != TierNone {
			e.lower(v.tier())
		}
	}
	e.PolicyIDs = append(e.PolicyIDs, policies...)
	if ours != nil && label == Submodule {
		e.Appraisal = *ours
	}
	return nil
}

// tier is the tier that a claim of the vector lies in (draft-ietf-rats-ar4si section 3.2): -1 to 1 say nothing, 2 to 31
// affirm, 32 to 95 warn, and 96 and above contraindicate; below -1 it is the same with the sign changed.
func (t Tier) tier() Tier {
	n := int(t)
	if n < -1 {
		n = -n - 1
	}
	switch {
	case n <= 1:
		return TierNone
	case n < 32:
		return TierAffirming
	case n < 96:
		return TierWarning
	}
	return TierContraindicated
}

func (e *EAR) lower(t Tier) { e.Status = worse(map[string]Tier{"": e.Status}, "", t) }

// anyKey accepts keys that are not known: a receiver has to ignore unknown claims (draft-ietf-rats-ear section 4).
func anyKey(string) bool { return true }
