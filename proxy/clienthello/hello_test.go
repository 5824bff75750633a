package clienthello_test

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/proxy/clienthello"
)

// vec is b with its length in front, in n bytes.
func vec(n int, b string) string {
	length := make([]byte, n)
	for i := range n {
		length[i] = byte(len(b) >> (8 * (n - 1 - i)))
	}
	return string(length) + b
}

func ext(kind int, value string) string {
	return string([]byte{byte(kind >> 8), byte(kind)}) + vec(2, value)
}

func sni(name string) string { return ext(0, vec(2, "\x00"+vec(2, name))) }

func alpn(names ...string) string {
	all := ""
	for _, n := range names {
		all += vec(1, n)
	}
	return ext(16, vec(2, all))
}

// head is what comes before the extensions.
var head = "\x03\x03" + strings.Repeat("r", 32) + vec(1, "") + vec(2, "\x13\x01") + vec(1, "\x00")

func message(body string) string { return "\x01" + vec(3, body) }

func hello(exts ...string) string { return message(head + vec(2, strings.Join(exts, ""))) }

func record(payload string) string { return "\x16\x03\x01" + vec(2, payload) }

// split puts a message into records of at most n bytes.
func split(message string, n int) string {
	out := ""
	for len(message) > 0 {
		k := min(n, len(message))
		out += record(message[:k])
		message = message[k:]
	}
	return out
}

func TestParse(t *testing.T) {
	label := strings.Repeat("a", 63)
	long := label + "." + label + "." + label + "." + label[:61]
	for name, tt := range map[string]struct {
		message string
		want    clienthello.Hello
	}{
		"name":                       {hello(sni("a.example")), clienthello.Hello{ServerName: "a.example"}},
		"upper case":                 {hello(sni("A.eXample")), clienthello.Hello{ServerName: "a.example"}},
		"name and protocols":         {hello(ext(0x0a0a, ""), alpn("h2", "http/1.1"), sni("x--y_z.example")), clienthello.Hello{ServerName: "x--y_z.example", Protocols: []string{"h2", "http/1.1"}}},
		"protocols alone":            {hello(alpn("\x00\xff")), clienthello.Hello{Protocols: []string{"\x00\xff"}}},
		"one label":                  {hello(sni("localhost")), clienthello.Hello{ServerName: "localhost"}},
		"longest name":               {hello(sni(long)), clienthello.Hello{ServerName: long}},
		"label of digits":            {hello(sni("1.2.3.example")), clienthello.Hello{ServerName: "1.2.3.example"}},
		"no extensions":              {message(head), clienthello.Hello{}},
		"empty extensions":           {hello(), clienthello.Hello{}},
		"others":                     {hello(ext(51, strings.Repeat("k", 1300)), ext(0xfe0d, "ech"), ext(0xffff, "")), clienthello.Hello{}},
		"session and many suites":    {message("\x03\x03" + strings.Repeat("r", 32) + vec(1, strings.Repeat("s", 32)) + vec(2, strings.Repeat("\x13\x01", 300)) + vec(1, "\x01\x00") + vec(2, sni("a"))), clienthello.Hello{ServerName: "a"}},
		"as long as allowed":         {padded(clienthello.MaxHandshake), clienthello.Hello{ServerName: "a"}},
		"as many protocols as it is": {hello(alpn(strings.Split(strings.Repeat("p", 256), "")...)), clienthello.Hello{Protocols: strings.Split(strings.Repeat("p", 256), "")}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, n := range []int{1 << 14, 1000, 60, 17} {
				raw := split(tt.message, n)
				if len(raw) > clienthello.MaxSize {
					continue
				}
				whole(t, raw, tt.want)
			}
			if len(tt.message) < 1000 {
				whole(t, split(tt.message, 1), tt.want)
			}
		})
	}
}

// padded is a message whose body has size bytes.
func padded(size int) string {
	return hello(sni("a"), ext(21, strings.Repeat("\x00", size-len(hello(sni("a"), ext(21, "")))+4)))
}

// whole checks that raw says want, whatever follows, and no less than all of it says anything.
func whole(t *testing.T, raw string, want clienthello.Hello) {
	t.Helper()
	for _, tail := range []string{"", "\x14\x03\x03\x00\x01\x01", "\x17", "anything"} {
		if got, err := clienthello.Parse([]byte(raw + tail)); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("with %q behind it: got %+v, %v, want %+v", tail, got, err, want)
		}
	}
	step := 1 + len(raw)/3000
	for i := 0; i < len(raw); i += step {
		if got, err := clienthello.Parse([]byte(raw[:i])); err != clienthello.ErrMore || !reflect.DeepEqual(got, clienthello.Hello{}) {
			t.Fatalf("%d of %d bytes: %+v, %v", i, len(raw), got, err)
		}
	}
	if _, err := clienthello.Parse([]byte(raw[:len(raw)-1])); err != clienthello.ErrMore {
		t.Fatalf("without the last byte: %v", err)
	}
	for _, r := range []io.Reader{strings.NewReader(raw), iotest.DataErrReader(strings.NewReader(raw)), iotest.HalfReader(strings.NewReader(raw)), iotest.OneByteReader(strings.NewReader(raw))} {
		got, p, err := clienthello.Read(r)
		if err != nil || string(p) != raw || !reflect.DeepEqual(got, want) {
			t.Fatalf("read %d of %d bytes, %+v, %v", len(p), len(raw), got, err)
		}
	}
}

func TestRefused(t *testing.T) {
	random := strings.Repeat("r", 32)
	for name, raw := range map[string]string{
		"HTTP":                        "G",
		"PROXY":                       "PROXY TCP4",
		"SSL 2":                       "\x80\x2e\x01\x03\x01",
		"alert first":                 "\x15",
		"application data first":      "\x17\x03\x03",
		"SSL 2 in a record":           "\x16\x02",
		"version 4":                   "\x16\x04",
		"empty record":                "\x16\x03\x01\x00\x00",
		"empty record inside":         record(hello(sni("a"))[:10]) + "\x16\x03\x01\x00\x00",
		"record too long":             "\x16\x03\x01\x40\x01",
		"another message":             "\x16\x03\x01\x00\x05\x02",
		"another message, later":      record("\x01\x00") + "\x17",
		"an alert inside":             record(hello(sni("a"))[:10]) + "\x15",
		"message too long":            "\x16\x03\x01\x40\x00\x01\x00\x40\x01",
		"message far too long":        "\x16\x03\x01\x40\x00\x01\xff\x00\x00",
		"message too long, split":     record("\x01") + record("\x00") + record("\x40") + record("\x01"),
		"records too small":           split(padded(clienthello.MaxHandshake), 15),
		"last record too long":        split(padded(clienthello.MaxHandshake)[:900], 1) + split(padded(clienthello.MaxHandshake)[900:], 1<<14),
		"another message behind it":   record(hello(sni("a")) + "\x0b"),
		"behind it in its record":     record(hello(sni("a"))[:10]) + record(hello(sni("a"))[10:]+"\x0b\x00\x00\x00"),
		"nothing in it":               record(message("")),
		"version alone":               record(message("\x03\x03")),
		"random cut short":            record(message("\x03\x03" + random[1:])),
		"no session":                  record(message("\x03\x03" + random)),
		"long session":                record(message("\x03\x03" + random + vec(1, strings.Repeat("s", 33)) + vec(2, "\x13\x01") + vec(1, "\x00"))),
		"session overruns":            record(message("\x03\x03" + random + "\x20")),
		"no suites":                   record(message("\x03\x03" + random + vec(1, "") + vec(2, "") + vec(1, "\x00"))),
		"half a suite":                record(message("\x03\x03" + random + vec(1, "") + vec(2, "\x13\x01\x13") + vec(1, "\x00"))),
		"suites overrun":              record(message("\x03\x03" + random + vec(1, "") + "\x00\x04\x13\x01")),
		"no compression":              record(message("\x03\x03" + random + vec(1, "") + vec(2, "\x13\x01") + vec(1, ""))),
		"compression overruns":        record(message("\x03\x03" + random + vec(1, "") + vec(2, "\x13\x01") + "\x01")),
		"half a length of extensions": record(message(head + "\x00")),
		"extensions overrun":          record(message(head + "\x00\x05" + ext(1, ""))),
		"bytes behind extensions":     record(message(head + vec(2, sni("a")) + "x")),
		"half an extension":           record(hello("\x00")),
		"extension without length":    record(hello("\x00\x05")),
		"extension overruns":          record(hello("\x00\x05\x00\x02x")),
		"two names":                   record(hello(sni("a"), sni("a"))),
		"two protocol lists":          record(hello(alpn("a"), alpn("a"))),
		"two of another kind":         record(hello(ext(51, "a"), sni("a"), ext(51, "b"))),
		"two of the last kind":        record(hello(ext(0xffff, ""), ext(0xffff, ""))),
		"name: nothing":               record(hello(ext(0, ""))),
		"name: empty list":            record(hello(ext(0, vec(2, "")))),
		"name: empty":                 record(hello(sni(""))),
		"name: of another kind":       record(hello(ext(0, vec(2, "\x01"+vec(2, "a"))))),
		"name: two in the list":       record(hello(ext(0, vec(2, "\x00"+vec(2, "a")+"\x00"+vec(2, "b"))))),
		"name: two kinds":             record(hello(ext(0, vec(2, "\x00"+vec(2, "a")+"\x01"+vec(2, "b"))))),
		"name: bytes behind":          record(hello(ext(0, vec(2, "\x00"+vec(2, "a"))+"x"))),
		"name: overruns":              record(hello(ext(0, vec(2, "\x00\x00\x02a")))),
		"name: list overruns":         record(hello(ext(0, "\x00\x05\x00\x00\x01a"))),
		"name: dot at the end":        record(hello(sni("a.example."))),
		"name: dot":                   record(hello(sni("."))),
		"name: dot in front":          record(hello(sni(".a"))),
		"name: two dots":              record(hello(sni("a..b"))),
		"name: IPv4":                  record(hello(sni("192.0.2.1"))),
		"name: IPv4 in short":         record(hello(sni("127.1"))),
		"name: a number":              record(hello(sni("2130706433"))),
		"name: IPv6":                  record(hello(sni("2001:db8::1"))),
		"name: IPv6 in brackets":      record(hello(sni("[::1]"))),
		"name: with a port":           record(hello(sni("a:443"))),
		"name: space":                 record(hello(sni("a b"))),
		"name: line end":              record(hello(sni("a\nb"))),
		"name: zero":                  record(hello(sni("a\x00.example"))),
		"name: wildcard":              record(hello(sni("*.example"))),
		"name: not ASCII":             record(hello(sni("ä.example"))),
		"name: hyphen in front":       record(hello(sni("-a"))),
		"name: hyphen at the end":     record(hello(sni("a-.example"))),
		"name: long label":            record(hello(sni(strings.Repeat("a", 64)))),
		"name: long":                  record(hello(sni(strings.Repeat("a.", 126) + "aa"))),
		"protocols: nothing":          record(hello(ext(16, ""))),
		"protocols: empty list":       record(hello(ext(16, vec(2, "")))),
		"protocols: empty one":        record(hello(alpn("a", ""))),
		"protocols: bytes behind":     record(hello(ext(16, vec(2, vec(1, "a"))+"x"))),
		"protocols: overrun":          record(hello(ext(16, vec(2, "\x02a")))),
		"protocols: too many":         record(hello(alpn(strings.Split(strings.Repeat("p", 257), "")...))),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := clienthello.Parse([]byte(raw))
			var refused clienthello.Error
			if !errors.As(err, &refused) || !reflect.DeepEqual(got, clienthello.Hello{}) {
				t.Errorf("got %+v, %v", got, err)
			}
			_, p, err := clienthello.Read(io.MultiReader(strings.NewReader(raw), strings.NewReader(strings.Repeat("x", 30000))))
			if !errors.As(err, &refused) || len(p) > clienthello.MaxSize {
				t.Errorf("read: %v, %d bytes", err, len(p))
			}
			_, p, err = clienthello.Read(iotest.OneByteReader(strings.NewReader(raw)))
			if !errors.As(err, &refused) || !strings.HasPrefix(raw, string(p)) {
				t.Errorf("read byte by byte: %v, %d bytes", err, len(p))
			}
		})
	}
}

func TestReadEnds(t *testing.T) {
	raw := record(hello(sni("a.example")))
	if _, p, err := clienthello.Read(strings.NewReader("")); err != io.EOF || len(p) > 0 {
		t.Errorf("nothing: %v", err)
	}
	for _, n := range []int{1, 5, 6, len(raw) - 1} {
		if _, p, err := clienthello.Read(strings.NewReader(raw[:n])); err != io.ErrUnexpectedEOF || string(p) != raw[:n] {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	odd := errors.New("odd")
	if _, p, err := clienthello.Read(io.MultiReader(strings.NewReader(raw[:7]), iotest.ErrReader(odd))); err != odd || string(p) != raw[:7] {
		t.Errorf("broken: %v", err)
	}
	if _, _, err := clienthello.Read(stuck{}); err != io.ErrNoProgress {
		t.Errorf("a reader that gives nothing: %v", err)
	}
	// What came with the hello is not lost.
	if _, p, err := clienthello.Read(strings.NewReader(raw + "early data")); err != nil || string(p) != raw+"early data" {
		t.Errorf("got %q, %v", p, err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// Nothing is allocated before a hello is complete, and little then.
func TestAllocations(t *testing.T) {
	raw := []byte(record(hello(sni("a.example"), ext(51, strings.Repeat("k", 1300)))))
	if n := testing.AllocsPerRun(100, func() { _, _ = clienthello.Parse(raw[:len(raw)-1]) }); n != 0 {
		t.Errorf("%v allocations for a part", n)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = clienthello.Parse(raw) }); n > 1 {
		t.Errorf("%v allocations for the whole", n)
	}
	if n := testing.AllocsPerRun(10, func() { _, _, _ = clienthello.Read(iotest.OneByteReader(bytes.NewReader(raw))) }); n > 10 {
		t.Errorf("%v allocations to read it byte by byte", n)
	}
}

// The records that a hello is split over change nothing.
func TestSplitProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z0-9_]{1,20}(\.[A-Za-z]{1,10}){0,3}x`).Draw(t, "name")
		protos := rapid.SliceOfN(rapid.StringN(1, 20, 60), 1, 5).Draw(t, "protocols")
		exts := []string{sni(name), alpn(protos...), ext(51, strings.Repeat("k", rapid.IntRange(0, 4000).Draw(t, "key")))}
		exts = rapid.Permutation(exts).Draw(t, "order")
		msg := hello(exts...)
		raw := ""
		for rest := msg; len(rest) > 0; {
			n := rapid.IntRange(1, min(len(rest), 1500)).Draw(t, "record")
			raw += record(rest[:n])
			rest = rest[n:]
		}
		if len(raw) > clienthello.MaxSize {
			t.Skip("small records")
		}
		want := clienthello.Hello{ServerName: strings.ToLower(name), Protocols: protos}
		if got, err := clienthello.Parse([]byte(raw)); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
		cut := rapid.IntRange(0, len(raw)-1).Draw(t, "cut")
		if _, err := clienthello.Parse([]byte(raw[:cut])); err != clienthello.ErrMore {
			t.Fatalf("%d of %d bytes: %v", cut, len(raw), err)
		}
	})
}

func TestHostName(t *testing.T) {
	for s, want := range map[string]string{"A.Example": "a.example", "xn--bcher-kva.example": "xn--bcher-kva.example", "_x.a": "_x.a", "1a": "1a"} {
		if got, ok := clienthello.HostName(s); !ok || got != want {
			t.Errorf("%q: got %q, %v", s, got, ok)
		}
	}
	for _, s := range []string{"", ".", "a.", "1", "*"} {
		if got, ok := clienthello.HostName(s); ok || got != "" {
			t.Errorf("%q: got %q", s, got)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	raw := []byte(record(hello(sni("a.example"), alpn("h2", "http/1.1"), ext(51, strings.Repeat("k", 1300)))))
	in := bytes.Clone(raw)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := clienthello.Parse(in); err != nil {
			b.Fatal(err)
		}
	}
}
