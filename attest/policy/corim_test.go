package policy_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

func cborOf(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := strictcbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// corim writes a CoRIM of one CoMID with these reference triples, by hand as far as tags go.
func corim(t testing.TB, triples ...any) []byte {
	t.Helper()
	return corimOf(t, map[int64]any{1: map[int64]any{0: "payments v7"}, 4: map[int64]any{0: triples}})
}

func corimOf(t testing.TB, mid any) []byte {
	t.Helper()
	// {0: "id", 1: [506(bytes)]} under tag 501.
	out := []byte{0xd9, 0x01, 0xf5, 0xa2, 0x00, 0x62, 'i', 'd', 0x01, 0x81, 0xd9, 0x01, 0xfa}
	return append(out, cborOf(t, cborOf(t, mid))...)
}

func digests(value string) any {
	raw, _ := hex.DecodeString(value)
	return []any{[]any{int64(7), raw}}
}

func triple(measurements ...any) any {
	return []any{map[int64]any{0: map[int64]any{1: "ACME", 2: "guest"}}, measurements}
}

func TestCoRIM(t *testing.T) {
	r77 := strings.Repeat("77", 48)
	text := strings.Replace(intelBase, "measurement: any", "sets: {file: refs.cbor}", 1)
	parse := func(raw []byte) (*policy.Policy, error) {
		return policy.Parse("p.yaml", []byte(text), files(map[string]string{"refs.cbor": string(raw)}))
	}
	mkey := func(name string, value map[int64]any) any { return map[int64]any{0: name, 1: value} }
	good := triple(mkey("launch", map[int64]any{2: digests(launch)}), map[int64]any{1: map[int64]any{14: map[string]any{"rtmr1": digests(r77)}}})
	p, err := parse(corim(t, triple(mkey("launch", map[int64]any{2: digests(other)})), good))
	if err != nil {
		t.Fatal(err)
	}
	if got := codes(p.Judge(intelClaims(), situation())); got != nil {
		t.Errorf("got %v", got)
	}
	if !strings.Contains(p.Explain(now), "payments v7 guest") {
		t.Error(p.Explain(now))
	}
	c := intelClaims()
	c.Measured["rtmr1"] = bytes.Repeat([]byte{1}, 48)
	if got := codes(p.Judge(c, situation())); len(got) != 1 || got[0] != attest.CodeMeasurement {
		t.Errorf("another register: %v", got)
	}
	numbered, err := parse(corim(t, triple(mkey("launch", map[int64]any{2: digests(launch)}), map[int64]any{1: map[int64]any{14: map[int64]any{7: digests(r77)}}})))
	if err != nil || !strings.Contains(numbered.Explain(now), "payments v7") {
		t.Errorf("PCR by number: %v", err)
	}
	for name, raw := range map[string][]byte{
		"no triples":            corimOf(t, map[int64]any{}),
		"other triples":         corimOf(t, map[int64]any{4: map[int64]any{1: []any{}}}),
		"no pair":               corim(t, []any{map[int64]any{}}),
		"no measurement":        corim(t, triple()),
		"key is a number":       corim(t, triple(map[int64]any{0: int64(1), 1: map[int64]any{2: digests(launch)}})),
		"no key":                corim(t, triple(map[int64]any{1: map[int64]any{2: digests(launch)}})),
		"a security version":    corim(t, triple(mkey("launch", map[int64]any{1: int64(3)}))),
		"two digests":           corim(t, triple(mkey("launch", map[int64]any{2: []any{[]any{int64(7), make([]byte, 48)}, []any{int64(1), make([]byte, 32)}}}))),
		"digest without value":  corim(t, triple(mkey("launch", map[int64]any{2: []any{[]any{int64(7)}}}))),
		"digest that is text":   corim(t, triple(mkey("launch", map[int64]any{2: []any{[]any{int64(7), "x"}}}))),
		"short":                 corim(t, triple(mkey("launch", map[int64]any{2: digests("55")}))),
		"zeros":                 corim(t, triple(mkey("launch", map[int64]any{2: digests(strings.Repeat("00", 48))}))),
		"twice":                 corim(t, triple(mkey("launch", map[int64]any{2: digests(launch)}), mkey("launch", map[int64]any{2: digests(other)}))),
		"odd name":              corim(t, triple(mkey("Launch!", map[int64]any{2: digests(launch)}))),
		"raw value, not tagged": corim(t, triple(mkey("launch", map[int64]any{4: make([]byte, 48)}))),
		"no CoMID":              append([]byte{0xd9, 0x01, 0xf5, 0xa1, 0x01, 0x81, 0xd9, 0x01, 0xf9}, cborOf(t, []byte{1})...),
		"no tags":               {0xd9, 0x01, 0xf5, 0xa1, 0x01, 0x80},
		"bytes behind":          append(corim(t, good), 0),
		"truncated":             corim(t, good)[:40],
	} {
		if p, err := parse(raw); err == nil || attest.CodeOf(err).Exit() != 2 || p != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A CoRIM says itself for how long its values count.
func TestCoRIMValidity(t *testing.T) {
	t.Parallel()
	text := strings.Replace(intelBase, "measurement: any", "sets: {file: refs.cbor}", 1)
	good := corim(t, triple(map[int64]any{0: "launch", 1: map[int64]any{2: digests(launch)}}))
	good[3] = 0xa3                                  // one entry more
	at := func(label byte, when time.Time) []byte { // tag 1, four bytes of seconds
		return binary.BigEndian.AppendUint32([]byte{label, 0xc1, 0x1a}, uint32(when.Unix()))
	}
	validity := func(entries ...[]byte) []byte {
		return slices.Concat(good, []byte{4, 0xa0 + byte(len(entries))}, slices.Concat(entries...))
	}
	for name, c := range map[string]struct {
		raw []byte
		ok  bool
	}{
		"until later":   {validity(at(1, now.Add(time.Hour))), true},
		"until now":     {validity(at(1, now)), true},
		"until before":  {validity(at(1, now.Add(-time.Second))), false},
		"from now":      {validity(at(0, now), at(1, now)), true},
		"from later":    {validity(at(0, now.Add(time.Second)), at(1, now.Add(time.Hour))), false},
		"from, expired": {validity(at(0, now.Add(-time.Hour)), at(1, now.Add(-time.Minute))), false},
	} {
		p, err := policy.Parse("p.yaml", []byte(text), files(map[string]string{"refs.cbor": string(c.raw)}))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := codes(p.Judge(intelClaims(), situation())); c.ok != (got == nil) || !c.ok && got[0] != attest.CodeMeasurement {
			t.Errorf("%s: %v", name, got)
		}
	}
	for name, raw := range map[string][]byte{
		"no end":      validity(at(0, now)),
		"no map":      append(slices.Clone(good), 4, 0x80),
		"text":        validity([]byte{1, 0x61, 'x'}),
		"another tag": validity([]byte{1, 0xc2, 0x01}),
		"begins late": validity(at(0, now.Add(time.Hour)), at(1, now)),
		"no time":     validity([]byte{1, 0xc1, 0x1b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}),
	} {
		if _, err := policy.Parse("p.yaml", []byte(text), files(map[string]string{"refs.cbor": string(raw)})); attest.CodeOf(err).Exit() != 2 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCoRIM(f *testing.F) {
	f.Add(corim(f, triple(map[int64]any{0: "launch", 1: map[int64]any{2: digests(launch)}})))
	text := strings.Replace(intelBase, "measurement: any", "sets: {file: refs.cbor}", 1)
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := policy.Parse("p.yaml", []byte(text), files(map[string]string{"refs.cbor": string(raw)}))
		if err != nil {
			if attest.CodeOf(err).Exit() != 2 {
				t.Fatalf("error without a code of its own: %v", err)
			}
			return
		}
		c := intelClaims()
		c.Measured = nil
		if codes(p.Judge(c, situation())) == nil {
			t.Fatalf("accepts claims without a measurement: %x", raw)
		}
	})
}
