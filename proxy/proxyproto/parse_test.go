package proxyproto_test

import (
	"bytes"
	"errors"
	"hash/crc32"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/proxyproto"
)

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// block is a header of version 2 whose command, family and length are given.
func block(command, family byte, length int, rest string) string {
	return signature + string([]byte{command, family, byte(length >> 8), byte(length)}) + rest
}

func v2(command, family byte, rest string) string { return block(command, family, len(rest), rest) }

func tlv(t proxyproto.Type, value string) string {
	return string([]byte{byte(t), byte(len(value) >> 8), byte(len(value))}) + value
}

// sealed puts the right checksum into the last four bytes.
func sealed(header string) string {
	b := []byte(header)
	sum := crc32.Checksum(append(b[:len(b)-4:len(b)-4], 0, 0, 0, 0), crc32.MakeTable(crc32.Castagnoli))
	return header[:len(b)-4] + string([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

const (
	ports = "\x01\xbb\x00\x50"
	four  = "\xc0\x00\x02\x01\xc6\x33\x64\x02" + ports
	six   = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02" + ports
)

func path(s string) string { return s + strings.Repeat("\x00", 108-len(s)) }

func tcp(version int, source, destination string) proxyproto.Header {
	return proxyproto.Header{
		Version: version, Kind: proxyproto.TCP,
		Source: netip.MustParseAddrPort(source), Destination: netip.MustParseAddrPort(destination),
	}
}

func with(h proxyproto.Header, change func(*proxyproto.Header)) proxyproto.Header {
	change(&h)
	return h
}

var (
	four2   = tcp(2, "192.0.2.1:443", "198.51.100.2:80")
	unknown = proxyproto.Header{Version: 1, Kind: proxyproto.Unknown}
	local   = proxyproto.Header{Version: 2, Kind: proxyproto.Local}
)

func with4(tlvs ...proxyproto.TLV) proxyproto.Header {
	return with(four2, func(h *proxyproto.Header) { h.TLVs = tlvs })
}

// written are headers in the form that Append gives them.
var written = map[string]struct {
	raw  string
	want proxyproto.Header
}{
	"v1 four":         {"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", tcp(1, "192.0.2.1:56324", "198.51.100.2:443")},
	"v1 shortest":     {"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", tcp(1, "0.0.0.0:0", "0.0.0.0:0")},
	"v1 longest four": {"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", tcp(1, "255.255.255.255:65535", "255.255.255.255:65535")},
	"v1 six":          {"PROXY TCP6 2001:db8::1 :: 1 65535\r\n", tcp(1, "[2001:db8::1]:1", "[::]:65535")},
	"v1 longest six": {
		"PROXY TCP6 2001:db81:2222:3333:4444:5555:6666:7777 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
		tcp(1, "[2001:db81:2222:3333:4444:5555:6666:7777]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
	},
	"v1 mapped":    {"PROXY TCP6 0000:0000:0000:0000:0000:ffff:c000:0201 ::1 1 2\r\n", tcp(1, "[::ffff:192.0.2.1]:1", "[::1]:2")},
	"v1 short six": {"PROXY TCP6 2001:: :: 0 0\r\n", tcp(1, "[2001::]:0", "[::]:0")},
	"v1 unknown":   {"PROXY UNKNOWN\r\n", unknown},

	"v2 local":   {v2(0x20, 0, ""), local},
	"v2 unspec":  {v2(0x21, 0, ""), proxyproto.Header{Version: 2, Kind: proxyproto.Unknown}},
	"v2 four":    {v2(0x21, 0x11, four), four2},
	"v2 six":     {v2(0x21, 0x21, six), tcp(2, "[2001:db8::1]:443", "[2001:db8::2]:80")},
	"v2 udp":     {v2(0x21, 0x12, four), with(four2, func(h *proxyproto.Header) { h.Kind = proxyproto.UDP })},
	"v2 udp six": {v2(0x21, 0x22, six), with(tcp(2, "[2001:db8::1]:443", "[2001:db8::2]:80"), func(h *proxyproto.Header) { h.Kind = proxyproto.UDP })},
	"v2 unix":    {v2(0x21, 0x31, path("/run/a")+path("\x00abstract\x00x")), proxyproto.Header{Version: 2, Kind: proxyproto.Unix, SourcePath: "/run/a", DestinationPath: "\x00abstract\x00x"}},
	"v2 unix full": {
		v2(0x21, 0x32, strings.Repeat("p", 108)+path("")),
		proxyproto.Header{Version: 2, Kind: proxyproto.UnixDatagram, SourcePath: strings.Repeat("p", 108)},
	},
	"v2 tlvs": {
		v2(0x21, 0x11, four+tlv(proxyproto.TypeALPN, "h2")+tlv(proxyproto.TypeAuthority, "a.example")+tlv(0xee, "")+tlv(0xee, "x")+tlv(0xff, "f")),
		with4(proxyproto.TLV{Type: 1, Value: []byte("h2")}, proxyproto.TLV{Type: 2, Value: []byte("a.example")},
			proxyproto.TLV{Type: 0xee, Value: []byte{}}, proxyproto.TLV{Type: 0xee, Value: []byte("x")}, proxyproto.TLV{Type: 0xff, Value: []byte("f")}),
	},
	"v2 checksum": {
		sealed(v2(0x21, 0x11, four+tlv(proxyproto.TypeResult, "verdict=affirmed")+tlv(proxyproto.TypeCRC32C, "....."[:4]))),
		with(with4(proxyproto.TLV{Type: proxyproto.TypeResult, Value: []byte("verdict=affirmed")}), func(h *proxyproto.Header) { h.Checksum = true }),
	},
	"v2 unspec with TLVs": {
		sealed(v2(0x21, 0, tlv(proxyproto.TypeUniqueID, strings.Repeat("u", 128))+tlv(proxyproto.TypeCRC32C, "...."))),
		proxyproto.Header{Version: 2, Kind: proxyproto.Unknown, Checksum: true, TLVs: []proxyproto.TLV{{Type: 5, Value: []byte(strings.Repeat("u", 128))}}},
	},
	"v2 SSL": {v2(0x21, 0x11, four+tlv(proxyproto.TypeSSL, "\x01\x00\x00\x00\x01\x21\x00\x07TLSv1.3")), with4(proxyproto.TLV{Type: 0x20, Value: []byte("\x01\x00\x00\x00\x01\x21\x00\x07TLSv1.3")})},
	"v2 as long as allowed": {
		v2(0x21, 0x11, four+tlv(0xe0, strings.Repeat("x", proxyproto.MaxV2-16-12-3))),
		with4(proxyproto.TLV{Type: 0xe0, Value: bytes.Repeat([]byte("x"), proxyproto.MaxV2-16-12-3)}),
	},
	"v2 as many TLVs as allowed": {v2(0x21, 0x11, four+strings.Repeat(tlv(0xe0, ""), 64)), with(four2, func(h *proxyproto.Header) {
		for range 64 {
			h.TLVs = append(h.TLVs, proxyproto.TLV{Type: 0xe0, Value: []byte{}})
		}
	})},
}

// read are headers that are taken and written otherwise.
var read = map[string]struct {
	raw  string
	want proxyproto.Header
}{
	"v1 unknown with addresses": {"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", unknown},
	"v1 unknown with a little":  {"PROXY UNKNOWN xyz\r\n", unknown},
	"v1 unknown with anything":  {"PROXY UNKNOWN  \t\xff\x00 TCP4\r\n", unknown},
	"v1 upper case":             {"PROXY TCP6 2001:DB8:0:0::1 ::FFFF:192.0.2.1 1 2\r\n", tcp(1, "[2001:db8::1]:1", "[::ffff:192.0.2.1]:2")},
	"v1 groups with zeros":      {"PROXY TCP6 2001:0db8::0001 0:0:0:0:0:0:0:1 1 2\r\n", tcp(1, "[2001:db8::1]:1", "[::1]:2")},
	// The specification has whatever comes with LOCAL skipped, the family included.
	"v2 local with anything": {v2(0x20, 0xff, "\xff\xff"), local},
	"v2 local with a broken checksum": {
		v2(0x20, 0x11, four+tlv(proxyproto.TypeCRC32C, "....")), local,
	},
	"v2 padding":             {v2(0x21, 0x11, four+tlv(proxyproto.TypeNoop, "")+tlv(proxyproto.TypeNoop, "xyz")), four2},
	"v2 checksum first":      {checksumFirst(), with(with4(proxyproto.TLV{Type: 0xe1, Value: []byte("x")}), func(h *proxyproto.Header) { h.Checksum = true })},
	"v2 path with leftovers": {v2(0x21, 0x31, path("/run/a\x00leftover")+path("")), proxyproto.Header{Version: 2, Kind: proxyproto.Unix, SourcePath: "/run/a"}},
}

// checksumFirst is a header whose checksum is not the last of its TLVs.
func checksumFirst() string {
	header := []byte(v2(0x21, 0x11, four+tlv(proxyproto.TypeCRC32C, "\x00\x00\x00\x00")+tlv(0xe1, "x")))
	sum := crc32.Checksum(header, crc32.MakeTable(crc32.Castagnoli))
	copy(header[16+12+3:], []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return string(header)
}

func TestParse(t *testing.T) {
	check := func(t *testing.T, raw string, want proxyproto.Header) {
		for _, tail := range []string{"", "\x16\x03\x01", "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n", "\r\n"} {
			got, n, err := proxyproto.Parse([]byte(raw + tail))
			if err != nil || n != len(raw) || !reflect.DeepEqual(got, want) {
				t.Errorf("with %q behind it: got %+v, %d of %d bytes, %v, want %+v", tail, got, n, len(raw), err, want)
			}
		}
		for i := range len(raw) {
			if got, n, err := proxyproto.Parse([]byte(raw[:i])); err != proxyproto.ErrMore || n != 0 || !reflect.DeepEqual(got, proxyproto.Header{}) {
				t.Fatalf("%d of %d bytes: %+v, %d, %v", i, len(raw), got, n, err)
			}
		}
	}
	for name, tt := range written {
		t.Run(name, func(t *testing.T) {
			check(t, tt.raw, tt.want)
			got, err := proxyproto.Append([]byte("before"), tt.want)
			if err != nil || string(got) != "before"+tt.raw {
				t.Errorf("written as %q, %v, want %q", got, err, tt.raw)
			}
		})
	}
	for name, tt := range read {
		t.Run(name, func(t *testing.T) { check(t, tt.raw, tt.want) })
	}
}

// Nothing of what was parsed changes with the buffer that it was read from.
func TestParseCopies(t *testing.T) {
	raw := []byte(written["v2 tlvs"].raw)
	h, _, err := proxyproto.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		raw[i] = 0xaa
	}
	if !reflect.DeepEqual(h, written["v2 tlvs"].want) {
		t.Errorf("got %+v", h)
	}
	if v, ok := h.TLV(proxyproto.TypeAuthority); !ok || string(v) != "a.example" {
		t.Errorf("authority %q, %v", v, ok)
	}
	if v, ok := h.TLV(proxyproto.TypeSSL); ok || v != nil {
		t.Errorf("SSL %q", v)
	}
}

func TestRefused(t *testing.T) {
	for name, raw := range map[string]string{
		"TLS":               "\x16",
		"HTTP":              "G",
		"another word":      "PROXX",
		"lower case":        "proxy TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
		"a space before":    " PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
		"a line end before": "\nPROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
		"half a signature":  "\r\n\r\n\x00\r\nQUIT\r",
		"signature as text": "\r\n\r\n0",

		"v1 tab":                   "PROXY\tTCP4 1.1.1.1 1.1.1.1 1 1\r\n",
		"v1 two spaces":            "PROXY  TCP4 1.1.1.1 1.1.1.1 1 1\r\n",
		"v1 two spaces inside":     "PROXY TCP4  1.1.1.1 1.1.1.1 1 1\r\n",
		"v1 two spaces later":      "PROXY TCP4 1.1.1.1 1.1.1.1  1 1\r\n",
		"v1 tab inside":            "PROXY TCP4 1.1.1.1\t1.1.1.1 1 1\r\n",
		"v1 space at the end":      "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 \r\n",
		"v1 too few":               "PROXY TCP4 1.1.1.1 1.1.1.1 1\r\n",
		"v1 too many":              "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1\r\n",
		"v1 nothing":               "PROXY TCP4\r\n",
		"v1 nothing but a space":   "PROXY TCP4 \r\n",
		"v1 no protocol":           "PROXY \r\n",
		"v1 half a protocol":       "PROXY TCP\r\n",
		"v1 UDP":                   "PROXY UDP4 1.1.1.1 1.1.1.1 1 1\r\n",
		"v1 TCP5":                  "PROXY TCP5",
		"v1 lower-case protocol":   "PROXY tcp4",
		"v1 unknown and more":      "PROXY UNKNOWN4 1.1.1.1 1.1.1.1 1 1\r\n",
		"v1 unknown and a tab":     "PROXY UNKNOWN\t1.1.1.1\r\n",
		"v1 half unknown":          "PROXY UNKNOW\r\n",
		"v1 LF":                    "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\n",
		"v1 LF in unknown":         "PROXY UNKNOWN\nx\r\n",
		"v1 CR":                    "PROXY TCP4 1.1.1.1 1.1.1.1 1 1\rx",
		"v1 CR in unknown":         "PROXY UNKNOWN a\rb\r\n",
		"v1 CR CR LF":              "PROXY UNKNOWN\r\r\n",
		"v1 too long":              "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n",
		"v1 far too long":          "PROXY UNKNOWN " + strings.Repeat("x", 1000),
		"v1 CR at the last byte":   "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r",
		"v1 six in four":           "PROXY TCP4 ::1 ::1 1 1\r\n",
		"v1 four in six":           "PROXY TCP6 1.1.1.1 1.1.1.1 1 1\r\n",
		"v1 mixed":                 "PROXY TCP4 1.1.1.1 ::1 1 1\r\n",
		"v1 mixed in six":          "PROXY TCP6 ::1 1.1.1.1 1 1\r\n",
		"v1 zeros in front":        "PROXY TCP4 1.1.1.01 1.1.1.1 1 1\r\n",
		"v1 octal":                 "PROXY TCP4 0300.0.0.1 1.1.1.1 1 1\r\n",
		"v1 hexadecimal":           "PROXY TCP4 0x7f.0.0.1 1.1.1.1 1 1\r\n",
		"v1 three numbers":         "PROXY TCP4 1.1.1 1.1.1.1 1 1\r\n",
		"v1 five numbers":          "PROXY TCP4 1.1.1.1.1 1.1.1.1 1 1\r\n",
		"v1 256":                   "PROXY TCP4 1.1.1.256 1.1.1.1 1 1\r\n",
		"v1 a number alone":        "PROXY TCP4 16843009 1.1.1.1 1 1\r\n",
		"v1 a name":                "PROXY TCP4 localhost 1.1.1.1 1 1\r\n",
		"v1 brackets":              "PROXY TCP6 [::1] ::1 1 1\r\n",
		"v1 a zone":                "PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
		"v1 five digits":           "PROXY TCP6 ::00001 ::1 1 1\r\n",
		"v1 nine groups":           "PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 1\r\n",
		"v1 seven groups":          "PROXY TCP6 1:2:3:4:5:6:7 ::1 1 1\r\n",
		"v1 two double colons":     "PROXY TCP6 1::2::3 ::1 1 1\r\n",
		"v1 zeros in front in six": "PROXY TCP6 ::ffff:1.1.1.01 ::1 1 1\r\n",
		"v1 port 65536":            "PROXY TCP4 1.1.1.1 1.1.1.1 1 65536\r\n",
		"v1 port 99999":            "PROXY TCP4 1.1.1.1 1.1.1.1 99999 1\r\n",
		"v1 port of six digits":    "PROXY TCP4 1.1.1.1 1.1.1.1 1 100000\r\n",
		"v1 port beyond 64 bits":   "PROXY TCP4 1.1.1.1 1.1.1.1 1 18446744073709551696\r\n",
		"v1 port with a colon":     "PROXY TCP4 1.1.1.1 1.1.1.1 1 1:\r\n",
		"v1 port with zeros":       "PROXY TCP4 1.1.1.1 1.1.1.1 01 1\r\n",
		"v1 port 00":               "PROXY TCP4 1.1.1.1 1.1.1.1 00 1\r\n",
		"v1 port with sign":        "PROXY TCP4 1.1.1.1 1.1.1.1 +1 1\r\n",
		"v1 negative port":         "PROXY TCP4 1.1.1.1 1.1.1.1 1 -1\r\n",
		"v1 port in words":         "PROXY TCP4 1.1.1.1 1.1.1.1 1 https\r\n",
		"v1 port of no digits":     "PROXY TCP4 1.1.1.1 1.1.1.1 1 \r\n",

		"v2 version 1":            signature + "\x11",
		"v2 version 3":            signature + "\x31",
		"v2 version 0":            signature + "\x01",
		"v2 command 2":            signature + "\x22",
		"v2 command 15":           signature + "\x2f",
		"v2 family 4":             signature + "\x21\x41",
		"v2 family 15":            signature + "\x21\xf1",
		"v2 transport 3":          signature + "\x21\x13",
		"v2 family alone":         signature + "\x21\x10",
		"v2 family alone, six":    signature + "\x21\x20",
		"v2 family alone, unix":   signature + "\x21\x30",
		"v2 transport alone":      signature + "\x21\x01",
		"v2 datagrams alone":      signature + "\x21\x02",
		"v2 too long":             block(0x21, 0x11, proxyproto.MaxV2-15, ""),
		"v2 local too long":       block(0x20, 0x00, 0xffff, ""),
		"v2 short four":           block(0x21, 0x11, 11, ""),
		"v2 no four":              block(0x21, 0x11, 0, ""),
		"v2 short six":            block(0x21, 0x21, 35, ""),
		"v2 short udp":            block(0x21, 0x22, 12, ""),
		"v2 short unix":           block(0x21, 0x31, 215, ""),
		"v2 one byte behind":      v2(0x21, 0x11, four+"\x04"),
		"v2 two bytes behind":     v2(0x21, 0x11, four+"\x04\x00"),
		"v2 TLV overruns":         v2(0x21, 0x11, four+"\xe0\x00\x02x"),
		"v2 TLV overruns by far":  v2(0x21, 0x11, four+"\xe0\xff\xff"),
		"v2 padding overruns":     v2(0x21, 0x11, four+"\x04\x00\x01"),
		"v2 second overruns":      v2(0x21, 0x11, four+tlv(0xe0, "x")+"\xe0\x00\x01"),
		"v2 addresses in unspec":  v2(0x21, 0x00, four),
		"v2 wrong checksum":       v2(0x21, 0x11, four+tlv(proxyproto.TypeCRC32C, "\x00\x00\x00\x00")),
		"v2 flipped address":      flip(sealed(v2(0x21, 0x11, four+tlv(proxyproto.TypeCRC32C, "...."))), 16),
		"v2 flipped value":        flip(sealed(v2(0x21, 0x11, four+tlv(0xe0, "x")+tlv(proxyproto.TypeCRC32C, "...."))), 16+12+3),
		"v2 short checksum":       v2(0x21, 0x11, four+tlv(proxyproto.TypeCRC32C, "...")),
		"v2 long checksum, right": sealed(v2(0x21, 0x11, four+tlv(proxyproto.TypeCRC32C, "....."))),
		"v2 long checksum":        v2(0x21, 0x11, four+tlv(proxyproto.TypeCRC32C, ".....")),
		"v2 two checksums":        twoChecksums(),
		"v2 two names":            v2(0x21, 0x11, four+tlv(proxyproto.TypeAuthority, "a")+tlv(proxyproto.TypeAuthority, "a")),
		"v2 two protocols":        v2(0x21, 0x11, four+tlv(proxyproto.TypeALPN, "a")+tlv(proxyproto.TypeALPN, "b")),
		"v2 two ids":              v2(0x21, 0x11, four+tlv(proxyproto.TypeUniqueID, "a")+tlv(proxyproto.TypeUniqueID, "b")),
		"v2 two SSL":              v2(0x21, 0x11, four+tlv(proxyproto.TypeSSL, "12345")+tlv(proxyproto.TypeSSL, "12345")),
		"v2 two namespaces":       v2(0x21, 0x11, four+tlv(proxyproto.TypeNetns, "a")+tlv(proxyproto.TypeNetns, "b")),
		"v2 two results":          v2(0x21, 0x11, four+tlv(proxyproto.TypeResult, "verdict=affirmed")+tlv(proxyproto.TypeResult, "verdict=refused")),
		"v2 long id":              v2(0x21, 0x11, four+tlv(proxyproto.TypeUniqueID, strings.Repeat("x", 129))),
		"v2 short SSL":            v2(0x21, 0x11, four+tlv(proxyproto.TypeSSL, "1234")),
		"v2 many TLVs":            v2(0x21, 0x11, four+strings.Repeat(tlv(0xe0, ""), 65)),
		"v2 much padding":         v2(0x21, 0x11, four+strings.Repeat(tlv(proxyproto.TypeNoop, ""), 65)),
	} {
		t.Run(name, func(t *testing.T) {
			h, n, err := proxyproto.Parse([]byte(raw))
			var refused proxyproto.Error
			if !errors.As(err, &refused) || n != 0 || !reflect.DeepEqual(h, proxyproto.Header{}) {
				t.Errorf("got %+v, %d, %v", h, n, err)
			}
			if _, err := proxyproto.Read(strings.NewReader(raw + strings.Repeat("x", 5000))); !errors.As(err, &refused) {
				t.Errorf("read: %v", err)
			}
		})
	}
}

// rightSum is the checksum of a header that holds nothing else.
func rightSum() string {
	header := sealed(v2(0x21, 0x11, four+tlv(proxyproto.TypeCRC32C, "....")))
	return header[len(header)-4:]
}

func flip(s string, i int) string {
	b := []byte(s)
	b[i] ^= 1
	return string(b)
}

// twoChecksums are both right if the other is left alone.
func twoChecksums() string {
	return sealed(v2(0x21, 0x11, four+tlv(proxyproto.TypeCRC32C, "\x00\x00\x00\x00")+tlv(proxyproto.TypeCRC32C, "....")))
}

// What is not written: what can't be said, and what would be read otherwise.
func TestNotWritten(t *testing.T) {
	v1 := tcp(1, "192.0.2.1:1", "192.0.2.2:2")
	long := strings.Repeat("p", 109)
	for name, h := range map[string]proxyproto.Header{
		"zero":                     {},
		"no version":               with(v1, func(h *proxyproto.Header) { h.Version = 0 }),
		"version 3":                with(v1, func(h *proxyproto.Header) { h.Version = 3 }),
		"v1 no kind":               with(v1, func(h *proxyproto.Header) { h.Kind = 0 }),
		"v1 local":                 {Version: 1, Kind: proxyproto.Local},
		"v1 unix":                  {Version: 1, Kind: proxyproto.Unix},
		"v1 udp":                   with(v1, func(h *proxyproto.Header) { h.Kind = proxyproto.UDP }),
		"v1 TLVs":                  with(v1, func(h *proxyproto.Header) { h.TLVs = []proxyproto.TLV{{Type: 1}} }),
		"v1 checksum":              with(v1, func(h *proxyproto.Header) { h.Checksum = true }),
		"v1 mixed":                 tcp(1, "192.0.2.1:1", "[::1]:2"),
		"v1 no source":             with(v1, func(h *proxyproto.Header) { h.Source = netip.AddrPort{} }),
		"v1 no destination":        with(v1, func(h *proxyproto.Header) { h.Destination = netip.AddrPort{} }),
		"v1 no address":            {Version: 1, Kind: proxyproto.TCP},
		"v1 unknown and addresses": with(v1, func(h *proxyproto.Header) { h.Kind = proxyproto.Unknown }),
		"v2 no kind":               with(four2, func(h *proxyproto.Header) { h.Kind = 0 }),
		"v2 another kind":          with(four2, func(h *proxyproto.Header) { h.Kind = 7 }),
		"v2 local and TLVs":        with(local, func(h *proxyproto.Header) { h.TLVs = []proxyproto.TLV{{Type: 1}} }),
		"v2 local and checksum":    with(local, func(h *proxyproto.Header) { h.Checksum = true }),
		"v2 local and addresses":   with(four2, func(h *proxyproto.Header) { h.Kind = proxyproto.Local }),
		"v2 local and a source":    with(local, func(h *proxyproto.Header) { h.Source = four2.Source }),
		"v2 unspec and another":    {Version: 2, Kind: proxyproto.Unknown, Destination: four2.Destination},
		"v2 no addresses":          {Version: 2, Kind: proxyproto.TCP},
		"v2 no source":             with(four2, func(h *proxyproto.Header) { h.Source = netip.AddrPort{} }),
		"v2 checksum, right":       with4(proxyproto.TLV{Type: proxyproto.TypeCRC32C, Value: []byte(rightSum())}),
		"v2 local and a path":      with(local, func(h *proxyproto.Header) { h.SourcePath = "/a" }),
		"v2 a zone":                tcp(2, "[fe80::1%eth0]:1", "[::1]:2"),
		"v2 another zone":          tcp(2, "[::1]:1", "[fe80::1%eth0]:2"),
		"v2 mixed":                 tcp(2, "[::1]:1", "192.0.2.1:2"),
		"v2 mixed, and readable":   tcp(2, "192.0.2.1:2", "[2001:db8:0:0:e000:900:0:0]:1"),
		"v2 TCP and a path":        with(four2, func(h *proxyproto.Header) { h.DestinationPath = "/a" }),
		"v2 unix and addresses":    with(four2, func(h *proxyproto.Header) { h.Kind = proxyproto.Unix }),
		"v2 long path":             {Version: 2, Kind: proxyproto.Unix, SourcePath: long},
		"v2 long second path":      {Version: 2, Kind: proxyproto.Unix, DestinationPath: long},
		"v2 path with a zero":      {Version: 2, Kind: proxyproto.Unix, SourcePath: "/a\x00b"},
		"v2 path and a zero":       {Version: 2, Kind: proxyproto.Unix, SourcePath: "/a\x00"},
		"v2 zero path":             {Version: 2, Kind: proxyproto.Unix, SourcePath: "\x00"},
		"v2 checksum by hand":      with4(proxyproto.TLV{Type: proxyproto.TypeCRC32C, Value: make([]byte, 4)}),
		"v2 padding by hand":       with4(proxyproto.TLV{Type: proxyproto.TypeNoop}),
		"v2 two names":             with4(proxyproto.TLV{Type: 2}, proxyproto.TLV{Type: 2}),
		"v2 long id":               with4(proxyproto.TLV{Type: 5, Value: make([]byte, 129)}),
		"v2 too long":              with4(proxyproto.TLV{Type: 0xe0, Value: make([]byte, proxyproto.MaxV2-16-12-2)}),
		"v2 longer than a TLV":     with4(proxyproto.TLV{Type: 0xe0, Value: make([]byte, 1<<16)}),
	} {
		got, err := proxyproto.Append([]byte("before"), h)
		var refused proxyproto.Error
		if !errors.As(err, &refused) || string(got) != "before" {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

func TestKinds(t *testing.T) {
	addressed := map[proxyproto.Kind]bool{proxyproto.TCP: true, proxyproto.UDP: true, proxyproto.Unix: true, proxyproto.UnixDatagram: true}
	names := map[string]bool{}
	for k := range proxyproto.Kind(10) {
		if got := (proxyproto.Header{Kind: k}).Addressed(); got != addressed[k] {
			t.Errorf("%s: addressed %v", k, got)
		}
		names[k.String()] = true
	}
	if len(names) != 7 {
		t.Errorf("names %v", names)
	}
}
