package connect_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/proxy"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/connect"
	"github.com/jurat-tls/jurat/proxy/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a client that says what it has to say in pieces, and listens.
type script struct {
	net.Conn
	pieces [][]byte
	heard  bytes.Buffer
}

// says is a client that sends text in pieces of n bytes at most.
func says(text string, n int) *script {
	s := new(script)
	for n > 0 && len(text) > n {
		s.pieces, text = append(s.pieces, []byte(text[:n])), text[n:]
	}
	s.pieces = append(s.pieces, []byte(text))
	return s
}

func (s *script) Read(p []byte) (int, error) {
	for len(s.pieces) > 0 && len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.pieces[0])
	s.pieces[0] = s.pieces[0][n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error)   { return s.heard.Write(p) }
func (s *script) SetDeadline(t time.Time) error { return nil }

// rest is what was not read.
func (s *script) rest() string { return string(bytes.Join(s.pieces, nil)) }

// ann may use the proxy.
func ann(user, password string) bool { return user == "ann" && password == "secret" }

const (
	ipv4  = "\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb"
	ipv6  = "\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50"
	named = "\x05\x01\x00\x03\x0cshop.example\x20\xfb"
	open  = "\x05\x01\x00"
	login = "\x05\x02\x00\x02\x01\x03ann\x06secret"
)

func domain(name string, port string) string {
	return open + "\x05\x01\x00\x03" + string(rune(len(name))) + name + port
}

// TestSOCKS5: what is granted, and what is refused in which words.
func TestSOCKS5(t *testing.T) {
	reply := func(code byte) string { return "\x05" + string(rune(code)) + "\x00\x01\x00\x00\x00\x00\x00\x00" }
	for _, tt := range []struct {
		name, say string
		users     connect.Authenticate
		target    string
		ahead     string
		chosen    string // by the server, before its reply
		reply     string // to a request that is none
		code      attest.Code
	}{
		{"IPv4", open + ipv4, nil, "192.0.2.1:443", "", "\x05\x00", "", ""},
		{"IPv6", open + ipv6, nil, "[2001:db8::1]:80", "", "\x05\x00", "", ""},
		{"name", open + named, nil, "shop.example:8443", "", "\x05\x00", "", ""},
		{"several methods", "\x05\x03\x01\x02\x00" + named, nil, "shop.example:8443", "", "\x05\x00", "", ""},
		{"all methods", "\x05\xff" + strings.Repeat("\x09", 254) + "\x00" + named, nil, "shop.example:8443", "", "\x05\x00", "", ""},
		{"sends ahead", open + named + "\x16\x03\x01", nil, "shop.example:8443", "\x16\x03\x01", "\x05\x00", "", ""},
		{"large letters", domain("Shop.EXAMPLE", "\x00\x01"), nil, "shop.example:1", "", "\x05\x00", "", ""},
		{"final dot", domain("shop.example.", "\xff\xff"), nil, "shop.example:65535", "", "\x05\x00", "", ""},
		{"address as a name", domain("192.0.2.1", "\x00\x01"), nil, "192.0.2.1:1", "", "\x05\x00", "", ""},
		{"IPv6 as a name", domain("2001:DB8:0::1", "\x00\x01"), nil, "[2001:db8::1]:1", "", "\x05\x00", "", ""},
		{"IPv4 in IPv6", open + "\x05\x01\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01\x00\x50", nil, "192.0.2.1:80", "", "\x05\x00", "", ""},
		{"password", login + named, ann, "shop.example:8443", "", "\x05\x02\x01\x00", "", ""},
		{
			"longest password", "\x05\x01\x02\x01\xff" + strings.Repeat("u", 255) + "\xff" + strings.Repeat("p", 255) + named,
			func(u, p string) bool { return u == strings.Repeat("u", 255) && p == strings.Repeat("p", 255) }, "shop.example:8443", "", "\x05\x02\x01\x00", "", "",
		},

		{"no methods", "\x05\x00" + named, nil, "", "", "", "\x05\xff", attest.CodeProxyRequest},
		{"only GSSAPI", "\x05\x01\x01" + named, nil, "", "", "", "\x05\xff", attest.CodeProxyRequest},
		{"password that nobody asked for", "\x05\x01\x02", nil, "", "", "", "\x05\xff", attest.CodeProxyRequest},
		{"password missing", open + named, ann, "", "", "", "\x05\xff", attest.CodeProxyCredentials},
		{"wrong password", "\x05\x01\x02\x01\x03ann\x06Secret" + named, ann, "", "", "\x05\x02", "\x01\x01", attest.CodeProxyCredentials},
		{"wrong user", "\x05\x01\x02\x01\x03bob\x06secret" + named, ann, "", "", "\x05\x02", "\x01\x01", attest.CodeProxyCredentials},
		{"no user and password", "\x05\x01\x02\x01\x00\x00" + named, ann, "", "", "\x05\x02", "\x01\x01", attest.CodeProxyCredentials},
		{"another version of passwords", "\x05\x01\x02\x05\x03ann\x06secret" + named, ann, "", "", "\x05\x02", "\x01\x01", attest.CodeProxyRequest},
		{"BIND", open + "\x05\x02" + ipv4[2:], nil, "", "", "\x05\x00", reply(7), attest.CodeProxyRequest},
		{"UDP ASSOCIATE", open + "\x05\x03" + ipv4[2:], nil, "", "", "\x05\x00", reply(7), attest.CodeProxyRequest},
		{"no command", open + "\x05\x00" + ipv4[2:], nil, "", "", "\x05\x00", reply(7), attest.CodeProxyRequest},
		{"another version", open + "\x04" + ipv4[1:], nil, "", "", "\x05\x00", reply(1), attest.CodeProxyRequest},
		{"something reserved", open + "\x05\x01\x01" + ipv4[3:], nil, "", "", "\x05\x00", reply(1), attest.CodeProxyRequest},
		{"another type of address", open + "\x05\x01\x00\x02" + ipv4[4:], nil, "", "", "\x05\x00", reply(8), attest.CodeProxyRequest},
		{"port 0", open + ipv4[:8] + "\x00\x00", nil, "", "", "\x05\x00", reply(1), attest.CodeProxyRequest},
		{"unspecified address", open + "\x05\x01\x00\x01\x00\x00\x00\x00\x01\xbb", nil, "", "", "\x05\x00", reply(1), attest.CodeProxyRequest},
		{"no name", domain("", "\x00\x01"), nil, "", "", "\x05\x00", reply(1), attest.CodeProxyRequest},
		{"NUL in a name", domain("shop\x00.example", "\x00\x01"), nil, "", "", "\x05\x00", reply(1), attest.CodeProxyRequest},
		{"user in a name", domain("a@shop.example", "\x00\x01"), nil, "", "", "\x05\x00", reply(1), attest.CodeProxyRequest},
		{"port in a name", domain("shop.example:80", "\x00\x01"), nil, "", "", "\x05\x00", reply(1), attest.CodeProxyRequest},
		{"zone", domain("fe80::1%eth0", "\x00\x01"), nil, "", "", "\x05\x00", reply(1), attest.CodeProxyRequest},
		{"number", domain("2130706433", "\x00\x01"), nil, "", "", "\x05\x00", reply(1), attest.CodeProxyRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, piece := range []int{0, 1, 3} {
				c := says(tt.say, piece)
				r, err := connect.Negotiate(t.Context(), c, tt.users)
				if attest.CodeOf(err) != tt.code || r == nil {
					t.Fatalf("in pieces of %d: got %v, %v", piece, r, err)
				}
				if got := c.heard.String(); got != tt.chosen {
					t.Errorf("in pieces of %d: heard %q, want %q", piece, got, tt.chosen)
				}
				c.heard.Reset()
				if r.Protocol() != connect.SOCKS5 || r.Target() != tt.target || err == nil && string(r.Ahead())+c.rest() != tt.ahead {
					t.Errorf("in pieces of %d: got %s %q %q", piece, r.Protocol(), r.Target(), r.Ahead())
				}
				want := reply(0)
				if err != nil {
					want = tt.reply
					if err := r.Succeed(); err == nil || c.heard.Len() > 0 {
						t.Errorf("what was refused is granted: %v, %q", err, c.heard.String())
					}
					err = r.Refuse(connect.Unreachable, nil, "no")
				} else {
					err = r.Succeed()
				}
				if got := c.heard.String(); err != nil || got != want {
					t.Errorf("in pieces of %d: heard %q, want %q, %v", piece, got, want, err)
				}
			}
		})
	}
}

// TestHTTP is TestSOCKS5 for CONNECT.
func TestHTTP(t *testing.T) {
	const ok = "CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n"
	const end = "\r\n"
	for _, tt := range []struct {
		name, say string
		users     connect.Authenticate
		target    string
		ahead     string
		status    string // of a request that is none
		code      attest.Code
	}{
		{"plain", ok + end, nil, "shop.example:443", "", "", ""},
		{"curl", ok + "User-Agent: curl/8.0\r\nProxy-Connection: Keep-Alive\r\n" + end, nil, "shop.example:443", "", "", ""},
		{"HTTP/1.0", "CONNECT shop.example:443 HTTP/1.0\r\n\r\n", nil, "shop.example:443", "", "", ""},
		{"sends ahead", ok + end + "\x16\x03\x01", nil, "shop.example:443", "\x16\x03\x01", "", ""},
		{"sends ahead what looks like a head", ok + end + "GET / HTTP/1.1\r\n\r\n", nil, "shop.example:443", "GET / HTTP/1.1\r\n\r\n", "", ""},
		{"large letters", "CONNECT SHOP.example.:443 HTTP/1.1\r\nHost: shop.example.\r\n\r\n", nil, "shop.example:443", "", "", ""},
		{"IPv4", "CONNECT 192.0.2.1:1 HTTP/1.1\r\nHost: 192.0.2.1:1\r\n\r\n", nil, "192.0.2.1:1", "", "", ""},
		{"IPv6", "CONNECT [2001:DB8:0::1]:65535 HTTP/1.1\r\nHost: [2001:DB8:0::1]:65535\r\n\r\n", nil, "[2001:db8::1]:65535", "", "", ""},
		{"IPv4 in IPv6", "CONNECT [::ffff:192.0.2.1]:80 HTTP/1.1\r\nHost: x\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"IPv4 in IPv6, and Host too", "CONNECT [::ffff:192.0.2.1]:80 HTTP/1.1\r\nHost: [::ffff:192.0.2.1]\r\n\r\n", nil, "192.0.2.1:80", "", "", ""},
		{"password", ok + "Proxy-Authorization: Basic YW5uOnNlY3JldA==\r\n\r\n", ann, "shop.example:443", "", "", ""},
		{"password, written otherwise", ok + "PROXY-authorization: basic  YW5uOnNlY3JldA==\r\n\r\n", ann, "shop.example:443", "", "", ""},
		{"password that nobody asked for", ok + "Proxy-Authorization: Basic YW5uOnNlY3JldA==\r\n\r\n", nil, "shop.example:443", "", "", ""},
		{"much to say", ok + "X: " + strings.Repeat("x", 15<<10) + "\r\n\r\nahead", nil, "shop.example:443", "ahead", "", ""},

		{"GET", "GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\n\r\n", nil, "", "", "405", attest.CodeProxyRequest},
		{"HEAD", "HEAD http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\n\r\n", nil, "", "", "405", attest.CodeProxyRequest},
		{"OPTIONS", "OPTIONS * HTTP/1.1\r\nHost: shop.example\r\n\r\n", nil, "", "", "405", attest.CodeProxyRequest},
		{"an unknown method", "BREW / HTTP/1.1\r\nHost: shop.example\r\n\r\n", nil, "", "", "405", attest.CodeProxyRequest},
		{"POST with a body", "POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", nil, "", "", "405", attest.CodeProxyRequest},
		{"password missing", ok + end, ann, "", "", "407", attest.CodeProxyCredentials},
		{"wrong password", ok + "Proxy-Authorization: Basic YW5uOlNlY3JldA==\r\n\r\n", ann, "", "", "407", attest.CodeProxyCredentials},
		{"two passwords", ok + "Proxy-Authorization: Basic YW5uOnNlY3JldA==\r\nProxy-Authorization: Basic YW5uOnNlY3JldA==\r\n\r\n", ann, "", "", "407", attest.CodeProxyCredentials},
		{"no base64", ok + "Proxy-Authorization: Basic YW5uOnNlY3JldA\r\n\r\n", ann, "", "", "407", attest.CodeProxyCredentials},
		{"no colon", ok + "Proxy-Authorization: Basic YW5u\r\n\r\n", func(string, string) bool { return true }, "", "", "407", attest.CodeProxyCredentials},
		{"another scheme", ok + "Proxy-Authorization: Bearer YW5uOnNlY3JldA==\r\n\r\n", ann, "", "", "407", attest.CodeProxyCredentials},
		{"a path", "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"a URL", "CONNECT https://a:443 HTTP/1.1\r\nHost: a\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"no port", "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"an empty port", "CONNECT a: HTTP/1.1\r\nHost: a\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"port 0", "CONNECT a:0 HTTP/1.1\r\nHost: a\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"port 65536", "CONNECT a:65536 HTTP/1.1\r\nHost: a\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"an octal port", "CONNECT a:0443 HTTP/1.1\r\nHost: a\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"a port by name", "CONNECT a:https HTTP/1.1\r\nHost: a\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"a user", "CONNECT ann:secret@a:443 HTTP/1.1\r\nHost: a\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"a zone", "CONNECT [fe80::1%25eth0]:443 HTTP/1.1\r\nHost: a\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"a number", "CONNECT 2130706433:443 HTTP/1.1\r\nHost: 2130706433\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"half an address", "CONNECT 127.1:443 HTTP/1.1\r\nHost: 127.1\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"everybody", "CONNECT 0.0.0.0:443 HTTP/1.1\r\nHost: 0.0.0.0\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"another Host", "CONNECT a:443 HTTP/1.1\r\nHost: b:443\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"no Host", "CONNECT a:443 HTTP/1.1\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"a body", "CONNECT a:443 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", nil, "", "", "400", attest.CodeProxyRequest},
		{"a bare LF", "CONNECT a:443 HTTP/1.1\nHost: a\n\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"NUL", "CONNECT a\x00:443 HTTP/1.1\r\nHost: a\r\n\r\n", nil, "", "", "400", attest.CodeProxyRequest},
		{"HTTP/3.0", "CONNECT a:443 HTTP/3.0\r\nHost: a\r\n\r\n", nil, "", "", "505", attest.CodeProxyRequest},
		{"too long a line", "CONNECT " + strings.Repeat("a", 9<<10), nil, "", "", "414", attest.CodeProxyRequest},
		{"too much to say", ok + "X: " + strings.Repeat("x", 17<<10), nil, "", "", "431", attest.CodeProxyRequest},
		{"too many fields", ok + strings.Repeat("X: y\r\n", 65) + end, nil, "", "", "431", attest.CodeProxyRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, piece := range []int{0, 1, 1000} {
				c := says(tt.say, piece)
				r, err := connect.Negotiate(t.Context(), c, tt.users)
				if attest.CodeOf(err) != tt.code || r == nil {
					t.Fatalf("in pieces of %d: got %v, %v", piece, r, err)
				}
				if r.Protocol() != connect.HTTP || r.Target() != tt.target || err == nil && string(r.Ahead())+c.rest() != tt.ahead || c.heard.Len() > 0 {
					t.Errorf("in pieces of %d: got %s %q %q, heard %q", piece, r.Protocol(), r.Target(), r.Ahead(), c.heard.String())
				}
				if err == nil {
					if err := r.Succeed(); err != nil || c.heard.String() != "HTTP/1.1 200 Connection established\r\n\r\n" {
						t.Errorf("heard %q, %v", c.heard.String(), err)
					}
					continue
				}
				if text := err.Error(); strings.Contains(strings.ToLower(text), "secret") || strings.Contains(text, "YW5u") {
					t.Errorf("tells a password: %s", text)
				}
				if err := r.Succeed(); err == nil || c.heard.Len() > 0 {
					t.Errorf("what was refused is granted: %v, %q", err, c.heard.String())
				}
				if err := r.Refuse(connect.Forbidden, message.Fields{{Name: "X-Why", Value: "so"}}, "no\n"); err != nil {
					t.Error(err)
				}
				checkRefusal(t, c.heard.String(), tt.status, tt.name == "HEAD")
			}
		})
	}
}

func checkRefusal(t *testing.T, got, status string, bodiless bool) {
	t.Helper()
	head, body, ok := strings.Cut(got, "\r\n\r\n")
	want := "no\n"
	if bodiless {
		want = ""
	}
	if !ok || body != want || !strings.HasPrefix(head, "HTTP/1.1 "+status+" ") || !strings.Contains(head, "\r\nX-Why: so\r\n") ||
		!strings.Contains(head, "\r\nContent-Length: 3\r\n") || !strings.HasSuffix(head, "\r\nConnection: close") {
		t.Errorf("got %q", got)
	}
	if strings.Contains(head, "\r\nAllow: CONNECT\r\n") != (status == "405") || strings.Contains(head, "\r\nProxy-Authenticate: Basic realm=") != (status == "407") {
		t.Errorf("got %q", got)
	}
}

// TestReasons: why a valid request comes to nothing is said as far as the protocol can.
func TestReasons(t *testing.T) {
	for reason, want := range map[connect.Reason]struct {
		socks  byte
		status string
	}{
		connect.Failed:         {1, "502"},
		connect.Forbidden:      {2, "403"},
		connect.NotAcceptable:  {2, "502"},
		connect.Unreachable:    {4, "502"},
		connect.NobodyListens:  {5, "502"},
		connect.NetUnreachable: {3, "502"},
	} {
		c := says(open+named, 0)
		r, err := connect.Negotiate(t.Context(), c, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.heard.Reset()
		if err := r.Refuse(reason, nil, "no\n"); err != nil || c.heard.String() != "\x05"+string(rune(want.socks))+"\x00\x01\x00\x00\x00\x00\x00\x00" {
			t.Errorf("%d: heard %q, %v", reason, c.heard.String(), err)
		}
		c = says("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 0)
		if r, err = connect.Negotiate(t.Context(), c, nil); err != nil {
			t.Fatal(err)
		}
		if err := r.Refuse(reason, message.Fields{{Name: "X-Why", Value: "so"}}, "no\n"); err != nil {
			t.Error(err)
		}
		checkRefusal(t, c.heard.String(), want.status, false)
	}
}

// TestOneAnswer: a client is told one thing.
func TestOneAnswer(t *testing.T) {
	for _, say := range []string{open + named, "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"} {
		c := says(say, 0)
		r, err := connect.Negotiate(t.Context(), c, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Refuse(connect.Failed, nil, ""); err != nil {
			t.Fatal(err)
		}
		before := c.heard.String()
		if r.Succeed() == nil || r.Refuse(connect.Failed, nil, "") == nil || c.heard.String() != before {
			t.Errorf("heard %q", c.heard.String())
		}
	}
	// What can't be said in HTTP is not said at all.
	c := says("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 0)
	r, _ := connect.Negotiate(t.Context(), c, nil)
	if err := r.Refuse(connect.Failed, message.Fields{{Name: "X", Value: "a\r\nY: b"}}, ""); err == nil || c.heard.Len() > 0 {
		t.Errorf("heard %q, %v", c.heard.String(), err)
	}
}

// TestOthers: whoever speaks something else is told nothing, but SOCKS4, which has words for it.
func TestOthers(t *testing.T) {
	for name, tt := range map[string]struct{ say, reason, told string }{
		"SOCKS4":        {"\x04\x01\x01\xbb\xc0\x00\x02\x01\x00", "SOCKS4", "\x00\x5b\x00\x00\x00\x00\x00\x00"},
		"SOCKS4a":       {"\x04\x01\x01\xbb\x00\x00\x00\x01\x00shop.example\x00", "SOCKS4", "\x00\x5b\x00\x00\x00\x00\x00\x00"},
		"TLS":           {"\x16\x03\x01\x00\x05hello", "TLS", ""},
		"HTTP/2":        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2", ""},
		"small letters": {"connect a:1 HTTP/1.1\r\nHost: a\r\n\r\n", "neither", ""},
		"SOCKS6":        {"\x06\x00", "neither", ""},
		"nothing":       {"", "ended", ""},
		"half a word":   {"CONN", "ended", ""},
		"half a SOCKS5": {"\x05\x01", "ended", ""},
	} {
		c := says(tt.say, 0)
		r, err := connect.Negotiate(t.Context(), c, nil)
		if attest.CodeOf(err) != attest.CodeProxyRequest || !strings.Contains(err.Error(), tt.reason) || (r != nil) != (tt.told != "") {
			t.Errorf("%s: got %v, %v", name, r, err)
			continue
		}
		if r != nil {
			if r.Protocol() != connect.SOCKS4 || r.Target() != "" || r.Succeed() == nil {
				t.Errorf("%s: got %s %q", name, r.Protocol(), r.Target())
			}
			_ = r.Refuse(connect.Failed, nil, "")
		}
		if c.heard.String() != tt.told {
			t.Errorf("%s: heard %q", name, c.heard.String())
		}
	}
}

// TestNegotiateIsBounded: a client that is slow, silent or does not read holds nobody up for longer than ctx.
func TestNegotiateIsBounded(t *testing.T) {
	for name, say := range map[string]string{"silent": "", "half a head": "CONNECT a", "half of SOCKS5": "\x05", "does not read": open} {
		t.Run(name, func(t *testing.T) {
			client, server := net.Pipe() // a write waits for its reader
			defer client.Close()
			defer server.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if say != "" {
				go func() { _, _ = io.WriteString(client, say) }()
			}
			r, err := connect.Negotiate(ctx, server, nil)
			if r != nil || attest.CodeOf(err) != attest.CodeTimeout || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, %v", r, err)
			}
		})
	}
	t.Run("the deadline is gone afterwards", func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		defer server.Close()
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, _ = io.WriteString(client, "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
			_, _ = io.ReadFull(client, make([]byte, 10))
			client.Close()
		}()
		r, err := connect.Negotiate(ctx, server, nil)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Succeed()
		if _, err := server.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("got %v", err)
		}
	})
}

// TestClients: clients that others wrote are understood.
func TestClients(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	// serve grants one request, and then is the target too.
	serve := func(users connect.Authenticate, target chan<- string) {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r, err := connect.Negotiate(t.Context(), c, users)
		if err != nil {
			target <- err.Error()
			_ = r.Refuse(connect.Failed, nil, "no\n")
			return
		}
		target <- r.Target()
		if r.Succeed() == nil {
			_, _ = io.Copy(c, c)
		}
	}
	for _, tt := range []struct {
		url   string
		users connect.Authenticate
	}{
		{"socks5h://", nil},
		{"socks5h://ann:secret@", ann},
		{"socks5h://ann:secret@", nil}, // it offers to be let in without
		{"http://", nil},
		{"http://ann:secret@", ann},
	} {
		for _, want := range []string{"shop.example:8443", "192.0.2.1:1", "[2001:db8::1]:443"} {
			target := make(chan string, 1)
			go serve(tt.users, target)
			u, err := url.Parse(tt.url + ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if u.Scheme == "socks5h" {
				var auth *proxy.Auth
				if u.User != nil {
					password, _ := u.User.Password()
					auth = &proxy.Auth{User: u.User.Username(), Password: password}
				}
				d, err := proxy.SOCKS5("tcp", u.Host, auth, nil)
				if err != nil {
					t.Fatal(err)
				}
				c, err := d.Dial("tcp", want)
				if err != nil {
					t.Fatalf("%s: %v", u, err)
				}
				if _, err := io.WriteString(c, "echo"); err != nil {
					t.Error(err)
				}
				echo := make([]byte, 4)
				if _, err := io.ReadFull(c, echo); err != nil || string(echo) != "echo" {
					t.Errorf("%s: %q, %v", u, echo, err)
				}
				c.Close()
			} else {
				tr := &http.Transport{Proxy: http.ProxyURL(u)}
				res, err := (&http.Client{Transport: tr}).Get("https://" + want + "/") // whose TLS meets an echo
				if err == nil {
					res.Body.Close()
					t.Errorf("%s: %s", u, res.Status)
				}
				tr.CloseIdleConnections()
			}
			if got := <-target; got != want {
				t.Errorf("%s: got %q, want %q", u, got, want)
			}
		}
	}
}
