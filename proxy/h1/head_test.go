package h1_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/h1"
	"github.com/jurat-tls/jurat/proxy/message"
)

func TestLimits(t *testing.T) {
	const first, last = "GET /12345 HTTP/1.1\r\n", "\r\n"
	three := "Host: a\r\nX: 1\r\nY: 2\r\n"
	all := first + three + last
	for _, c := range []struct {
		name, in string
		limits   h1.Limits
		status   int // 0 is right, -1 is not complete
	}{
		{"all within", all, h1.Limits{Head: len(all), Line: len(first) - 2, Fields: 3}, 0},
		{"head beyond", all, h1.Limits{Head: len(all) - 1}, 431},
		{"head beyond and incomplete", all[:len(all)-1], h1.Limits{Head: len(all) - 2}, 431},
		{"head to the limit and incomplete", all[:len(all)-1], h1.Limits{Head: len(all) - 1}, -1},
		{"line beyond", all, h1.Limits{Line: len(first) - 3}, 414},
		{"line to the limit and incomplete", first[:len(first)-2], h1.Limits{Line: len(first) - 2}, -1},
		{"line beyond and incomplete", first[:len(first)-1], h1.Limits{Line: len(first) - 4}, 414},
		{"fields beyond", all, h1.Limits{Fields: 2}, 431},
		{"line by default", "GET /" + strings.Repeat("a", 16<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", h1.Limits{}, 414},
		{"line by default within", "GET /" + strings.Repeat("a", 16000) + " HTTP/1.1\r\nHost: a\r\n\r\n", h1.Limits{}, 0},
		{"head by default", first + "Host: a\r\nX: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", h1.Limits{}, 431},
		{"head by default within", first + "Host: a\r\nX: " + strings.Repeat("a", 65000) + "\r\n\r\n", h1.Limits{}, 0},
		{"fields by default", first + "Host: a\r\n" + strings.Repeat("X: a\r\n", 128) + "\r\n", h1.Limits{}, 431},
		{"fields by default within", first + "Host: a\r\n" + strings.Repeat("X: a\r\n", 127) + "\r\n", h1.Limits{}, 0},
		{"a body is no part", all + strings.Repeat("x", 100), h1.Limits{Head: len(all)}, 0},
	} {
		check := func(kind string, err error, status int) {
			if status == 0 && err != nil || status == -1 && !errors.Is(err, h1.ErrMore) || status > 0 && !isStatus(err, status) {
				t.Errorf("%s, %s: %v", c.name, kind, err)
			}
		}
		_, err := h1.ParseRequest([]byte(c.in), c.limits, new(message.Request))
		check("request", err, c.status)
		// A status line of the same length.
		response := "HTTP/1.1 200 abcdef" + c.in[strings.IndexByte(c.in+"\r", '\r'):]
		if strings.HasPrefix(c.in, "GET /12345") {
			_, err = h1.ParseResponse([]byte(response), c.limits, "GET", new(message.Response))
			check("response", err, map[int]int{0: 0, -1: -1, 414: 502, 431: 502}[c.status])
		}
		if len(c.in) < 1000 {
			headInPieces(t, []byte(c.in), c.limits, func(b []byte, l h1.Limits) (string, error) {
				var r message.Request
				m, err := h1.ParseRequest(b, l, &r)
				return requestMeaning(&r, m), err
			})
		}
	}
}

func TestDefaults(t *testing.T) {
	want := h1.Limits{Head: 64 << 10, Line: 16 << 10, Fields: 128, Trailer: 8 << 10, Extensions: 4 << 10}
	if got := (h1.Limits{Head: -1}).WithDefaults(); got != want {
		t.Errorf("%+v", got)
	}
	want.Line = 5
	if got := (h1.Limits{Line: 5}).WithDefaults(); got != want {
		t.Errorf("%+v", got)
	}
}

// Every control character is refused wherever in a value it is, whatever is around it.
func TestControls(t *testing.T) {
	for c := range 256 {
		bad := c < ' ' && c != '\t' || c == 0x7f
		for at := range 20 {
			for _, around := range []string{"a", "\x80", "\xff", "~", " ", "\t"} {
				value := "x" + strings.Repeat(around, at) + string([]byte{byte(c)}) + strings.Repeat(around, 19-at) + "x"
				var r message.Request
				_, err := h1.ParseRequest([]byte("GET / HTTP/1.1\r\nHost: a\r\nX: "+value+"\r\n\r\n"), h1.Limits{}, &r)
				if bad != isStatus(err, 400) || !bad && (len(r.Fields) != 1 || r.Fields[0].Value != value) {
					t.Fatalf("%v: %v, %v", value, err, r.Fields)
				}
				out, _, err := h1.AppendRequest(nil, &message.Request{
					Method: "GET", Authority: "a", Path: "/", Length: message.NoBody, Fields: message.Fields{{Name: "X", Value: value}},
				}, false)
				if bad != isStatus(err, 400) || !bad && !strings.Contains(string(out), value) {
					t.Fatalf("%q: %v, written %q", value, err, out)
				}
			}
		}
	}
}

// Every byte in a name, a method and a target.
func TestBytes(t *testing.T) {
	for c := range 256 {
		s := string([]byte{byte(c)})
		token := strings.Contains("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", s)
		for _, p := range []struct {
			message string
			ok      bool
		}{
			{"GET / HTTP/1.1\r\nHost: a\r\nX" + s + "X: y\r\n\r\n", token || c == ':'},
			{"G" + s + "T / HTTP/1.1\r\nHost: a\r\n\r\n", token},
			{"GET /" + s + " HTTP/1.1\r\nHost: a\r\n\r\n", c > ' ' && c < 0x7f && c != '#' && c != '%'},
			{"GET / HTTP/1.1\r\nHost: a" + s + "a\r\n\r\n", token && !strings.Contains("!#$%&'*+^`|", s)},
		} {
			if _, err := h1.ParseRequest([]byte(p.message), h1.Limits{}, new(message.Request)); (err == nil) != p.ok {
				t.Errorf("%q: %v", p.message, err)
			}
		}
	}
}

// Names are known in every case of their letters, and nothing else is taken for them.
func TestNames(t *testing.T) {
	for _, name := range []string{
		"connection", "content-length", "expect", "http2-settings", "host", "keep-alive", "proxy-connection", "te", "trailer",
		"transfer-encoding", "upgrade",
	} {
		for i := range name {
			for _, c := range []byte{name[i] ^ 0x20, name[i] ^ 0x40, name[i] ^ 0x80, name[i] + 1, '_'} {
				other := name[:i] + string([]byte{c}) + name[i+1:]
				var r message.Request
				_, err := h1.ParseRequest(fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: a\r\n%s: ?\r\n\r\n", other), h1.Limits{}, &r)
				known := strings.EqualFold(other, name)
				kept := err == nil && len(r.Fields) == 1
				if known && kept || !known && !kept && !isStatus(err, 400) {
					t.Errorf("%q: %v, %v", other, err, r.Fields)
				}
			}
		}
	}
}

// What is wrong is said, where several things share a status.
func TestReasons(t *testing.T) {
	for in, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n":                 "a line starts with whitespace",
		"GET / HTTP/1.1\r\nHost : a\r\n\r\n":                      "whitespace before a colon",
		"GET / HTTP/1.1\r\nHost\r\n\r\n":                          "a field line has no name and colon",
		"GET / HTTP/1.1\r\n: a\r\n\r\n":                           "the name of a field is empty",
		"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n":                   "an empty line before the request",
		"GET / HTTP/1.1\nHost: a\n\n":                             "the request line ends in a bare LF",
		"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n":                 "a control character in the value of a field",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n": "Content-Length is not a number",
	} {
		_, err := h1.ParseRequest([]byte(in), h1.Limits{}, new(message.Request))
		if want := (h1.Error{Status: 400, Reason: want}); !errors.Is(err, want) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// The memory of fields is used again, and what a head left is not in the next one.
func TestReuse(t *testing.T) {
	var r message.Request
	if _, err := h1.ParseRequest([]byte("GET http://b/ HTTP/1.1\r\nHost: b\r\nX: 1\r\nY: 2\r\nTE: trailers\r\nConnection: upgrade\r\nUpgrade: a\r\n\r\n"), h1.Limits{}, &r); err != nil {
		t.Fatal(err)
	}
	before := &r.Fields[0]
	in := []byte("POST /c HTTP/1.0\r\nZ: 3\r\n\r\n")
	if _, err := h1.ParseRequest(in, h1.Limits{}, &r); err != nil {
		t.Fatal(err)
	}
	clear(in) // nothing points into it
	if got := requestMeaning(&r, h1.Meta{}); got != "POST ///c, last, 1.0 | Z: 3" || before != &r.Fields[0] || r.Upgrade != "" || r.Trailers {
		t.Errorf("%s, %+v", got, r)
	}
}
