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

// corimOf writes a CoRIM of these CoMIDs.
func corimOf(t testing.TB, mids ...any) []byte {
	t.Helper()
	var tags []any
	for _, mid := range mids {
		tags = append(tags, tagged(t, 506, cborOf(t, mid)))
	}
	return corimTags(t, tags)
}

func corimTags(t testing.TB, tags any) []byte {
	t.Helper()
	return tagged(t, 501, map[int64]any{0: "id", 1: tags})
}

// encoded is an item as it is to be written.
type encoded []byte

func (e encoded) MarshalCBOR() ([]byte, error) { return e, nil }

func tagged(t testing.TB, number uint16, content any) encoded {
	t.Helper()
	return append(binary.BigEndian.AppendUint16([]byte{0xd9}, number), cborOf(t, content)...)
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
	nameless, err := parse(corimOf(t, map[int64]any{4: map[int64]any{0: []any{[]any{map[int64]any{}, []any{mkey("launch", map[int64]any{2: digests(launch)})}}}}}))
	if err != nil || !strings.Contains(nameless.Explain(now), launch+"  reference triple 1") {
		t.Errorf("without a name: %v", err)
	}
}

// What cannot be read is refused for what it is, also where everything beside it is in order: nothing is left out.
func TestCoRIMRefused(t *testing.T) {
	t.Parallel()
	type entry = map[int64]any
	digest := func(size int) any { return []any{int64(7), bytes.Repeat([]byte{0x77}, size)} }
	value := bytes.Repeat([]byte{0x77}, 48)
	list := func(all ...any) []any { return all }
	mkey := func(name any, value any) any { return entry{0: name, 1: value} }
	good := mkey("launch", entry{2: digests(launch)})
	triples := func(all any) any { return entry{4: all} }
	reference := func(all ...any) any { return triples(entry{0: all}) }
	fine := reference(triple(good))
	// A CoMID after one that is in order, a tag behind one, a measurement beside one.
	after := func(mid any) []byte { return corimOf(t, fine, mid) }
	behind := func(tag any) []byte { return corimTags(t, list(tagged(t, 506, cborOf(t, fine)), tag)) }
	measured := func(m any) []byte { return after(reference(triple(good, m))) }
	many := func(n int) []byte {
		var mids []any
		for ; n > 0; n -= 64 {
			mids = append(mids, reference(slices.Repeat(list(list(entry{}, list(good))), min(n, 64))...))
		}
		return corimOf(t, mids...)
	}
	text := strings.Replace(intelBase, "measurement: any", "sets: {file: refs.cbor}", 1)
	for name, c := range map[string]struct {
		raw  []byte
		want string // empty where it is read
	}{
		"two CoMIDs":            {after(fine), ""},
		"as many as may be":     {many(1024), ""},
		"one more":              {many(1025), "1025 reference triples"},
		"bytes behind":          {append(after(fine), 0), "1 bytes after the item"},
		"cut off":               {after(fine)[:40], "truncated"},
		"no tags":               {corimTags(t, list()), "0 reference triples"},
		"tags that are no list": {corimTags(t, "x"), "0 reference triples"},

		"a CoSWID":            {behind(tagged(t, 505, cborOf(t, fine))), "a tag of kind 505"},
		"no tag":              {behind(cborOf(t, fine)), "a tag of kind 0"},
		"a CoMID in text":     {behind(tagged(t, 506, "x")), "truncated"},
		"a CoMID cut off":     {behind(tagged(t, 506, cborOf(t, fine)[:40])), "truncated"},
		"no triples":          {corimOf(t, entry{}), "0 reference triples"},
		"endorsed values":     {after(triples(entry{0: list(triple(good)), 1: list(triple(good))})), "triples of kind 1"},
		"triples by text":     {after(triples(map[string]any{"x": list(triple(good))})), `triples of kind "x"`},
		"a triple of one":     {after(reference(list(entry{}))), "no pair"},
		"a triple of three":   {after(reference(list(entry{}, list(good), list(good)))), "no pair"},
		"a triple of nothing": {after(reference(triple())), "no register"},

		"an instance":     {after(reference(list(entry{0: entry{2: "m"}, 1: "x"}, list(good)))), "more than a class"},
		"a group":         {after(reference(list(entry{2: "x"}, list(good)))), "more than a class"},
		"a class by text": {after(reference(list(map[string]any{"x": entry{}}, list(good)))), "more than a class"},
		"a class":         {after(reference(list(entry{0: entry{2: "m"}}, list(good)))), ""},
		"authorized by":   {measured(entry{0: "rtmr1", 1: entry{2: list(digest(48))}, 2: "x"}), "more than a key and a value"},
		"by text":         {measured(map[string]any{"x": int64(1)}), "more than a key and a value"},

		"key is a number":    {measured(mkey(int64(1), entry{2: list(digest(48))})), `register ""`},
		"no key":             {measured(entry{1: entry{2: list(digest(48))}}), `register ""`},
		"odd name":           {measured(mkey("Launch!", entry{2: list(digest(48))})), `register "Launch!"`},
		"twice":              {measured(good), "launch twice"},
		"a security version": {measured(mkey("rtmr1", entry{1: int64(3)})), "a measured value of kind 1"},
		"a value by text":    {measured(mkey("rtmr1", map[string]any{"x": int64(3)})), `a measured value of kind "x"`},

		"no map":               {measured("rtmr1"), "a measurement without a value"},
		"no value":             {measured(entry{0: "rtmr1"}), "a measurement without a value"},
		"a value that is text": {measured(mkey("rtmr1", launch)), "a measurement without a value"},
		"an empty value":       {measured(mkey("rtmr1", entry{})), "a measurement without a value"},
		"registers in a list":  {measured(entry{1: entry{14: list()}}), "integrity registers of which there is none"},

		"digest":                {measured(mkey("rtmr1", entry{2: list(digest(48))})), ""},
		"no digest":             {measured(mkey("rtmr1", entry{2: list()})), "0 digests"},
		"digests in no list":    {measured(mkey("rtmr1", entry{2: "x"})), "0 digests"},
		"two digests":           {measured(mkey("rtmr1", entry{2: list(digest(48), digest(32))})), "2 digests"},
		"digest without value":  {measured(mkey("rtmr1", entry{2: list(list(int64(7)))})), "a digest that is no pair"},
		"digest that is text":   {measured(mkey("rtmr1", entry{2: list(list(int64(7), launch))})), "rtmr1: a value of 0 bytes"},
		"shortest":              {measured(mkey("rtmr1", entry{2: list(digest(20))})), ""},
		"shorter":               {measured(mkey("rtmr1", entry{2: list(digest(19))})), "rtmr1: a value of 19 bytes"},
		"longest":               {measured(mkey("rtmr1", entry{2: list(digest(64))})), ""},
		"longer":                {measured(mkey("rtmr1", entry{2: list(digest(65))})), "rtmr1: a value of 65 bytes"},
		"zeros":                 {measured(mkey("rtmr1", entry{2: digests(strings.Repeat("00", 48))})), "of zeros"},
		"register":              {measured(entry{1: entry{14: map[string]any{"rtmr1": list(digest(48))}}}), ""},
		"register without name": {measured(entry{1: entry{14: entry{-1: list(digest(48))}}}), `register ""`},
		"register, short":       {measured(entry{1: entry{14: entry{7: list(digest(19))}}}), "pcr7: a value of 19 bytes"},

		"raw value":              {measured(mkey("rtmr1", entry{4: tagged(t, 560, value)})), ""},
		"raw value, short":       {measured(mkey("rtmr1", entry{4: tagged(t, 560, value[:19])})), "rtmr1: a value of 19 bytes"},
		"raw value, not tagged":  {measured(mkey("rtmr1", entry{4: value})), "a raw value of another kind"},
		"raw value, masked":      {measured(mkey("rtmr1", entry{4: tagged(t, 563, value)})), "a raw value of another kind"},
		"raw value that is text": {measured(mkey("rtmr1", entry{4: tagged(t, 560, launch)})), "rtmr1: a value of 0 bytes"},
		"raw value, no key":      {measured(entry{1: entry{4: tagged(t, 560, value)}}), `register ""`},
	} {
		p, err := policy.Parse("p.yaml", []byte(text), files(map[string]string{"refs.cbor": string(c.raw)}))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || p != nil || attest.CodeOf(err).Exit() != 2 || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %s", name, err, c.want)
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
		"until 2106":    {validity([]byte{1, 0xc1, 0x1a, 0xff, 0xff, 0xff, 0xff}), true},
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
		"no end":       validity(at(0, now)),
		"odd start":    validity([]byte{0, 0x61, 'x'}, at(1, now)),
		"no map":       append(slices.Clone(good), 4, 0x80),
		"text":         validity([]byte{1, 0x61, 'x'}),
		"another tag":  validity([]byte{1, 0xc2, 0x01}),
		"begins late":  validity(at(0, now.Add(time.Hour)), at(1, now)),
		"text as time": validity([]byte{1, 0xc1, 0x61, 'x'}),
		"far too late": validity([]byte{1, 0xc1, 0x1b, 0, 0, 0, 1, 0, 0, 0, 0}),
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
