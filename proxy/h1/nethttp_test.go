package h1_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/h1"
	"github.com/jurat-tls/jurat/proxy/message"
)

// What net/http makes of a message: whatever we accept it has to accept, and read alike. The exceptions, all of them:
//   - what is of one connection, and Host, is not among our fields;
//   - net/http adds Cache-Control: no-cache to Pragma: no-cache;
//   - net/http takes the Trailer field of a chunked message apart, and adds what it names to the trailers;
//   - we drop trailer fields that RFC 9110 section 6.5.1 lets only a head have;
//   - after 101 and after an answer to CONNECT net/http reads a body of its own idea; for us HTTP has ended.
const readerSize = 256 << 10 // net/http takes no trailer section that doesn't fit

func (s sample) readByNetHTTP() bool {
	b := s.message
	if s.what == "chunked" {
		b = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b
	}
	in := bufio.NewReaderSize(strings.NewReader(b), readerSize)
	var body io.ReadCloser
	if s.what == "response" {
		r, err := http.ReadResponse(in, &http.Request{Method: s.method})
		if err != nil {
			return false
		}
		body = r.Body
	} else {
		r, err := http.ReadRequest(in)
		if err != nil {
			return false
		}
		body = r.Body
	}
	_, err := io.Copy(io.Discard, body)
	return err == nil
}

// hidden are fields that are in no message.Fields.
func hidden(name string, request bool) bool {
	switch name {
	case "Host", "Expect":
		return request
	case "Connection", "Content-Length", "Http2-Settings", "Keep-Alive", "Proxy-Connection", "Te", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

func canonical(f message.Fields) http.Header {
	h := http.Header{}
	for _, f := range f {
		h[textproto.CanonicalMIMEHeaderKey(f.Name)] = append(h[textproto.CanonicalMIMEHeaderKey(f.Name)], f.Value)
	}
	return h
}

func compareFields(ours message.Fields, theirs http.Header, named []string, request, chunked bool) error {
	mine := canonical(ours)
	if p := mine["Pragma"]; len(p) > 0 && p[0] == "no-cache" && mine["Cache-Control"] == nil {
		delete(theirs, "Cache-Control")
	}
	if chunked {
		delete(mine, "Trailer")
	}
	for name := range theirs {
		if hidden(name, request) || slices.Contains(named, name) {
			delete(theirs, name)
		}
	}
	for name := range mine {
		if hidden(name, request) || slices.Contains(named, name) {
			return fmt.Errorf("%s is still there", name)
		}
	}
	if a, b := fmt.Sprintf("%q", mine), fmt.Sprintf("%q", theirs); a != b {
		return fmt.Errorf("fields %s, net/http says %s", a, b)
	}
	return nil
}

func namedIn(h http.Header) (named []string) {
	for _, v := range h["Connection"] {
		for option := range strings.SplitSeq(v, ",") {
			if option = textproto.CanonicalMIMEHeaderKey(strings.Trim(option, " \t")); option != "" && option != "Close" {
				named = append(named, option)
			}
		}
	}
	return named
}

// compareBody reads a body both ways. rest is what follows our head, in what follows theirs.
func compareBody(framing int64, rest []byte, body io.Reader, in *bufio.Reader, trailer func() http.Header) error {
	ours := feed(framing, rest, len(rest))
	theirs, err := io.ReadAll(body)
	if ours.err != nil || !ours.done && framing != h1.UntilClose {
		return nil // refused, or cut
	}
	if err != nil {
		return fmt.Errorf("net/http refuses the body %q: %w", rest, err)
	}
	if !bytes.Equal(ours.body, theirs) {
		return fmt.Errorf("body %q, net/http says %q", ours.body, theirs)
	}
	left, _ := io.ReadAll(in)
	if !bytes.Equal(rest[ours.n:], left) {
		return fmt.Errorf("%q follows, net/http says %q", rest[ours.n:], left)
	}
	if framing != h1.Chunked {
		return nil
	}
	mine, other := canonical(ours.trailers), http.Header{}
	for name, v := range trailer() {
		if len(v) > 0 && !dropped[name] {
			other[name] = v
		}
	}
	if a, b := fmt.Sprintf("%q", mine), fmt.Sprintf("%q", other); a != b {
		return fmt.Errorf("trailers %s, net/http says %s", a, b)
	}
	return nil
}

var dropped = func() map[string]bool {
	m := map[string]bool{}
	for name := range strings.FieldsSeq(`Age Authentication-Info Authorization Cache-Control Content-Encoding Content-Range Content-Type
		Cookie Date Expires Forwarded If-Match If-Modified-Since If-None-Match If-Range If-Unmodified-Since Location Max-Forwards
		Pragma Proxy-Authenticate Proxy-Authentication-Info Proxy-Authorization Range Retry-After Set-Cookie Vary Www-Authenticate`) {
		m[name] = true
	}
	return m
}()

// compareRequest answers how our reading of a request differs from that of net/http, for requests that we take.
func compareRequest(b []byte) error {
	var r message.Request
	m, err := h1.ParseRequest(b, h1.Limits{}, &r)
	if err != nil {
		return nil
	}
	in := bufio.NewReaderSize(bytes.NewReader(b), readerSize)
	other, err := http.ReadRequest(in)
	if err != nil {
		return fmt.Errorf("net/http refuses it: %w", err)
	}
	path, query, _ := strings.Cut(r.Path, "?")
	if path, err = url.PathUnescape(path); err != nil {
		return err
	}
	if r.Method == "OPTIONS" && r.Path == "*" && r.Scheme != "" {
		path = "" // RFC 9112 section 3.2.4
	}
	theirs := other.URL.Path
	if theirs == "" && r.Scheme != "" && r.Path != "*" {
		theirs = "/"
	}
	if r.Method == "CONNECT" && other.RequestURI != r.Authority || theirs != path || other.URL.RawQuery != query {
		return fmt.Errorf("%q, net/http says %q", r.Path, other.URL)
	}
	named := namedIn(other.Header)
	if slices.Contains(named, "Trailer") {
		delete(other.Trailer, "Trailer")
	}
	chunked := len(other.TransferEncoding) > 0
	length := max(r.Length, 0)
	if r.Length == message.Unknown {
		length = -1
	}
	switch {
	case r.Method != other.Method, r.Authority != other.Host, r.Scheme != other.URL.Scheme:
		return fmt.Errorf("%s of %s %s, net/http says %s of %s", r.Method, r.Scheme, r.Authority, other.Method, other.URL)
	case int(r.Version) != other.ProtoMajor*10+other.ProtoMinor:
		return fmt.Errorf("version %d", r.Version)
	case m.Persistent == other.Close:
		return fmt.Errorf("persistent %v, net/http says %v", m.Persistent, !other.Close)
	case length != other.ContentLength || (m.Body == h1.Chunked) != chunked:
		return fmt.Errorf("length %d, net/http says %d", r.Length, other.ContentLength)
	case r.Expect && !strings.EqualFold(other.Header.Get("Expect"), "100-continue"):
		return fmt.Errorf("expects what net/http does not see")
	case r.Upgrade != "" && other.Header.Get("Upgrade") != r.Upgrade:
		return fmt.Errorf("upgrade to %s, net/http says %s", r.Upgrade, other.Header.Get("Upgrade"))
	}
	if err := compareFields(r.Fields, other.Header, named, true, chunked); err != nil {
		return err
	}
	return compareBody(m.Body, b[m.Size:], other.Body, in, func() http.Header { return other.Trailer })
}

// compareResponse is compareRequest for a response to a method.
func compareResponse(b []byte, method string) error {
	var r message.Response
	m, err := h1.ParseResponse(b, h1.Limits{}, method, &r)
	if err != nil {
		return nil
	}
	in := bufio.NewReaderSize(bytes.NewReader(b), readerSize)
	other, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		return fmt.Errorf("net/http refuses it: %w", err)
	}
	_, reason, _ := strings.Cut(other.Status, " ")
	chunked := len(other.TransferEncoding) > 0
	named := namedIn(other.Header)
	switch {
	case r.Status != other.StatusCode, r.Reason != strings.Trim(reason, " \t"):
		return fmt.Errorf("status %d %q, net/http says %q", r.Status, r.Reason, other.Status)
	case m.Body == h1.Chunked && !chunked:
		return fmt.Errorf("chunks that net/http does not see")
	}
	tunnel := r.Status == 101 || method == "CONNECT" && r.Status/100 == 2
	if !tunnel {
		if m.Persistent == other.Close && !r.Bodiless(method) {
			return fmt.Errorf("persistent %v, net/http says %v", m.Persistent, !other.Close)
		}
		if m.Body >= 0 && r.Length >= 0 && !r.Bodiless(method) && r.Length != other.ContentLength {
			return fmt.Errorf("length %d, net/http says %d", r.Length, other.ContentLength)
		}
	}
	// net/http takes a Connection: close of a response away with all that is beside it.
	if other.Close && other.Header["Connection"] == nil {
		named = namedIn(connectionOf(b))
	}
	if err := compareFields(r.Fields, other.Header, named, false, chunked); err != nil || tunnel {
		return err
	}
	return compareBody(m.Body, b[m.Size:], other.Body, in, func() http.Header { return other.Trailer })
}

func connectionOf(b []byte) http.Header {
	tp := textproto.NewReader(bufio.NewReader(bytes.NewReader(b)))
	_, _ = tp.ReadLine()
	h, _ := tp.ReadMIMEHeader()
	return http.Header(h)
}

func TestLikeNetHTTP(t *testing.T) {
	for _, s := range corpus(t) {
		var err error
		switch s.what {
		case "request":
			err = compareRequest([]byte(s.message))
		case "response":
			err = compareResponse([]byte(s.message), s.method)
		case "chunked":
			err = compareRequest([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + s.message))
		}
		if err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}
