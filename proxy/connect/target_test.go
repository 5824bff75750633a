package connect_test

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/proxy/connect"
)

func TestHost(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 62)+".", 4) // 252
	for _, tt := range []struct{ in, want string }{
		{"localhost", "localhost"},
		{"a.Example", "a.example"},
		{"a.example.", "a.example"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"_dmarc.a", "_dmarc.a"},
		{"1password.example", "1password.example"},
		{"a.0b", "a.0b"},
		{"a.1e5", "a.1e5"},
		{"127.0.0.1", "127.0.0.1"},
		{"::1", "::1"},
		{"FE80::1", "fe80::1"},
		{"::ffff:10.0.0.1", "10.0.0.1"},
		{"0:0:0:0:0:0:0:1", "::1"},
		{long + "a", long + "a"},
		{long + "a.", long + "a"},

		{long + "ab", ""},
		{strings.Repeat("a", 64), ""},
		{"", ""},
		{".", ""},
		{"a..", ""},
		{".a", ""},
		{"a..b", ""},
		{"-a", ""},
		{"a-.b", ""},
		{"a b", ""},
		{"a\x00", ""},
		{"a\n", ""},
		{"a/b", ""},
		{"a%2eb", ""},
		{"a@b", ""},
		{"a:1", ""},
		{"*.a", ""},
		{"[::1]", ""},
		{"bücher.example", ""},
		{"１２７.0.0.1", ""},
		{"127.1", ""},
		{"127.0.0.1.", ""},
		{"127.0.0.01", ""},
		{"0x7f000001", ""},
		{"0X7F.1", ""},
		{"a.0x", ""},
		{"2130706433", ""},
		{"017700000001", ""},
		{"256.256.256.256", ""},
		{"1.2.3.4.5", ""},
		{"fe80::1%eth0", ""},
		{"::ffff:10.0.0.1%eth0", ""},
		{"0.0.0.0", ""},
		{"::", ""},
		{"::ffff:0.0.0.0", ""},
		{"224.0.0.1", ""},
		{"ff02::1", ""},
	} {
		if got, err := connect.Host(tt.in); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%q: got %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
}

// Every spelling of a host comes to the same.
func TestHostHasOneSpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-zA-Z0-9_]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?(\.[a-zA-Z][a-zA-Z0-9]{0,3}){0,3}\.?`).Draw(t, "name")
		if got, err := connect.Host(name); err == nil {
			for _, other := range []string{got, strings.ToUpper(name), strings.TrimSuffix(name, ".") + "."} {
				if again, err := connect.Host(other); again != got || err != nil {
					t.Fatalf("%q is %q, but %q is %q, %v", name, got, other, again, err)
				}
			}
		}
		raw := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "ip"))
		ip := netip.AddrFrom16(raw)
		got, err := connect.Host(ip.String())
		if err != nil {
			if !ip.IsUnspecified() && !ip.IsMulticast() && !ip.Is4In6() {
				t.Fatalf("%s: %v", ip, err)
			}
			return
		}
		if again, err := connect.Host(ip.StringExpanded()); again != got || err != nil {
			t.Fatalf("%s is %q and %q, %v", ip, got, again, err)
		}
	})
}
