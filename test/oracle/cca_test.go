package oracle

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"testing"

	"github.com/veraison/ccatoken"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cca"
	"github.com/jurat-tls/jurat/attest/cose"
	"github.com/jurat-tls/jurat/attest/strictcbor"
	"github.com/jurat-tls/jurat/test/vectors"
)

const veraison = "ccatoken"

// token is a CCA token, and the platform key it is judged under.
type token struct {
	raw []byte
	key []byte // SubjectPublicKeyInfo
}

func (k token) ours(t *testing.T) error {
	t.Helper()
	keys, err := cca.NewKeys(cca.Key{SPKI: k.key})
	if err != nil {
		return err
	}
	a := attest.NewAppraiser(attest.NoEndorser{}, cca.NewVerifier(keys))
	return a.Appraise(t.Context(), &attest.Evidence{Format: cca.Format, Raw: k.raw}, attest.UnsafeExpectAnything(), anything{}, now).Err()
}

func (k token) theirs() error {
	return contained(func() error {
		key, err := x509.ParsePKIXPublicKey(k.key)
		if err != nil {
			return err
		}
		evidence, err := ccatoken.DecodeAndValidateEvidenceFromCBOR(k.raw)
		if err != nil {
			return err
		}
		return evidence.Verify(key)
	})
}

func (k token) compare(t *testing.T, class, what string) {
	t.Helper()
	agree(t, veraison, class, what, k.ours(t), k.theirs())
}

// ccaForge makes a token of 2023's profiles under keys of its own. The hooks change one thing before it is signed.
type ccaForge struct {
	platform, realm func(map[any]any)
	cpak, rak       *ecdsa.PrivateKey // that sign; nil: the right ones
	collection      func(map[any]any)
	legacy          bool // the realm's key as a bare point, and no realm profile
	newer           bool // profiles of 2024 in records
}

func encoded(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := strictcbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (f ccaForge) make(t *testing.T) token {
	t.Helper()
	cpak, rak := p384(), p384()
	key, err := x509.MarshalPKIXPublicKey(&cpak.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	public, err := cose.MarshalKey(&rak.PublicKey)
	if f.legacy {
		public, err = rak.PublicKey.Bytes()
	}
	if err != nil {
		t.Fatal(err)
	}
	hash := func(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }
	sum := sha256.Sum256(public)
	realm := map[any]any{
		10: make([]byte, 64), 44235: make([]byte, 64), 44236: "sha-256", 44237: public, 44238: hash(4), 44240: "sha-256",
		44239: [][]byte{hash(1), hash(2), hash(3), hash(4)},
	}
	platform := map[any]any{
		10: sum[:], 256: append([]byte{1}, hash(2)...), 2396: hash(1), 2401: []byte{7}, 2395: 0x3003, 2402: "sha-256", 2400: "https://verifier.invalid/",
		2399: []any{map[any]any{1: "BL", 2: hash(5), 4: "1.2", 5: hash(6), 6: "sha-256"}},
	}
	switch {
	case f.legacy:
		platform[265] = "http://arm.com/CCA-SSD/1.0.0"
	case f.newer:
		platform[265], realm[265], platform[2394] = "tag:arm.com,2024:cca_platform#2.0.0", "tag:arm.com,2024:realm#2.0.0", 1
	default:
		platform[265], realm[265] = "tag:arm.com,2023:cca_platform#1.0.0", "tag:arm.com,2023:realm#1.0.0"
	}
	if f.platform != nil {
		f.platform(platform)
	}
	if f.realm != nil {
		f.realm(realm)
	}
	sign := func(key, other *ecdsa.PrivateKey, claims map[any]any) []byte {
		if other != nil {
			key = other
		}
		message, err := cose.Sign(key, encoded(t, claims))
		if err != nil {
			t.Fatal(err)
		}
		return cose.Tag(message)
	}
	collection := map[any]any{44234: sign(cpak, f.cpak, platform), 44241: sign(rak, f.rak, realm)}
	tag := []byte{0xd9, 0x01, 0x8f} // 399
	if f.newer {
		tag = []byte{0xd9, 0x03, 0x8b} // 907
		for label, message := range collection {
			collection[label] = []any{263, message}
		}
	}
	if f.collection != nil {
		f.collection(collection)
	}
	return token{append(tag, encoded(t, collection)...), key}
}

func TestCCA(t *testing.T) {
	key := vectors.Read(t, "cca/platform.pub")
	if block, _ := pem.Decode(key); block != nil {
		key = block.Bytes
	}
	recorded := token{vectors.Read(t, "cca/token.cbor"), key}
	subjects := map[string]token{"recorded": recorded, "2023": ccaForge{}.make(t), "legacy": ccaForge{legacy: true}.make(t)}
	for name, k := range sorted(subjects) {
		if err := k.ours(t); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		k.compare(t, name+"/good", "")
		for at := 0; at < len(k.raw); at += 5 {
			k.with(func(k *token) { k.raw[at] ^= 1 << (at % 8) }).compare(t, name+"/flip", fmt.Sprintf("byte %d", at))
		}
		for n := 0; n < len(k.raw); n += 97 {
			k.with(func(k *token) { k.raw = k.raw[:n] }).compare(t, name+"/cut", fmt.Sprintf("%d bytes", n))
		}
		k.with(func(k *token) { k.raw = append(k.raw, 0) }).compare(t, name+"/trailing byte", "")
		k.with(func(k *token) { k.key = subjects["2023"].key }).compare(t, name+"/key of 2023", "")
	}
	ccaForge{newer: true}.make(t).compare(t, "2024/good", "")
	set := func(label int, value any) func(map[any]any) { return func(m map[any]any) { m[label] = value } }
	cases := map[string]ccaForge{
		"platform by another key":     {cpak: p384()},
		"realm by another key":        {rak: p384()},
		"hash of another key":         {platform: set(10, make([]byte, 32))},
		"unknown platform profile":    {platform: set(265, "tag:arm.com,2099:cca_platform#9.0.0")},
		"unknown realm profile":       {realm: set(265, "tag:arm.com,2099:realm#9.0.0")},
		"unknown lifecycle":           {platform: set(2395, 0x7003)},
		"lifecycle not secured":       {platform: set(2395, 0x1003)},
		"debug":                       {platform: set(2395, 0x5003)},
		"short implementation id":     {platform: set(2396, make([]byte, 31))},
		"short instance id":           {platform: set(256, make([]byte, 32))},
		"instance id of another type": {platform: set(256, make([]byte, 33))},
		"no components":               {platform: set(2399, []any{})},
		"short challenge":             {realm: set(10, make([]byte, 63))},
		"three registers":             {realm: set(44239, [][]byte{make([]byte, 32), make([]byte, 32), make([]byte, 32)})},
		"five registers":              {realm: set(44239, slices.Repeat([][]byte{make([]byte, 32)}, 5))},
		"short register":              {realm: set(44239, slices.Repeat([][]byte{make([]byte, 31)}, 4))},
		"short initial measurement":   {realm: set(44238, make([]byte, 31))},
		"short personalization":       {realm: set(44235, make([]byte, 63))},
		"unknown hash":                {realm: set(44236, "md5")},
		"unknown key hash":            {realm: set(44240, "md5")},
		"key that is none":            {realm: set(44237, []byte{1, 2, 3})},
		"no realm token":              {collection: func(m map[any]any) { delete(m, 44241) }},
		"no platform token":           {collection: func(m map[any]any) { delete(m, 44234) }},
		"a third token":               {collection: func(m map[any]any) { m[44242] = []byte{1} }},
		"tokens exchanged":            {collection: func(m map[any]any) { m[44234], m[44241] = m[44241], m[44234] }},
	}
	for _, label := range []int{10, 256, 265, 2396, 2401, 2395, 2402, 2399, 2400} {
		cases[fmt.Sprintf("no platform claim %d", label)] = ccaForge{platform: func(m map[any]any) { delete(m, label) }}
	}
	for _, label := range []int{10, 44235, 44236, 44237, 44238, 44239, 44240} {
		cases[fmt.Sprintf("no realm claim %d", label)] = ccaForge{realm: func(m map[any]any) { delete(m, label) }}
	}
	cases["unknown platform claim"] = ccaForge{platform: set(77777, 1)}
	cases["unknown realm claim"] = ccaForge{realm: set(77777, 1)}
	for name, f := range sorted(cases) {
		f.make(t).compare(t, "refused/"+name, "")
	}
	met(t, veraison, "")
}

func (k token) with(change func(*token)) token {
	k.raw = slices.Clone(k.raw)
	change(&k)
	return k
}
