package main

import (
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
)

func TestTargets(t *testing.T) {
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
		var all targets
		for _, p := range strings.Fields(tt.patterns) {
			if err := all.Set(p); err != nil {
				t.Errorf("%s: %v", p, err)
			}
		}
		if got := all.String(); got != tt.patterns {
			t.Errorf("%q is told as %q", tt.patterns, got)
		}
		for _, target := range strings.Fields(tt.yes) {
			if err := all.check(target); err != nil {
				t.Errorf("%q does not cover %s: %v", tt.patterns, target, err)
			}
		}
		for _, target := range strings.Fields(tt.no) {
			if err := all.check(target); attest.CodeOf(err) != attest.CodeNoPolicy || !strings.HasPrefix(err.Error(), target+": ") {
				t.Errorf("%q covers %s: %v", tt.patterns, target, err)
			}
		}
	}
	for _, bad := range []string{
		"", ":443", "a:", "a:0", "a:0443", "a:65536", "a:https", "a b", "a.*", "a*.example", "*example", "*.", "*.*", "**", "*.192.0.2.1", "*.::1", "*.1",
		"https://a", "a/b", "ann@a", "[::1", "::1]", "[a]x", "fe80::1%eth0", "[fe80::1%eth0]:443", "0.0.0.0", "127.1", "0x7f000001", "a,b", "a\x00",
	} {
		var all targets
		if err := all.Set(bad); err == nil || len(all) != 0 {
			t.Errorf("%q is taken for %v", bad, all)
		}
	}
}

func TestOneUser(t *testing.T) {
	for text, want := range map[string][2]string{
		"ann:secret":        {"ann", "secret"},
		"ann:secret\n":      {"ann", "secret"},
		"ann:secret\r\n":    {"ann", "secret"},
		"ann:se:cret\n":     {"ann", "se:cret"},
		"ann b: s e c r \n": {"ann b", " s e c r "},
	} {
		users, err := oneUser("file", []byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if !users(want[0], want[1]) {
			t.Errorf("%q does not let %q in", text, want)
		}
		for _, wrong := range [][2]string{{want[0], ""}, {"", want[1]}, {want[0], want[1] + "x"}, {want[0] + ":", want[1]}, {want[0] + ":" + want[1], ""}, {want[1], want[0]}, {"ann:se", "cret"}} {
			if users(wrong[0], wrong[1]) {
				t.Errorf("%q lets %q in", text, wrong)
			}
		}
	}
	for _, text := range []string{
		"", "\n", "ann", ":", "ann:", ":secret", "ann:secret\nbob:secret\n", "ann:secret\n\n", "ann\x00:secret",
		strings.Repeat("a", 256) + ":b", "a:" + strings.Repeat("b", 256),
	} {
		users, err := oneUser("file", []byte(text))
		if users != nil || attest.CodeOf(err) != attest.CodeConfigValue || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
