package oracle_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/golang-jwt/jwt/v5"
	"github.com/veraison/go-cose"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/ear"
)

type anyEvidence struct{}

func (anyEvidence) Verify(context.Context, *attest.Evidence, attest.Endorser, time.Time) (*attest.Claims, error) {
	return &attest.Claims{Vendor: "amd", TEE: "snp", Generation: "genoa", ReportData: attest.ReportData{1}}, nil
}

type pass struct{}

func (pass) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "sha256:p", Checks: []attest.Check{{ID: "platform.allowed", Status: attest.StatusPass}}}
}

func attestationResult(t *testing.T, holder *ecdsa.PublicKey, now time.Time) *ear.EAR {
	t.Helper()
	r := attest.NewAppraiser(attest.NoEndorser{}, anyEvidence{}).Appraise(t.Context(), &attest.Evidence{Format: "test", Raw: []byte("x")},
		attest.Expect(attest.ReportData{1}, attest.LevelSession, now), pass{}, now)
	e, err := ear.New(r, ear.Verifier{Developer: "https://verifier.example", Build: "1"}, holder, []byte("12345678"), now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Results that we sign verify with another JOSE implementation, and those that it signs verify with ours.
func TestResultAsJWT(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	for _, c := range []struct {
		curve  elliptic.Curve
		method jwt.SigningMethod
	}{{elliptic.P256(), jwt.SigningMethodES256}, {elliptic.P384(), jwt.SigningMethodES384}} {
		key, holder := ecKey(t, c.curve), ecKey(t, elliptic.P256())
		raw, err := ear.SignJWT(attestationResult(t, &holder.PublicKey, now), key)
		if err != nil {
			t.Fatal(err)
		}
		token, err := jwt.Parse(string(raw), func(*jwt.Token) (any, error) { return &key.PublicKey, nil }, jwt.WithValidMethods([]string{c.method.Alg()}), jwt.WithExpirationRequired())
		if err != nil {
			t.Fatal(err)
		}
		claims := token.Claims.(jwt.MapClaims)
		sub := claims["submods"].(map[string]any)[ear.Submodule].(map[string]any)
		if claims["eat_profile"] != ear.Profile || sub["ear_status"] != "affirming" || sub["ear_trustworthiness_vector"].(map[string]any)["hardware"] != 2.0 {
			t.Fatalf("got %v", claims)
		}
		if jwk := claims["cnf"].(map[string]any)["jwk"].(map[string]any); jwk["crv"] != "P-256" || jwk["d"] != nil {
			t.Fatalf("cnf %v", jwk)
		}
		if _, err := jwt.Parse(string(raw), func(*jwt.Token) (any, error) { return &ecKey(t, c.curve).PublicKey, nil }); err == nil {
			t.Fatal("verifies under another key")
		}

		back, err := jwt.NewWithClaims(c.method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ear.VerifyJWT([]byte(back), ear.TrustKeys(&key.PublicKey), now)
		if err != nil || !got.Affirming() || !got.HolderIs(&holder.PublicKey) {
			t.Fatalf("got %+v, %v", got, err)
		}
		if _, err := ear.VerifyJWT([]byte(back), ear.TrustKeys(&key.PublicKey), now.Add(2*time.Hour)); attest.CodeOf(err) != attest.CodeResultExpired {
			t.Fatalf("expired: %v", err)
		}
		if _, err := ear.VerifyJWT([]byte(back), ear.TrustKeys(&holder.PublicKey), now); attest.CodeOf(err) != attest.CodeResultSigner {
			t.Fatalf("another key: %v", err)
		}
	}
}

// The same with another COSE implementation.
func TestResultAsCWT(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	for curve, algorithm := range map[elliptic.Curve]cose.Algorithm{elliptic.P256(): cose.AlgorithmES256, elliptic.P384(): cose.AlgorithmES384} {
		key, holder := ecKey(t, curve), ecKey(t, elliptic.P256())
		raw, err := ear.SignCWT(attestationResult(t, &holder.PublicKey, now), key)
		if err != nil {
			t.Fatal(err)
		}
		var m cose.UntaggedSign1Message
		if err := m.UnmarshalCBOR(raw); err != nil {
			t.Fatal(err)
		}
		verifier, err := cose.NewVerifier(algorithm, &key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Verify(nil, verifier); err != nil {
			t.Fatal(err)
		}
		var claims map[int64]any
		if err := cbor.Unmarshal(m.Payload, &claims); err != nil {
			t.Fatal(err)
		}
		if claims[265] != ear.Profile || claims[266].(map[any]any)[ear.Submodule].(map[any]any)[uint64(1000)] != uint64(2) {
			t.Fatalf("got %v", claims)
		}
		var confirmation struct {
			Key cbor.RawMessage `cbor:"1,keyasint"`
		}
		cnf, err := cbor.Marshal(claims[8])
		if err != nil {
			t.Fatal(err)
		}
		if err := cbor.Unmarshal(cnf, &confirmation); err != nil {
			t.Fatal(err)
		}
		var theirs cose.Key
		if err := theirs.UnmarshalCBOR(confirmation.Key); err != nil {
			t.Fatal(err)
		}
		if pub, err := theirs.PublicKey(); err != nil || !holder.PublicKey.Equal(pub) {
			t.Fatalf("holder %v, %v", pub, err)
		}

		signer, err := cose.NewSigner(algorithm, key)
		if err != nil {
			t.Fatal(err)
		}
		back := cose.Sign1Message{Headers: cose.Headers{Protected: cose.ProtectedHeader{cose.HeaderLabelAlgorithm: algorithm}}, Payload: m.Payload}
		if err := back.Sign(rand.Reader, nil, signer); err != nil {
			t.Fatal(err)
		}
		tagged, err := back.MarshalCBOR()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ear.VerifyCWT(tagged, ear.TrustKeys(&key.PublicKey), now)
		if err != nil || !got.Affirming() || !got.HolderIs(&holder.PublicKey) || !bytes.Equal(got.Nonce, []byte("12345678")) {
			t.Fatalf("got %+v, %v", got, err)
		}
		changed := bytes.Clone(tagged)
		changed[len(changed)-1] ^= 1
		if _, err := ear.VerifyCWT(changed, ear.TrustKeys(&key.PublicKey), now); attest.CodeOf(err) != attest.CodeResultSigner {
			t.Fatalf("changed: %v", err)
		}
	}
}
