package cca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cca"
	"github.com/jurat-tls/jurat/attest/cose"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

type keySet struct{ cpak, rak, other *ecdsa.PrivateKey }

var keys = sync.OnceValue(func() (k keySet) {
	for _, at := range []**ecdsa.PrivateKey{&k.cpak, &k.rak, &k.other} {
		*at, _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return k
})

// generation is one pair of profiles, in the collection that goes with it.
type generation int

const (
	v2023 generation = iota // COSE_Key, tag 399
	legacy
	v2024 // CMW records, tag 907
)

// forge makes evidence in Arm's format under a platform key of its own. The hooks change one thing before it is signed, so
// that nothing but the check under test can refuse the evidence.
type forge struct {
	generation      generation
	platform, realm func(map[any]any) // claims, before they are signed
	cpak, rak       *ecdsa.PrivateKey // that sign; nil: the right ones
	rakPublic       []byte            // the claim; nil: the right one
	challenge       []byte            // of the platform; nil: the hash of the realm's key
	collection      func(map[any]any) // the two tokens
	part            func([]byte) []byte
	realmPayload    []byte // in place of the claims
	raw             func([]byte) []byte
	staple          []attest.Endorsement
}

// challenge is report data of every forged token.
var challenge = attest.ReportData{9, 8, 7, 63: 1}

func hash(n byte) []byte { return slices.Repeat([]byte{n}, 32) }

var (
	implementation = hash(0x11)
	instance       = append([]byte{1}, hash(0x22)...)
)

type forged struct {
	evidence *attest.Evidence
	spki     []byte
	keys     *cca.Keys
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := strictcbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func spki(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (f forge) make(t testing.TB) forged {
	t.Helper()
	out := forged{spki: spki(t, &keys().cpak.PublicKey)}
	var err error
	if out.keys, err = cca.NewKeys(cca.Key{SPKI: out.spki}); err != nil {
		t.Fatal(err)
	}
	out.evidence = &attest.Evidence{Format: cca.Format, Raw: f.token(t), Endorsements: f.staple}
	return out
}

func (f forge) token(t testing.TB) []byte {
	t.Helper()
	or := func(key, right *ecdsa.PrivateKey) *ecdsa.PrivateKey {
		if key != nil {
			return key
		}
		return right
	}
	rak := or(f.rak, keys().rak)
	public := f.rakPublic
	if public == nil {
		var err error
		public, err = cose.MarshalKey(&keys().rak.PublicKey)
		if f.generation == legacy {
			public, err = keys().rak.PublicKey.Bytes()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	realm := map[any]any{
		10: challenge[:], 44235: slices.Repeat([]byte{3}, 64), 44236: "sha-256", 44237: public, 44240: "sha-256",
		44238: hash(0x44), 44239: [][]byte{hash(1), hash(2), hash(3), hash(4)},
	}
	sum := sha256.Sum256(public)
	platform := map[any]any{
		10: sum[:], 256: instance, 2396: implementation, 2401: []byte{0xcf}, 2395: 0x3003, 2402: "sha-256", 2400: "https://verifier.invalid/",
		2399: []any{map[any]any{1: "BL", 2: hash(5), 4: "1.2", 5: hash(6), 6: "sha-256"}, map[any]any{2: hash(7), 5: hash(8)}},
	}
	if f.challenge != nil {
		platform[10] = f.challenge
	}
	switch f.generation {
	case legacy:
		platform[265] = "http://arm.com/CCA-SSD/1.0.0"
	case v2023:
		platform[265], realm[265] = "tag:arm.com,2023:cca_platform#1.0.0", "tag:arm.com,2023:realm#1.0.0"
	case v2024:
		platform[265], realm[265], platform[2394] = "tag:arm.com,2024:cca_platform#2.0.0", "tag:arm.com,2024:realm#2.0.0", 1
	}
	for _, h := range []struct {
		claims map[any]any
		hook   func(map[any]any)
	}{{platform, f.platform}, {realm, f.realm}} {
		if h.hook != nil {
			h.hook(h.claims)
		}
	}
	sign := func(key *ecdsa.PrivateKey, payload []byte) []byte {
		message, err := cose.Sign(key, payload)
		if err != nil {
			t.Fatal(err)
		}
		message = cose.Tag(message)
		if f.part != nil {
			message = f.part(message)
		}
		return message
	}
	realmPayload := marshal(t, realm)
	if f.realmPayload != nil {
		realmPayload = f.realmPayload
	}
	collection := map[any]any{44234: sign(or(f.cpak, keys().cpak), marshal(t, platform)), 44241: sign(rak, realmPayload)}
	tag := []byte{0xd9, 0x01, 0x8f}
	if f.generation == v2024 {
		tag = []byte{0xd9, 0x03, 0x8b}
		for label, token := range collection {
			collection[label] = []any{263, token}
		}
	}
	if f.collection != nil {
		f.collection(collection)
	}
	raw := append(tag, marshal(t, collection)...)
	if f.raw != nil {
		raw = f.raw(raw)
	}
	return raw
}

func platform(label, value any) forge {
	return forge{platform: func(m map[any]any) { m[label] = value }}
}

func realm(label, value any) forge { return forge{realm: func(m map[any]any) { m[label] = value }} }

func withoutPlatform(label any) forge {
	return forge{platform: func(m map[any]any) { delete(m, label) }}
}

func withoutRealm(label any) forge { return forge{realm: func(m map[any]any) { delete(m, label) }} }

func (f forge) of(g generation) forge { f.generation = g; return f }

func (f forged) verify(t testing.TB) (*attest.Claims, error) {
	t.Helper()
	return cca.NewVerifier(f.keys).Verify(t.Context(), f.evidence, nil, epoch)
}

// wants checks that err is a complete *attest.Error with this code.
func wants(err error, code attest.Code) error {
	if attest.CodeOf(err) != code {
		return fmt.Errorf("got %q (%w), want %q (%s)", attest.CodeOf(err), err, code, code.Title())
	}
	if e, ok := err.(*attest.Error); code != "" && (!ok || e.Check == "") {
		return fmt.Errorf("%#v names no check", err)
	}
	return nil
}
