package client

import (
	"bytes"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

var keptLimits = Limits{Types: 64, Resources: 200_000}

func TestKept(t *testing.T) {
	text := rapid.StringMatching(`[a-z|/ü ]{1,20}`)
	rapid.Check(t, func(t *rapid.T) {
		var all []protocol.Kept
		for range rapid.IntRange(0, 4).Draw(t, "types") {
			k := protocol.Kept{Type: "t/" + rapid.StringMatching(`[a-z.]{1,20}`).Draw(t, "type"), Version: text.Draw(t, "version")}
			for range rapid.IntRange(0, 5).Draw(t, "resources") {
				r := resource.Resource{Type: k.Type, Name: text.Draw(t, "name"), Version: text.Draw(t, "version"), Body: rapid.SliceOf(rapid.Byte()).Draw(t, "body")}
				r.Aliases = append(r.Aliases, rapid.SliceOfN(text, 0, 3).Draw(t, "aliases")...)
				k.Resources = append(k.Resources, r)
			}
			all = append(all, k)
		}
		raw := encode(all)
		got, err := decode(raw, keptLimits)
		if err != nil || !reflect.DeepEqual(got, all) {
			t.Fatalf("%v, %v; want %v", got, err, all)
		}
		for _, bad := range [][]byte{raw[:len(raw)-1], append(bytes.Clone(raw), 0), raw[:rapid.IntRange(0, len(raw)-1).Draw(t, "cut")]} {
			if _, err := decode(bad, keptLimits); err == nil {
				t.Fatalf("%q is taken", bad)
			}
		}
	})
}

func TestKeptBroken(t *testing.T) {
	one := func(r resource.Resource) []byte {
		return encode([]protocol.Kept{{Type: r.Type, Resources: []resource.Resource{r}}})
	}
	for name, raw := range map[string][]byte{
		"nothing":            {},
		"another version":    []byte(strings.Replace(header, "1", "2", 1) + "\x00"),
		"no number":          []byte(header),
		"an endless number":  []byte(header + strings.Repeat("\xff", 20)),
		"many types":         []byte(header + "\x7f" + strings.Repeat("\x00", 1000)),
		"many resources":     append([]byte(header+"\x01\x03a/b\x00"), 0xff, 0xff, 0xff, 0x07),
		"no type":            one(resource.Resource{Name: "a"}),
		"no name":            one(resource.Resource{Type: "a/b"}),
		"a name for all":     one(resource.Resource{Type: "a/b", Name: "*"}),
		"a long name":        one(resource.Resource{Type: "a/b", Name: strings.Repeat("x", resource.MaxName+1)}),
		"many aliases":       one(resource.Resource{Type: "a/b", Name: "a", Aliases: make([]string, resource.MaxAliases+1)}),
		"an alias of no one": one(resource.Resource{Type: "a/b", Name: "a", Aliases: []string{""}}),
	} {
		_, err := decode(raw, keptLimits)
		var e *attest.Error
		if !errors.As(err, &e) || e.Code != attest.CodeXDSKept {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzKept(f *testing.F) {
	f.Add([]byte(header))
	f.Add([]byte(header + "\x40" + strings.Repeat("\x03a/b\x00\x00", 64)))
	f.Add(encode([]protocol.Kept{{Type: "a/b", Version: "1", Resources: []resource.Resource{{Type: "a/b", Name: "x", Aliases: []string{"y"}, Body: []byte("z")}}}}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		all, err := decode(raw, keptLimits)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > uint64(64*len(raw)+1<<20) {
			t.Fatalf("%d bytes for %d", n, len(raw))
		}
		if err == nil {
			if again, err := decode(encode(all), keptLimits); err != nil || !reflect.DeepEqual(again, all) {
				t.Fatal(err)
			}
		}
	})
}
