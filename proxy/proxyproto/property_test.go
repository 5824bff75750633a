package proxyproto_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/proxy/proxyproto"
)

func drawAddr(t *rapid.T, six bool, name string) netip.AddrPort {
	n := 4
	if six {
		n = 16
	}
	b := rapid.SliceOfN(rapid.OneOf(rapid.Just(byte(0)), rapid.Byte()), n, n).Draw(t, name)
	if six && rapid.IntRange(0, 4).Draw(t, name+" mapped") == 0 {
		copy(b, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff")
	}
	addr, _ := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, rapid.Uint16().Draw(t, name+" port"))
}

func drawPath(t *rapid.T, name string) string {
	s := rapid.StringOfN(rapid.RuneFrom([]rune("/abz.@\x00é")), 0, 54, 108).Draw(t, name)
	if s != "" && s[0] != 0 {
		s = strings.ReplaceAll(s, "\x00", "")
	}
	return strings.TrimRight(s, "\x00")
}

// drawHeader draws one that can be written.
func drawHeader(t *rapid.T) proxyproto.Header {
	h := proxyproto.Header{Version: rapid.IntRange(1, 2).Draw(t, "version")}
	kinds := []proxyproto.Kind{proxyproto.Unknown, proxyproto.TCP}
	if h.Version == 2 {
		kinds = append(kinds, proxyproto.Local, proxyproto.UDP, proxyproto.Unix, proxyproto.UnixDatagram)
	}
	h.Kind = rapid.SampledFrom(kinds).Draw(t, "kind")
	switch h.Kind {
	case proxyproto.TCP, proxyproto.UDP:
		six := rapid.Bool().Draw(t, "six")
		h.Source, h.Destination = drawAddr(t, six, "source"), drawAddr(t, six, "destination")
	case proxyproto.Unix, proxyproto.UnixDatagram:
		h.SourcePath, h.DestinationPath = drawPath(t, "source"), drawPath(t, "destination")
	}
	if h.Version == 2 && h.Kind != proxyproto.Local {
		h.Checksum = rapid.Bool().Draw(t, "checksum")
		for _, kind := range rapid.SliceOfNDistinct(rapid.SampledFrom([]byte{1, 2, 5, 0x20, 0x30, 0xe7, 0xe8, 0xff}), 0, 8, rapid.ID[byte]).Draw(t, "types") {
			value := rapid.SliceOfN(rapid.Byte(), 5, 100).Draw(t, "value")
			h.TLVs = append(h.TLVs, proxyproto.TLV{Type: proxyproto.Type(kind), Value: value})
		}
	}
	return h
}

// What is written is read alike, whole only, and whatever follows.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHeader(t)
		raw, err := proxyproto.Append(nil, h)
		if err != nil {
			t.Fatalf("%+v: %v", h, err)
		}
		tail := rapid.SliceOfN(rapid.Byte(), 0, 10).Draw(t, "tail")
		got, n, err := proxyproto.Parse(append(raw[:len(raw):len(raw)], tail...))
		if err != nil || n != len(raw) || !reflect.DeepEqual(got, h) {
			t.Fatalf("%+v was written as %q and read as %+v, %d, %v", h, raw, got, n, err)
		}
		cut := rapid.IntRange(0, len(raw)-1).Draw(t, "cut")
		if _, _, err := proxyproto.Parse(raw[:cut]); err != proxyproto.ErrMore {
			t.Fatalf("%d of %d bytes: %v", cut, len(raw), err)
		}
	})
}

// With a checksum, no bit of a header can change unnoticed: it is wrong then, or it is one that vouches for nothing.
func TestChecksumCoversAll(t *testing.T) {
	raw := []byte(written["v2 checksum"].raw)
	for bit := range 8 * len(raw) {
		raw[bit/8] ^= 1 << (bit % 8)
		h, _, err := proxyproto.Parse(raw)
		if err == nil && h.Checksum {
			t.Errorf("bit %d: read as %+v", bit, h)
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
}

func FuzzParse(f *testing.F) {
	for _, tt := range written {
		f.Add([]byte(tt.raw))
	}
	for _, tt := range read {
		f.Add([]byte(tt.raw + "tail"))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		h, n, err := proxyproto.Parse(p)
		rest := strings.NewReader(string(p))
		got, readErr := proxyproto.Read(rest)
		if err != nil {
			if !reflect.DeepEqual(h, proxyproto.Header{}) || n != 0 || readErr == nil {
				t.Fatalf("refused with %v, and %+v, %d; read with %v", err, h, n, readErr)
			}
			return
		}
		if n < 15 || n > len(p) || n > proxyproto.MaxV2 || h.Version == 1 && n > proxyproto.MaxV1 {
			t.Fatalf("%d of %d bytes", n, len(p))
		}
		if readErr != nil || !reflect.DeepEqual(got, h) || rest.Len() != len(p)-n {
			t.Fatalf("read as %+v, %v, with %d bytes left of %d behind %d", got, readErr, rest.Len(), len(p), n)
		}
		for i := range n {
			if _, _, err := proxyproto.Parse(p[:i]); err != proxyproto.ErrMore {
				t.Fatalf("%d of %d bytes: %v", i, n, err)
			}
		}
		again, err := proxyproto.Append(nil, h)
		if err != nil {
			t.Fatalf("%+v can't be written: %v", h, err)
		}
		if back, m, err := proxyproto.Parse(again); err != nil || m != len(again) || !reflect.DeepEqual(back, h) {
			t.Fatalf("%+v became %+v, %v", h, back, err)
		}
	})
}
