package cose_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"slices"
	"testing"

	"github.com/jurat-tls/jurat/attest"
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

func encode(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := strictcbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func sign(t testing.TB, key *ecdsa.PrivateKey, payload []byte) []byte {
	t.Helper()
	raw, err := cose.Sign(key, payload)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func verify(raw []byte, key *ecdsa.PublicKey) error {
	m, err := cose.Parse(raw)
	if err != nil {
		return err
	}
	return m.Verify(key)
}

func TestVerify(t *testing.T) {
	t.Parallel()
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key := newKey(t, curve)
		for _, size := range []int{0, 23, 24, 255, 256, 1 << 16} {
			payload := bytes.Repeat([]byte{7}, size)
			raw := sign(t, key, payload)
			m, err := cose.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Verify(&key.PublicKey); err != nil || !bytes.Equal(m.Payload, payload) || m.Tagged || m.UnprotectedKeyID != nil {
				t.Errorf("%s, %d bytes: %v, %+v", curve.Params().Name, size, err, m)
			}
			if m, err = cose.Parse(cose.Tag(raw)); err != nil || !m.Tagged || m.Verify(&key.PublicKey) != nil {
				t.Errorf("%s, %d bytes, tagged: %v", curve.Params().Name, size, err)
			}
		}
		raw := sign(t, key, []byte("payload"))
		for at := range raw {
			bad := slices.Clone(raw)
			bad[at] ^= 1 << (at % 8)
			if err := verify(bad, &key.PublicKey); err == nil || attest.CodeOf(err) == attest.CodeInternal {
				t.Fatalf("%s: byte %d: %v", curve.Params().Name, at, err)
			}
		}
		for n := range raw {
			if code := attest.CodeOf(verify(raw[:n], &key.PublicKey)); code != attest.CodeMalformed {
				t.Fatalf("%s: first %d bytes: %s", curve.Params().Name, n, code)
			}
		}
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	p256, p384 := newKey(t, elliptic.P256()), newKey(t, elliptic.P384())
	good := sign(t, p384, []byte("payload"))
	v, err := strictcbor.Parse(good, strictcbor.Limits{Depth: 2, Items: 8})
	if err != nil {
		t.Fatal(err)
	}
	fields, _ := v.Array()
	protected, _ := fields[0].Bytes()
	signature, _ := fields[3].Bytes()
	none := map[int64]any{}
	message := func(protected any, unprotected any, payload any, signature any) []byte {
		return encode(t, []any{protected, unprotected, payload, signature})
	}
	header := func(pairs map[any]any) []byte { return message(encode(t, pairs), none, []byte("payload"), signature) }
	if err := verify(message(protected, none, []byte("payload"), signature), &p384.PublicKey); err != nil {
		t.Fatal("the form that the cases vary is refused:", err)
	}
	withID := message(protected, map[int64]any{4: []byte("id")}, []byte("payload"), signature)
	for _, raw := range [][]byte{withID, cose.Tag(withID)} {
		if m, err := cose.Parse(raw); err != nil || string(m.UnprotectedKeyID) != "id" || m.Verify(&p384.PublicKey) != nil {
			t.Error("an unprotected key identifier:", err)
		}
	}
	if _, err := cose.Parse(header(map[any]any{1: -35, 3: "application/eat+cwt", 4: []byte("id")})); err != nil {
		t.Error("content type and key identifier:", err)
	}
	for name, c := range map[string]struct {
		in   []byte
		key  *ecdsa.PublicKey
		want attest.Code
	}{
		"empty":                         {nil, &p384.PublicKey, attest.CodeMalformed},
		"trailing byte":                 {append(slices.Clone(good), 0), &p384.PublicKey, attest.CodeMalformed},
		"length in too many bytes":      {append([]byte{0x98, 4}, good[1:]...), &p384.PublicKey, attest.CodeMalformed},
		"other tag":                     {append([]byte{0xd1}, good...), &p384.PublicKey, attest.CodeMalformed},
		"tag twice":                     {cose.Tag(cose.Tag(good)), &p384.PublicKey, attest.CodeMalformed},
		"no array":                      {encode(t, none), &p384.PublicKey, attest.CodeMalformed},
		"three fields":                  {encode(t, []any{protected, none, []byte("payload")}), &p384.PublicKey, attest.CodeMalformed},
		"five fields":                   {encode(t, []any{protected, none, []byte("payload"), signature, 0}), &p384.PublicKey, attest.CodeMalformed},
		"protected header as a map":     {message(map[int64]int64{1: -35}, none, []byte("payload"), signature), &p384.PublicKey, attest.CodeMalformed},
		"unprotected header as bytes":   {message(protected, []byte{0xa0}, []byte("payload"), signature), &p384.PublicKey, attest.CodeMalformed},
		"detached payload":              {message(protected, none, nil, signature), &p384.PublicKey, attest.CodeMalformed},
		"signature as text":             {message(protected, none, []byte("payload"), "signature"), &p384.PublicKey, attest.CodeMalformed},
		"protected header of no CBOR":   {message([]byte{0xff}, none, []byte("payload"), signature), &p384.PublicKey, attest.CodeMalformed},
		"protected header, oversize":    {header(map[any]any{1: -35, 4: make([]byte, 300)}), &p384.PublicKey, attest.CodeMalformed},
		"algorithm twice":               {message([]byte{0xa2, 1, 0x38, 0x22, 1, 0x38, 0x22}, none, []byte("payload"), signature), &p384.PublicKey, attest.CodeDuplicateField},
		"no protected header":           {message([]byte{}, none, []byte("payload"), signature), &p384.PublicKey, attest.CodeMalformed},
		"protected header is an array":  {message([]byte{0x80}, none, []byte("payload"), signature), &p384.PublicKey, attest.CodeUnknownAlgorithm},
		"no algorithm":                  {header(map[any]any{}), &p384.PublicKey, attest.CodeUnknownAlgorithm},
		"algorithm as text":             {header(map[any]any{1: "ES384"}), &p384.PublicKey, attest.CodeUnknownAlgorithm},
		"unknown algorithm":             {header(map[any]any{1: -37}), &p384.PublicKey, attest.CodeUnknownAlgorithm},
		"algorithm none":                {header(map[any]any{1: 0}), &p384.PublicKey, attest.CodeUnknownAlgorithm},
		"HMAC under the public key":     {header(map[any]any{1: 6}), &p384.PublicKey, attest.CodeUnknownAlgorithm},
		"unprotected algorithm":         {message([]byte{}, map[int64]int64{1: -35}, []byte("payload"), signature), &p384.PublicKey, attest.CodeUnknownField},
		"algorithm in both":             {message(protected, map[int64]int64{1: -35}, []byte("payload"), signature), &p384.PublicKey, attest.CodeUnknownField},
		"unprotected key id as text":    {message(protected, map[int64]any{4: "id"}, []byte("payload"), signature), &p384.PublicKey, attest.CodeUnknownField},
		"unprotected key id, oversize":  {message(protected, map[int64]any{4: make([]byte, 65)}, []byte("payload"), signature), &p384.PublicKey, attest.CodeUnknownField},
		"unprotected parameter":         {message(protected, map[int64]any{5: []byte("iv")}, []byte("payload"), signature), &p384.PublicKey, attest.CodeUnknownField},
		"unprotected parameter twice":   {slices.Concat([]byte{0x84, 0x40, 0xa2, 4, 0x40, 4, 0x40, 0x40, 0x40}), &p384.PublicKey, attest.CodeDuplicateField},
		"unprotected text parameter":    {message(protected, map[string]any{"x": []byte{}}, []byte("payload"), signature), &p384.PublicKey, attest.CodeUnknownField},
		"critical parameters":           {header(map[any]any{1: -35, 2: []int{1}}), &p384.PublicKey, attest.CodeUnknownField},
		"unknown parameter":             {header(map[any]any{1: -35, 33: []byte{}}), &p384.PublicKey, attest.CodeUnknownField},
		"unknown text parameter":        {header(map[any]any{1: -35, "x": 0}), &p384.PublicKey, attest.CodeUnknownField},
		"key of another curve":          {good, &p256.PublicKey, attest.CodeUnknownAlgorithm},
		"no key":                        {good, nil, attest.CodeUnknownAlgorithm},
		"other key":                     {good, &newKey(t, elliptic.P384()).PublicKey, attest.CodeSignature},
		"other payload":                 {message(protected, none, []byte("Payload"), signature), &p384.PublicKey, attest.CodeSignature},
		"other protected header":        {header(map[any]any{1: -35, 4: []byte("id")}), &p384.PublicKey, attest.CodeSignature},
		"empty signature":               {message(protected, none, []byte("payload"), []byte{}), &p384.PublicKey, attest.CodeSignature},
		"signature of zeros":            {message(protected, none, []byte("payload"), make([]byte, 96)), &p384.PublicKey, attest.CodeSignature},
		"signature with a byte more":    {message(protected, none, []byte("payload"), append(slices.Clone(signature), 0)), &p384.PublicKey, attest.CodeSignature},
		"signature with zeros in front": {message(protected, none, []byte("payload"), slices.Concat([]byte{0}, signature[:48], []byte{0}, signature[48:])), &p384.PublicKey, attest.CodeSignature},
	} {
		t.Run(name, func(t *testing.T) {
			if err := verify(c.in, c.key); attest.CodeOf(err) != c.want {
				t.Fatalf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestKey(t *testing.T) {
	t.Parallel()
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		key := newKey(t, curve)
		raw, err := cose.MarshalKey(&key.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := cose.ParseKey(raw); err != nil || !got.Equal(&key.PublicKey) {
			t.Errorf("%s: %v", curve.Params().Name, err)
		}
	}
	key := newKey(t, elliptic.P384())
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	x, y := point[1:49], point[49:]
	base := func(change map[any]any) []byte {
		m := map[any]any{1: 2, -1: 2, -2: x, -3: y}
		for k, v := range change {
			if m[k] = v; v == nil {
				delete(m, k)
			}
		}
		return encode(t, m)
	}
	if _, err := cose.ParseKey(base(map[any]any{2: []byte("id"), 3: -35})); err != nil {
		t.Error("key identifier and algorithm:", err)
	}
	for name, c := range map[string]struct {
		in   []byte
		want attest.Code
	}{
		"empty":             {nil, attest.CodeMalformed},
		"no map":            {encode(t, 1), attest.CodeUnknownAlgorithm},
		"twice":             {[]byte{0xa2, 1, 2, 1, 2}, attest.CodeDuplicateField},
		"octet key pair":    {base(map[any]any{1: 1}), attest.CodeUnknownAlgorithm},
		"no type":           {base(map[any]any{1: nil}), attest.CodeUnknownAlgorithm},
		"no curve":          {base(map[any]any{-1: nil}), attest.CodeUnknownAlgorithm},
		"unknown curve":     {base(map[any]any{-1: 8}), attest.CodeUnknownAlgorithm},
		"other curve":       {base(map[any]any{-1: 1}), attest.CodeMalformed},
		"other algorithm":   {base(map[any]any{3: -7}), attest.CodeUnknownAlgorithm},
		"algorithm as text": {base(map[any]any{3: "ES384"}), attest.CodeUnknownAlgorithm},
		"no x":              {base(map[any]any{-2: nil}), attest.CodeMalformed},
		"no y":              {base(map[any]any{-3: nil}), attest.CodeMalformed},
		"y as a sign":       {base(map[any]any{-3: true}), attest.CodeMalformed},
		"short x":           {base(map[any]any{-2: x[:47]}), attest.CodeMalformed},
		"lengths that compensate each other": {
			base(map[any]any{-2: x[:47], -3: append([]byte{x[47]}, y...)}), attest.CodeMalformed,
		},
		"no point":       {base(map[any]any{-3: x}), attest.CodeMalformed},
		"private key":    {base(map[any]any{-4: x}), attest.CodeUnknownField},
		"operations":     {base(map[any]any{4: []int{2}}), attest.CodeUnknownField},
		"text parameter": {base(map[any]any{"x": 0}), attest.CodeUnknownField},
	} {
		t.Run(name, func(t *testing.T) {
			if key, err := cose.ParseKey(c.in); attest.CodeOf(err) != c.want || key != nil {
				t.Fatalf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestSignRefuses(t *testing.T) {
	t.Parallel()
	if raw, err := cose.Sign(newKey(t, elliptic.P224()), nil); err == nil || raw != nil {
		t.Error("a curve without an algorithm signs")
	}
}

func FuzzParse(f *testing.F) {
	key := newKey(f, elliptic.P384())
	f.Add(sign(f, key, []byte("payload")))
	f.Add(cose.Tag(sign(f, key, nil)))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := cose.Parse(in)
		if err == nil {
			err = m.Verify(&key.PublicKey)
		}
		if attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("error without a code: %v", err)
		}
	})
}

func FuzzParseKey(f *testing.F) {
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		raw, err := cose.MarshalKey(&newKey(f, curve).PublicKey)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := cose.ParseKey(in); attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("error without a code: %v", err)
		}
	})
}
