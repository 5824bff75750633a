package h1_test

import (
	"net/textproto"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/proxy/h1"
	"github.com/jurat-tls/jurat/proxy/message"
)

func canonicalName(name string) string { return textproto.CanonicalMIMEHeaderKey(name) }

// roomy are limits that what a test writes is within.
func roomy(n int) h1.Limits { return h1.Limits{Head: n + 1, Line: n + 1} }

// writtenRequest writes r behind other bytes. Where that is refused nothing has been written; else it reads as r again, to
// us and to net/http. The answer is whether it was written.
func writtenRequest(t testing.TB, r *message.Request, closing bool) bool {
	t.Helper()
	const before = "before"
	out, wrote, err := h1.AppendRequest([]byte(before), r, closing)
	if err != nil {
		if !isStatus(err, 400) || string(out) != before || wrote != (h1.Meta{}) {
			t.Fatalf("%+v is refused with %v, %q, %+v", r, err, out, wrote)
		}
		return false
	}
	out = out[len(before):]
	want := *r
	want.Scheme, want.Version = "", message.HTTP11
	want.Expect = r.Expect && wrote.Body != 0
	var got message.Request
	read, err := h1.ParseRequest(out, roomy(len(out)), &got)
	if len(want.Fields) == 0 {
		want.Fields = got.Fields
	}
	if err != nil || !reflect.DeepEqual(got, want) || read != wrote || read.Size != len(out) || read.Persistent == closing {
		t.Fatalf("%+v became %q, and that %+v, %v, %+v instead of %+v", want, out, got, err, read, wrote)
	}
	if !strings.HasPrefix(string(out[strings.Index(string(out), "\r\n"):]), "\r\nHost: "+r.Authority+"\r\n") {
		t.Fatalf("Host is not first: %q", out)
	}
	if err := compareRequest(out); err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return true
}

func writtenResponse(t testing.TB, r *message.Response, to h1.Reply) bool {
	t.Helper()
	const before = "before"
	out, wrote, err := h1.AppendResponse([]byte(before), r, to)
	if err != nil {
		if !isStatus(err, 502) || string(out) != before || wrote != (h1.Meta{}) {
			t.Fatalf("%+v is refused with %v, %q, %+v", r, err, out, wrote)
		}
		return false
	}
	out = out[len(before):]
	want := *r
	final := r.Status >= 200
	tunnel := r.Status == 101 || to.Method == "CONNECT" && r.Status/100 == 2
	switch {
	case !final || r.Status == 204 || tunnel, r.Bodiless(to.Method) && r.Length == message.Unknown:
		want.Length = message.NoBody
	case r.Length == message.NoBody && !r.Bodiless(to.Method):
		want.Length = 0
	}
	var got message.Response
	read, err := h1.ParseResponse(out, roomy(len(out)), to.Method, &got)
	if len(want.Fields) == 0 {
		want.Fields = got.Fields
	}
	if final || tunnel {
		if wrote.Persistent && !to.Keep {
			t.Fatalf("%q says that the connection stays", out)
		}
	} else {
		wrote.Persistent = true // nothing is said
	}
	if err != nil || !reflect.DeepEqual(got, want) || read != wrote || read.Size != len(out) {
		t.Fatalf("%+v became %q, and that %+v, %v, %+v instead of %+v", want, out, got, err, read, wrote)
	}
	if to.Version != message.HTTP11 && (read.Body == h1.Chunked || !final) {
		t.Fatalf("%q is for no HTTP/1.0", out)
	}
	if err := compareResponse(out, to.Method); err != nil && to.Method != "" {
		t.Fatalf("%q: %v", out, err)
	}
	return true
}

var (
	tokens = rapid.StringMatching("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}")
	values = rapid.StringMatching("([!-~\u0080-\u00ff]([\t -~\u0080-\u00ff]{0,40}[!-~])?)?")
	hosts  = rapid.StringMatching(`([0-9A-Za-z._~-]{1,20}|\[::[0-9a-f]{1,4}\])(:[0-9]{1,4})?`)
	fields = rapid.Custom(func(t *rapid.T) message.Fields {
		f := message.Fields{}
		for range rapid.IntRange(0, 20).Draw(t, "fields") {
			f = append(f, message.Field{Name: "X-" + tokens.Draw(t, "name"), Value: values.Draw(t, "value")})
		}
		return f
	})
	lengths = rapid.OneOf(rapid.Just(message.NoBody), rapid.Just(message.Unknown), rapid.Int64Range(0, 1e18-1))
)

// What can be said in HTTP/1.1 is written, and read as what it was.
func TestWriteRequests(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := message.Request{
			Method: "X" + tokens.Draw(rt, "method"), Authority: hosts.Draw(rt, "host"),
			Path:   rapid.StringMatching(`/([!$&-~]|%[0-9a-fA-F]{2}){0,30}(\?[!-"$-~]{0,30})?`).Draw(rt, "path"),
			Fields: fields.Draw(rt, "fields"), Length: lengths.Draw(rt, "length"),
			Expect: rapid.Bool().Draw(rt, "expect"), Trailers: rapid.Bool().Draw(rt, "trailers"),
		}
		closing := rapid.Bool().Draw(rt, "close")
		if !closing && r.Length <= 0 && r.Length != message.Unknown && rapid.Bool().Draw(rt, "upgrades") {
			r.Upgrade = tokens.Draw(rt, "protocol")
		}
		if !writtenRequest(t, &r, closing) {
			rt.Fatalf("%+v is refused", r)
		}
	})
}

func TestWriteResponses(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := message.Response{
			Status: rapid.IntRange(200, 999).Draw(rt, "status"), Reason: values.Draw(rt, "reason"),
			Fields: fields.Draw(rt, "fields"), Length: lengths.Draw(rt, "length"),
		}
		to := h1.Reply{
			Method:  rapid.SampledFrom([]string{"GET", "HEAD", "POST", "CONNECT"}).Draw(rt, "method"),
			Version: rapid.SampledFrom([]message.Version{0, message.HTTP10, message.HTTP11}).Draw(rt, "version"),
			Keep:    rapid.Bool().Draw(rt, "keep"),
		}
		if !writtenResponse(t, &r, to) && r.Status != 204 {
			rt.Fatalf("%+v is refused", r)
		}
	})
}

func TestAppendRequest(t *testing.T) {
	base := message.Request{Method: "GET", Authority: "a", Path: "/", Length: message.NoBody}
	for _, c := range []struct {
		name   string
		change func(*message.Request)
		close  bool
		want   string // "" is refused
	}{
		{"plain", func(r *message.Request) {}, false, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"close", func(r *message.Request) {}, true, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"},
		{
			"fields", func(r *message.Request) {
				r.Fields = message.Fields{{Name: "b", Value: "c"}, {Name: "D"}}
				r.Length = 0
			}, false,
			"GET / HTTP/1.1\r\nHost: a\r\nb: c\r\nD: \r\nContent-Length: 0\r\n\r\n",
		},
		{
			"chunked", func(r *message.Request) { r.Length = message.Unknown; r.Expect = true }, false,
			"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
		},
		{
			"nothing to expect", func(r *message.Request) { r.Expect = true; r.Length = 0 }, false,
			"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
		},
		{"trailers", func(r *message.Request) { r.Trailers = true }, false, "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n"},
		{
			"trailers, close", func(r *message.Request) { r.Trailers = true }, true,
			"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n",
		},
		{
			"upgrade", func(r *message.Request) { r.Upgrade = "websocket" }, false,
			"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
		},
		{
			"upgrade, trailers", func(r *message.Request) { r.Upgrade = "a/1"; r.Trailers = true }, false,
			"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: upgrade, TE\r\nUpgrade: a/1\r\n\r\n",
		},
		{
			"connect", func(r *message.Request) { r.Method = "CONNECT"; r.Authority = "a:1"; r.Path = "" }, false,
			"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
		},
		{"options", func(r *message.Request) { r.Method = "OPTIONS"; r.Path = "*" }, false, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"a scheme is of the connection", func(r *message.Request) { r.Scheme = "https" }, false, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},

		{"no method", func(r *message.Request) { r.Method = "" }, false, ""},
		{"a method with a request", func(r *message.Request) { r.Method = "GET / HTTP/1.1\r\nX:" }, false, ""},
		{"preface", func(r *message.Request) { r.Method = "PRI" }, false, ""},
		{"no path", func(r *message.Request) { r.Path = "" }, false, ""},
		{"a path with a version", func(r *message.Request) { r.Path = "/ HTTP/1.0" }, false, ""},
		{"a path with a line", func(r *message.Request) { r.Path = "/\r\n" }, false, ""},
		{"a path with high bytes", func(r *message.Request) { r.Path = "/\xc3\xa9" }, false, ""},
		{"a fragment", func(r *message.Request) { r.Path = "/#a" }, false, ""},
		{"half an escape", func(r *message.Request) { r.Path = "/%2" }, false, ""},
		{"a URL for a path", func(r *message.Request) { r.Path = "http://a/" }, false, ""},
		{"star of GET", func(r *message.Request) { r.Path = "*" }, false, ""},
		{"OPTIONS of no path", func(r *message.Request) { r.Method = "OPTIONS"; r.Path = "b" }, false, ""},
		{"no authority", func(r *message.Request) { r.Authority = "" }, false, ""},
		{"an authority with a line", func(r *message.Request) { r.Authority = "a\r\nX: b" }, false, ""},
		{"an authority with a user", func(r *message.Request) { r.Authority = "u@a" }, false, ""},
		{"connect with a path", func(r *message.Request) { r.Method = "CONNECT"; r.Authority = "a:1" }, false, ""},
		{"connect without a port", func(r *message.Request) { r.Method = "CONNECT"; r.Path = "" }, false, ""},
		{"connect with a body", func(r *message.Request) { r.Method = "CONNECT"; r.Authority = "a:1"; r.Path = ""; r.Length = 0 }, false, ""},
		{"extended connect", func(r *message.Request) {
			r.Method = "CONNECT"
			r.Authority = "a:1"
			r.Path = ""
			r.Upgrade = "websocket"
		}, false, ""},
		{"upgrade with a body", func(r *message.Request) { r.Upgrade = "a"; r.Length = 1 }, false, ""},
		{"upgrade and close", func(r *message.Request) { r.Upgrade = "a" }, true, ""},
		{"upgrade to two", func(r *message.Request) { r.Upgrade = "a, b" }, false, ""},
		{"upgrade with a line", func(r *message.Request) { r.Upgrade = "a\r\nX: b" }, false, ""},
		{"a length that is none", func(r *message.Request) { r.Length = -3 }, false, ""},
		{"a length beyond reading", func(r *message.Request) { r.Length = 1e18 }, false, ""},
	} {
		r := base
		c.change(&r)
		out, _, err := h1.AppendRequest(nil, &r, c.close)
		if string(out) != c.want || (c.want == "") != isStatus(err, 400) {
			t.Errorf("%s: %q, %v", c.name, out, err)
		}
		writtenRequest(t, &r, c.close)
	}
}

// Fields that would be read as something else are in no head that is written, and in no trailer section.
func TestAppendNoSuchField(t *testing.T) {
	refused := message.Fields{
		{Name: "", Value: "a"},
		{Name: "a b", Value: "a"},
		{Name: "a:", Value: "a"},
		{Name: "a\r\nb", Value: "a"},
		{Name: ":path", Value: "a"},
		{Name: "\u00e9", Value: "a"},
		{Name: "a", Value: "b\r\nc: d"},
		{Name: "a", Value: "b\nc: d"},
		{Name: "a", Value: "b\rc: d"},
		{Name: "a", Value: "\x00"},
		{Name: "a", Value: "0123456789abcdef\x7f"},
		{Name: "a", Value: " b"},
		{Name: "a", Value: "b\t"},
		{Name: "trailer", Value: "content-length"},
		{Name: "host", Value: "b"},
		{Name: "expect", Value: "100-continue"},
		{Name: "Content-Length", Value: "0"},
		{Name: "transfer-encoding", Value: "chunked"},
		{Name: "CONNECTION", Value: "close"},
		{Name: "keep-alive", Value: "a"},
		{Name: "proxy-connection", Value: "a"},
		{Name: "te", Value: "trailers"},
		{Name: "upgrade", Value: "a"},
		{Name: "http2-settings", Value: "a"},
	}
	for _, f := range refused {
		fields := message.Fields{{Name: "x", Value: "y"}, f, {Name: "z", Value: ""}}
		q := message.Request{Method: "GET", Authority: "a", Path: "/", Length: message.NoBody, Fields: fields}
		if writtenRequest(t, &q, false) {
			t.Errorf("%v in a request", f)
		}
		// Host and Expect are of no meaning in a response.
		special := f.Name == "host" || f.Name == "expect"
		r := message.Response{Status: 200, Fields: fields, Length: message.NoBody}
		if writtenResponse(t, &r, h1.Reply{Method: "GET", Version: message.HTTP11}) != special {
			t.Errorf("%v in a response", f)
		}
		if out, err := h1.AppendLastChunk(nil, fields); !isStatus(err, 502) || out != nil {
			t.Errorf("%v in a trailer section: %q, %v", f, out, err)
		}
	}
}

func TestAppendResponse(t *testing.T) {
	keep := h1.Reply{Method: "GET", Version: message.HTTP11, Keep: true}
	old := h1.Reply{Method: "GET", Version: message.HTTP10, Keep: true}
	for _, c := range []struct {
		name string
		r    message.Response
		to   h1.Reply
		want string // "" is refused
		body int64
		kept bool
	}{
		{"length", message.Response{Status: 200, Reason: "OK", Length: 3}, keep, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 3, true},
		{
			"last",
			message.Response{Status: 200, Length: 3},
			h1.Reply{Method: "GET", Version: message.HTTP11},
			"HTTP/1.1 200 \r\nContent-Length: 3\r\nConnection: close\r\n\r\n", 3, false,
		},
		{"chunked", message.Response{Status: 200, Length: message.Unknown}, keep, "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", h1.Chunked, true},
		{"no body, said", message.Response{Status: 200, Length: message.NoBody}, keep, "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 0, true},
		{"1.0", message.Response{Status: 200, Length: 3}, old, "HTTP/1.1 200 \r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n", 3, true},
		{"1.0 until close", message.Response{Status: 200, Length: message.Unknown}, old, "HTTP/1.1 200 \r\nConnection: close\r\n\r\n", h1.UntilClose, false},
		{"to nothing", message.Response{Status: 200, Length: message.Unknown}, h1.Reply{}, "HTTP/1.1 200 \r\nConnection: close\r\n\r\n", h1.UntilClose, false},
		{
			"HEAD",
			message.Response{Status: 200, Length: 3},
			h1.Reply{Method: "HEAD", Version: message.HTTP11, Keep: true},
			"HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\n", 0, true,
		},
		{
			"HEAD of what is chunked",
			message.Response{Status: 200, Length: message.Unknown},
			h1.Reply{Method: "HEAD", Version: message.HTTP11, Keep: true},
			"HTTP/1.1 200 \r\n\r\n", 0, true,
		},
		{
			"HEAD of what is until close, 1.0",
			message.Response{Status: 200, Length: message.Unknown},
			h1.Reply{Method: "HEAD", Version: message.HTTP10, Keep: true},
			"HTTP/1.1 200 \r\nConnection: keep-alive\r\n\r\n", 0, true,
		},
		{"304", message.Response{Status: 304, Length: 3}, keep, "HTTP/1.1 304 \r\nContent-Length: 3\r\n\r\n", 0, true},
		{"204", message.Response{Status: 204, Length: 0}, keep, "HTTP/1.1 204 \r\n\r\n", 0, true},
		{"204 with a body", message.Response{Status: 204, Length: 3}, keep, "", 0, false},
		{"103", message.Response{Status: 103, Length: message.NoBody}, h1.Reply{Method: "GET", Version: message.HTTP11}, "HTTP/1.1 103 \r\n\r\n", 0, false},
		{"103 to 1.0", message.Response{Status: 103, Length: message.NoBody}, old, "", 0, false},
		{
			"101",
			message.Response{Status: 101, Upgrade: "websocket", Length: message.NoBody},
			keep,
			"HTTP/1.1 101 \r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", 0, false,
		},
		{"101 without a protocol", message.Response{Status: 101, Length: message.NoBody}, keep, "", 0, false},
		{"101 with a line", message.Response{Status: 101, Upgrade: "a\r\nb", Length: message.NoBody}, keep, "", 0, false},
		{"a protocol without 101", message.Response{Status: 200, Upgrade: "a"}, keep, "", 0, false},
		{"tunnel", message.Response{Status: 200, Length: 3}, h1.Reply{Method: "CONNECT", Version: message.HTTP11, Keep: true}, "HTTP/1.1 200 \r\n\r\n", 0, false},
		{
			"no tunnel",
			message.Response{Status: 403, Length: 3},
			h1.Reply{Method: "CONNECT", Version: message.HTTP11, Keep: true},
			"HTTP/1.1 403 \r\nContent-Length: 3\r\n\r\n", 3, true,
		},
		{"no status", message.Response{Length: 3}, keep, "", 0, false},
		{"a status of two digits", message.Response{Status: 99}, keep, "", 0, false},
		{"a status of four digits", message.Response{Status: 1000}, keep, "", 0, false},
		{"a reason with a line", message.Response{Status: 200, Reason: "OK\r\nX: y"}, keep, "", 0, false},
		{"a reason with a control", message.Response{Status: 200, Reason: "\x1b[2J"}, keep, "", 0, false},
		{"a length that is none", message.Response{Status: 200, Length: -3}, keep, "", 0, false},
		{"a length that is none, and not said", message.Response{Status: 304, Length: -5}, keep, "", 0, false},
		{"a length beyond reading", message.Response{Status: 200, Length: 1e18}, keep, "", 0, false},
	} {
		out, m, err := h1.AppendResponse(nil, &c.r, c.to)
		if string(out) != c.want || (c.want == "") != isStatus(err, 502) || m.Body != c.body || m.Persistent != c.kept {
			if c.name == "103" && m.Persistent == c.to.Keep && string(out) == c.want {
				continue
			}
			t.Errorf("%s: %q, %+v, %v", c.name, out, m, err)
		}
		writtenResponse(t, &c.r, c.to)
	}
}

func TestAppendChunk(t *testing.T) {
	if out := h1.AppendChunk([]byte("a"), nil); string(out) != "a" {
		t.Errorf("an empty chunk is the last one: %q", out)
	}
	out := h1.AppendChunk(nil, []byte(strings.Repeat("x", 31)))
	out = append(h1.AppendChunkSize(out, 5), "hello"+h1.ChunkEnd...)
	out, err := h1.AppendLastChunk(out, message.Fields{{Name: "X", Value: "y"}, {Name: "Cookie", Value: "z"}})
	if want := "1f\r\n" + strings.Repeat("x", 31) + "\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n"; string(out) != want || err != nil {
		t.Errorf("%q, %v", out, err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a size of 0 would end the body")
		}
	}()
	h1.AppendChunkSize(nil, 0)
}
