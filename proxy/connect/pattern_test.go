package connect_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/connect"
)

func TestPatterns(t *testing.T) {
	for _, tt := range []struct {
		patterns string
		yes, no  string
	}{
		{"shop.example", "shop.example:443 shop.example:1", "a.shop.example:443 shop.example.evil:443 xshop.example:443 example:443"},
		{"Shop.Example.", "shop.example:443", "shop:443"},
		{"shop.example:8443", "shop.example:8443", "shop.example:443 shop.example:84430"},
		{"*.example", "a.example:443 a.b.example:1", "example:443 aexample:443 a.example.org:443"},
		{"*.Shop.example:443", "a.shop.example:443", "a.shop.example:80 shop.example:443"},
		{"*", "a:1 127.0.0.1:443 [::1]:443", "a nothing"},
		{"*:443", "a:443 [::1]:443", "a:444"},
		{"192.0.2.1", "192.0.2.1:443", "192.0.2.10:443 [::ffff:192.0.2.1]:443 2.1:443"},
		{"::ffff:192.0.2.1", "192.0.2.1:443", "192.0.2.2:443"},
		{"2001:DB8::1", "[2001:db8::1]:443", "[2001:db8::11]:443"},
		{"[2001:db8::1]", "[2001:db8::1]:443", "[2001:db8::2]:443"},
		{"[2001:db8::1]:8443", "[2001:db8::1]:8443", "[2001:db8::1]:443"},
		{"a b:2 *.c", "a:1 b:2 x.c:3", "b:1 c:3 d:4"},
		{"", "", "a:1 :1"},
	} {
		all := []connect.Pattern{{}}
		for _, text := range strings.Fields(tt.patterns) {
			p, err := connect.ParsePattern(text)
			if err != nil || p.String() != text {
				t.Errorf("%s: %v, %v", text, p, err)
			}
			all = append(all, p)
		}
		covers := func(target string) bool {
			return slices.ContainsFunc(all, func(p connect.Pattern) bool { return p.Covers(target) })
		}
		for _, target := range strings.Fields(tt.yes) {
			if !covers(target) {
				t.Errorf("%q does not cover %s", tt.patterns, target)
			}
		}
		for _, target := range strings.Fields(tt.no) {
			if covers(target) {
				t.Errorf("%q covers %s", tt.patterns, target)
			}
		}
	}
	for _, bad := range []string{
		"", ":443", "a:", "a:0", "a:0443", "a:65536", "a:https", "a b", "a.*", "a*.example", "*example", "*.", "*.*", "**", "*.192.0.2.1", "*.::1", "*.1",
		"https://a", "a/b", "ann@a", "[::1", "::1]", "[a]x", "fe80::1%eth0", "[fe80::1%eth0]:443", "0.0.0.0", "127.1", "0x7f000001", "a,b", "a\x00",
	} {
		if p, err := connect.ParsePattern(bad); err == nil || p != (connect.Pattern{}) {
			t.Errorf("%q is taken for %v", bad, p)
		}
	}
}
