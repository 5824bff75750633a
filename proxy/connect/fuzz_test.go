package connect_test

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/connect"
)

// Whatever a client says, and in whatever pieces: it comes to the same, no byte of what it sent ahead is lost, and a target is
// one that nobody reads differently.
func FuzzNegotiate(f *testing.F) {
	for _, say := range []string{
		open + ipv4, open + ipv6, open + named + "ahead", login + named, login[:5] + named, "\x05\x00", "\x05\x01\x02\x01\x01a\x01b" + named,
		"\x04\x01\x01\xbb\x00\x00\x00\x01\x00a\x00", "\x16\x03\x01", "PRI * HTTP/2.0\r\n\r\n",
		"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nProxy-Authorization: Basic YW5uOnNlY3JldA==\r\n\r\nahead",
		"CONNECT [::1]:443 HTTP/1.0\r\n\r\n", "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT 127.1:443 HTTP/1.1\r\nHost: 127.1\r\n\r\n",
	} {
		f.Add([]byte(say), uint8(1), false)
		f.Add([]byte(say), uint8(7), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, piece uint8, protected bool) {
		var users connect.Authenticate
		if protected {
			users = ann
		}
		run := func(piece int) (target, told, left string, code attest.Code) {
			c := says(string(b), piece)
			r, err := connect.Negotiate(t.Context(), c, users)
			code = attest.CodeOf(err)
			if r != nil {
				target, left = r.Target(), string(r.Ahead())
				if err == nil {
					if err := r.Succeed(); err != nil {
						t.Fatal(err)
					}
				} else if err := r.Refuse(connect.Failed, nil, "no"); err != nil {
					t.Fatal(err)
				}
			}
			if err != nil && (target != "" || left != "") {
				t.Fatalf("%q: refused and told %q, %q", b, target, left)
			}
			return target, c.heard.String(), left + c.rest(), code
		}
		target, told, left, code := run(0)
		if code == "" {
			host, digits, err := net.SplitHostPort(target)
			port, _ := strconv.ParseUint(digits, 10, 16)
			if err != nil || port == 0 {
				t.Fatalf("%q: target %q", b, target)
			}
			if again, err := connect.Host(host); err != nil || again != host {
				t.Fatalf("%q: target %q", b, target)
			}
			if !strings.HasSuffix(string(b), left) {
				t.Fatalf("%q: left %q", b, left)
			}
		} else if code != attest.CodeProxyRequest && code != attest.CodeProxyCredentials {
			t.Fatalf("%q: code %s", b, code)
		}
		otherTarget, otherTold, otherLeft, otherCode := run(int(piece))
		if target != otherTarget || told != otherTold || code != otherCode || code == "" && left != otherLeft {
			t.Fatalf("%q: %q %q %q %s, in pieces of %d: %q %q %q %s", b, target, told, left, code, piece, otherTarget, otherTold, otherLeft, otherCode)
		}
	})
}

func FuzzHost(f *testing.F) {
	for _, s := range []string{"a.example", "127.1", "::ffff:127.0.0.1", "fe80::1%eth0", "0x7f.1", "A.", "[::1]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, err := connect.Host(s)
		if err != nil {
			return
		}
		if again, err := connect.Host(host); err != nil || again != host {
			t.Fatalf("%q is %q, and that %q, %v", s, host, again, err)
		}
		if strings.ContainsAny(host, "@/%[]\x00 \r\n") || host != strings.ToLower(host) || len(host) > 253 {
			t.Fatalf("%q is %q", s, host)
		}
	})
}
