package eventlog

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"testing"

	"github.com/jurat-tls/jurat/attest"
)

var le = binary.LittleEndian

// made is a log in the making.
type made struct{ raw []byte }

func header(algorithms ...algorithm) *made {
	data := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2)
	data = le.AppendUint32(data, uint32(len(algorithms)))
	for _, a := range algorithms {
		data = le.AppendUint16(data, uint16(a.id))
		data = le.AppendUint16(data, uint16(a.size))
	}
	return headed(append(data, 3, 'a', 'b', 'c'))
}

func headed(data []byte) *made {
	m := &made{le.AppendUint32(le.AppendUint32(nil, 0), NoAction)}
	m.raw = append(m.raw, make([]byte, 20)...)
	m.raw = append(le.AppendUint32(m.raw, uint32(len(data))), data...)
	return m
}

func (m *made) event(index, kind uint32, data []byte, digests ...Digest) *made {
	m.raw = le.AppendUint32(le.AppendUint32(m.raw, index), kind)
	m.raw = le.AppendUint32(m.raw, uint32(len(digests)))
	for _, d := range digests {
		m.raw = append(le.AppendUint16(m.raw, uint16(d.Algorithm)), d.Value...)
	}
	m.raw = append(le.AppendUint32(m.raw, uint32(len(data))), data...)
	return m
}

func (m *made) then(b ...byte) *made { m.raw = append(m.raw, b...); return m }

var (
	sha384 = algorithm{SHA384, 48}
	sm3    = algorithm{0x12, 32}
)

func d384(fill byte) Digest { return Digest{SHA384, bytes.Repeat([]byte{fill}, 48)} }

func good() *made {
	return header(sha384).
		event(1, 0x80000008, []byte("firmware"), d384(1)).
		event(1, NoAction, []byte("note"), d384(0)).
		event(2, Separator, make([]byte, 4), d384(2)).
		event(1, Separator, make([]byte, 4), d384(3))
}

func extend(values ...byte) []byte {
	register := make([]byte, 48)
	for _, v := range values {
		sum := sha512.Sum384(append(register, d384(v).Value...))
		register = sum[:]
	}
	return register
}

func TestReplay(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]*made{
		"bare":           good(),
		"as in a CCEL":   {append([]byte{1}, good().raw[1:]...)},
		"zeros follow":   good().then(make([]byte, 1000)...),
		"a zero follows": good().then(0),
		"FF follows":     good().then(bytes.Repeat([]byte{0xff}, 70)...),
	} {
		log, err := Parse(m.raw)
		if err != nil {
			t.Fatal(name, err)
		}
		if len(log.Events) != 4 || string(log.Events[0].Data) != "firmware" || log.Events[0].Type != 0x80000008 || !slices.Equal(log.Algorithms, []Algorithm{SHA384}) {
			t.Fatalf("%s: %+v", name, log)
		}
		got := log.Replay(SHA384)
		if len(got) != 2 || !bytes.Equal(got[1], extend(1, 3)) || !bytes.Equal(got[2], extend(2)) {
			t.Errorf("%s: %x", name, got)
		}
		if len(log.Replay(SHA256)) != 0 || len(log.Replay(0x99)) != 0 {
			t.Error("a bank that is not there")
		}
	}
}

func TestReplayOfEveryBank(t *testing.T) {
	t.Parallel()
	digests := []Digest{
		{SHA1, bytes.Repeat([]byte{1}, 20)},
		{SHA256, bytes.Repeat([]byte{2}, 32)},
		d384(3),
		{SHA512, bytes.Repeat([]byte{4}, 64)},
		{0x12, bytes.Repeat([]byte{5}, 32)},
	}
	m := header(algorithm{SHA1, 20}, algorithm{SHA256, 32}, sha384, algorithm{SHA512, 64}, sm3).
		event(0, NoAction, []byte("StartupLocality\x00\x03"), digests...).
		event(0, Separator, nil, digests...).
		event(7, Separator, nil, digests...)
	log, err := Parse(m.raw)
	if err != nil {
		t.Fatal(err)
	}
	if log.Locality != 3 {
		t.Errorf("locality %d", log.Locality)
	}
	sum := func(a Algorithm, b []byte) []byte {
		switch a {
		case SHA1:
			s := sha1.Sum(b)
			return s[:]
		case SHA256:
			s := sha256.Sum256(b)
			return s[:]
		case SHA384:
			s := sha512.Sum384(b)
			return s[:]
		}
		s := sha512.Sum512(b)
		return s[:]
	}
	for _, d := range digests[:4] {
		start := make([]byte, d.Algorithm.Size())
		want7 := sum(d.Algorithm, append(bytes.Clone(start), d.Value...))
		start[len(start)-1] = 3
		want0 := sum(d.Algorithm, append(start, d.Value...))
		if got := log.Replay(d.Algorithm); !bytes.Equal(got[0], want0) || !bytes.Equal(got[7], want7) || len(got) != 2 {
			t.Errorf("%#x: %x, want %x %x", d.Algorithm, got, want0, want7)
		}
	}
	if got := log.Replay(0x12); len(got) != 0 {
		t.Errorf("replayed a hash that is not known: %x", got)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	data := func(change func([]byte) []byte) *made {
		b := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0c, 0, 48, 0, 0)
		return headed(change(b))
	}
	set := func(at int, v byte) func([]byte) []byte { return func(b []byte) []byte { b[at] = v; return b } }
	one, many := algorithm{0x40, 1}, header(algorithm{0x40, 1})
	for range maxEvents + 1 {
		many.event(1, Separator, nil, Digest{one.id, []byte{1}})
	}
	var nine []algorithm
	for i := range 9 {
		nine = append(nine, algorithm{Algorithm(0x40 + i), 8})
	}
	for name, c := range map[string]struct {
		raw  []byte
		code attest.Code
	}{
		"empty":                          {nil, attest.CodeMalformed},
		"too large":                      {make([]byte, MaxSize+1), attest.CodeOversized},
		"header of another type":         {append([]byte{0, 0, 0, 0, 4}, good().raw[5:]...), attest.CodeMalformed},
		"header with a digest":           {func() []byte { b := good().raw; b[27] = 1; return b }(), attest.CodeMalformed},
		"SHA-1 log":                      {headed([]byte("x")).raw, attest.CodeMalformed},
		"Spec ID Event02":                {data(set(14, '2')).raw, attest.CodeMalformed},
		"version 3.0":                    {data(set(21, 3)).raw, attest.CodeMalformed},
		"version 2.1":                    {data(set(20, 1)).raw, attest.CodeMalformed},
		"no algorithm":                   {data(set(24, 0)).raw, attest.CodeMalformed},
		"no algorithm, whole":            {header().raw, attest.CodeMalformed},
		"an algorithm too many":          {data(set(24, 2)).raw, attest.CodeMalformed},
		"nine algorithms":                {header(nine...).raw, attest.CodeMalformed},
		"SHA-384 with 32 bytes":          {header(algorithm{SHA384, 32}).raw, attest.CodeMalformed},
		"digests of 0 bytes":             {header(algorithm{0x12, 0}).raw, attest.CodeMalformed},
		"digests of 65 bytes":            {header(algorithm{0x12, 65}).raw, attest.CodeMalformed},
		"an algorithm twice":             {header(sha384, sha384).raw, attest.CodeDuplicateField},
		"bytes after vendor information": {data(func(b []byte) []byte { return append(b, 0) }).raw, attest.CodeMalformed},
		"vendor information cut off":     {data(func(b []byte) []byte { b[len(b)-1] = 9; return b }).raw, attest.CodeMalformed},
		"register 32":                    {header(sha384).event(32, Separator, nil, d384(1)).raw, attest.CodeMalformed},
		"no digest":                      {header(sha384).event(1, Separator, nil).raw, attest.CodeMalformed},
		"a digest too many":              {header(sha384).event(1, Separator, nil, d384(1), Digest{SHA1, make([]byte, 20)}).raw, attest.CodeMalformed},
		"2^31 digests":                   {header(sha384).then(1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0x80).raw, attest.CodeMalformed},
		"another digest":                 {header(sha384).event(1, Separator, nil, Digest{SHA1, make([]byte, 20)}).raw, attest.CodeMalformed},
		"a digest twice":                 {header(sha384, sm3).event(1, Separator, nil, d384(1), d384(1)).raw, attest.CodeDuplicateField},
		"event of 4 GiB":                 {header(sha384).event(1, Separator, nil, d384(1)).patch(-4, 0xff, 0xff, 0xff, 0xff), attest.CodeMalformed},
		"too many events":                {many.raw, attest.CodeMalformed},
		"filling of 01":                  {good().then(bytes.Repeat([]byte{1}, 20)...).raw, attest.CodeMalformed},
		"filling with an end":            {good().then(append(make([]byte, 20), 1)...).raw, attest.CodeMalformed},
		"startup from locality 5":        {header(sha384).event(0, NoAction, []byte("StartupLocality\x00\x05"), d384(0)).raw, attest.CodeMalformed},
		"startup from nowhere":           {header(sha384).event(0, NoAction, []byte("StartupLocality\x00"), d384(0)).raw, attest.CodeMalformed},
	} {
		log, err := Parse(c.raw)
		if attest.CodeOf(err) != c.code || log != nil {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
}

func TestLocalities(t *testing.T) {
	t.Parallel()
	for _, locality := range []byte{0, 3, 4} {
		m := header(sha384).event(0, NoAction, append([]byte("StartupLocality\x00"), locality), d384(0)).event(0, NoAction, []byte{9}, d384(0))
		if log, err := Parse(m.raw); err != nil || log.Locality != locality {
			t.Errorf("%+v, %v", log, err)
		}
	}
}

// A StartupLocality in another register or of another type is an event like any other.
func TestLocalityElsewhere(t *testing.T) {
	t.Parallel()
	m := header(sha384).event(1, NoAction, []byte("StartupLocality\x00\x03"), d384(0)).event(0, Separator, []byte("StartupLocality\x00\x03"), d384(0))
	log, err := Parse(m.raw)
	if err != nil || log.Locality != 0 {
		t.Errorf("%+v, %v", log, err)
	}
}

func (m *made) patch(at int, b ...byte) []byte {
	copy(m.raw[len(m.raw)+at:], b)
	return m.raw
}

// Cut anywhere but between two events, a log is refused; cut between two, it leads elsewhere.
func TestTruncated(t *testing.T) {
	t.Parallel()
	whole := good().raw
	want := fmt.Sprint(parsed(t, whole).Replay(SHA384))
	boundaries := 0
	for n := range whole {
		log, err := Parse(whole[:n])
		switch {
		case err == nil && fmt.Sprint(log.Replay(SHA384)) != want:
			boundaries++
		case attest.CodeOf(err) != attest.CodeMalformed:
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if boundaries != 4 {
		t.Errorf("accepted at %d lengths, want the 4 before an event", boundaries)
	}
}

func parsed(t *testing.T, raw []byte) *Log {
	t.Helper()
	log, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// The log keeps nothing of its input.
func TestParseCopies(t *testing.T) {
	t.Parallel()
	raw := good().raw
	log := parsed(t, raw)
	before := hex.EncodeToString(log.Events[0].Digests[0].Value)
	clear(raw)
	if hex.EncodeToString(log.Events[0].Digests[0].Value) != before {
		t.Error("changed with its input")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(good().raw)
	f.Add(good().then(make([]byte, 40)...).raw)
	f.Add(header(sha384, sm3).event(0, NoAction, []byte("StartupLocality\x00\x03"), d384(0), Digest{0x12, make([]byte, 32)}).raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		log, err := Parse(raw)
		if err != nil {
			if attest.CodeOf(err) == attest.CodeInternal {
				t.Fatalf("error without a code: %v", err)
			}
			return
		}
		total := 0
		for _, e := range log.Events {
			if len(e.Digests) != len(log.Algorithms) || e.Index > maxIndex {
				t.Fatalf("%+v", e)
			}
			total += len(e.Data)
		}
		if total > len(raw) {
			t.Fatal("more events than bytes")
		}
		for _, a := range log.Algorithms {
			for _, v := range log.Replay(a) {
				if len(v) != a.Size() {
					t.Fatalf("register %x", v)
				}
			}
		}
	})
}
