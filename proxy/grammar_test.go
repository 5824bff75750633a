package proxy_test

import (
	"fmt"
	"strings"

	"pgregory.net/rapid"
)

// seldom is true once in a while, the more seldom the greater n is. What rapid makes smaller becomes usual.
func seldom(t *rapid.T, n int) bool { return rapid.IntRange(0, n).Draw(t, "unusual") == n }

// mostly draws the first of the choices most of the time.
func mostly(t *rapid.T, choices ...string) string {
	if !seldom(t, 49) {
		return choices[0]
	}
	return rapid.SampledFrom(choices).Draw(t, "choice")
}

// anyRequest makes a request that is right but for a thing or two.
func anyRequest(t *rapid.T) string {
	eol := func() string { return mostly(t, "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", "\n\r\n") }
	var b strings.Builder
	if seldom(t, 3) {
		b.WriteString(rapid.SampledFrom([]string{"POST", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "CONNECT", "PRI", "get", "M-SEARCH", "G(T", ""}).Draw(t, "method"))
	} else {
		b.WriteString(rapid.SampledFrom([]string{"GET", "POST"}).Draw(t, "method"))
	}
	b.WriteString(mostly(t, " ", "  ", "\t", ""))
	b.WriteString(mostly(t, "/", "/a/b?c=d&e", "/a%2fb", "/%", "/%zz?%zz", "/?", "*", "http://a/x", "HTTP://a?x", "http://a", "http://a:80/", "http://b/", "http://u@a/",
		"https://a/", "ftp://a/", "//a/b", "a:443", "/a b", "/\xe9", "/a#b", "/\x00", "/;a=b", "/a\\b", ""))
	b.WriteString(mostly(t, " ", "  ", "\t", ""))
	b.WriteString(mostly(t, "HTTP/1.1", "HTTP/1.0", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.1 ", "HTTP/01.1", ""))
	b.WriteString(eol())
	if host := mostly(t, "Host: a", "Host: a", "host:a", "Host: b", "Host: a:80", "Host: [::1]:1", "Host: a:b", "Host:\ta", "Host: ", "Host: a, b", "Host : a", "Host: a\r\n c", ""); host != "" {
		b.WriteString(host + eol())
	}
	fields(t, &b, eol)
	body := rapid.SampledFrom([]string{"", "x", "hello", "GET /in HTTP/1.1\r\nHost: a\r\n\r\n", "0\r\n\r\n", strings.Repeat("z", 300)}).Draw(t, "body")
	framed(t, &b, body, eol)
	return spoilt(t, b.String())
}

// anyResponse makes a response that is right but for a thing or two, now and then with others before it.
func anyResponse(t *rapid.T) string {
	eol := func() string { return mostly(t, "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\r\n", "\n\r\n") }
	var b strings.Builder
	if seldom(t, 5) {
		b.WriteString("HTTP/1.1 " + rapid.SampledFrom([]string{"103 Early Hints", "100 Continue", "102", "199 x"}).Draw(t, "hint") + eol())
		if seldom(t, 1) {
			b.WriteString("Link: </a>" + eol())
		}
		if seldom(t, 9) {
			fields(t, &b, eol)
		}
		b.WriteString(eol())
	}
	b.WriteString(mostly(t, "HTTP/1.1", "HTTP/1.0", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/2", "http/1.1", "HTTP/1.1 ", "ICY", "HTTP/1.10", "HTTP/11.1", ""))
	b.WriteString(mostly(t, " ", "  ", "\t", ""))
	b.WriteString(mostly(t, "200", "204", "304", "206", "301", "404", "500", "502", "101", "100", "199", "099", "1000", "20", "2xx", "+200", "000", "999", "204", "304"))
	b.WriteString(mostly(t, " OK", "", " ", " Not OK", "  two", "\tOK", " \x00", " \r", " caf\xe9", "OK") + eol())
	fields(t, &b, eol)
	body := rapid.SampledFrom([]string{"", "x", "hello", "HTTP/1.1 200 OK\r\nX-In: y\r\nContent-Length: 0\r\n\r\n", "0\r\n\r\n", strings.Repeat("z", 300)}).Draw(t, "body")
	framed(t, &b, body, eol)
	if seldom(t, 9) {
		b.WriteString(rapid.SampledFrom([]string{"HTTP/1.1 200 OK\r\nX-Behind: y\r\nContent-Length: 0\r\n\r\n", "x", "\r\n"}).Draw(t, "behind"))
	}
	return spoilt(t, b.String())
}

// fields writes some.
func fields(t *rapid.T, b *strings.Builder, eol func() string) {
	for range rapid.IntRange(0, 4).Draw(t, "fields") {
		b.WriteString(rapid.SampledFrom([]string{
			"X-A", "x-a", "Accept", "Cookie", "Connection", "Keep-Alive", "TE", "Trailer", "Upgrade", "Expect", "Pragma", "Cache-Control", "Date", "X_Y", "Content_Length",
			"Transfer_Encoding", "Jurat-Result", "X-Forwarded-For", "jurat.result", "Proxy-Connection", "Content-Type", "Set-Cookie", "X-Empty", "X(", "Location", "Proxy", "Content-Length", "Transfer-Encoding",
		}).Draw(t, "name"))
		b.WriteString(mostly(t, ": ", ":", ":\t", " : ", ":  ", ""))
		b.WriteString(rapid.SampledFrom([]string{
			"", "a", "a, b", "close", "keep-alive", "upgrade", "Upgrade, close", "x-a", "X-A, close", "trailers", "trailers, deflate;q=0.5", "websocket", "h2c", "100-continue",
			"100-Continue", "101-no", "no-cache", "X-Sum", "Content-Length", "\"q\"", "a\tb", "caf\xc3\xa9", "\x00", "a\rb", "5", "0", "chunked", "gzip", "host", "a  ", "date", "te",
		}).Draw(t, "value"))
		b.WriteString(eol())
	}
}

// framed writes how long the body is, the end of the head, and the body.
func framed(t *rapid.T, b *strings.Builder, body string, eol func() string) {
	switch rapid.IntRange(0, 5).Draw(t, "framing") {
	case 0, 1:
		if body != "" {
			b.WriteString("Content-Length: " + mostly(t, fmt.Sprint(len(body)), fmt.Sprint(len(body)+1), fmt.Sprint(len(body)-1), "0"+fmt.Sprint(len(body)), "+1", "1, 1", " 1 ", "99999", "1x") + eol())
		}
		b.WriteString(eol() + body)
	case 2, 3:
		b.WriteString("Transfer-Encoding: " + mostly(t, "chunked", "Chunked", "chunked ", "\tchunked", "gzip, chunked", "chunked, chunked", "identity", "xchunked", "\"chunked\"") + eol())
		if seldom(t, 19) {
			b.WriteString(fmt.Sprintf("Content-Length: %d", len(body)) + eol())
		}
		b.WriteString(eol())
		for rest := body; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "chunk")
			b.WriteString(mostly(t, fmt.Sprintf("%x", n), fmt.Sprintf("%X", n), fmt.Sprintf("0%x", n), fmt.Sprintf("%x;a=b", n), fmt.Sprintf("%x;a=\"\r\n\"", n), fmt.Sprintf("%x ", n),
				fmt.Sprintf("0x%x", n), fmt.Sprintf("%x", n+1), fmt.Sprintf("%x;\x00", n), "ffffffffffffffff", "10000000000000000", "") + eol())
			b.WriteString(rest[:n] + eol())
			rest = rest[n:]
		}
		b.WriteString(mostly(t, "0", "00", "0;a", "0 ", "") + eol())
		if seldom(t, 3) {
			b.WriteString(rapid.SampledFrom([]string{"X-Sum: 1", "X-Sum:1", "Date: x", "Content-Length: 5", "Transfer-Encoding: chunked", "Host: b", "Jurat-Result: x", "X : y", "X", " X: y", "Connection: close", "Jurat_Error: 1", "X: \x00"}).Draw(t, "trailer") + eol())
		}
		b.WriteString(eol())
	default:
		b.WriteString(eol())
		if seldom(t, 9) {
			b.WriteString(body)
		}
	}
}

// spoilt takes something out of a message, now and then, or puts something in.
func spoilt(t *rapid.T, s string) string {
	if s == "" || !seldom(t, 19) {
		return s
	}
	i := rapid.IntRange(0, len(s)-1).Draw(t, "at")
	switch rapid.IntRange(0, 2).Draw(t, "how") {
	case 0:
		return s[:i] + s[min(len(s), i+rapid.IntRange(1, 4).Draw(t, "out")):]
	case 1:
		return s[:i] + string(rapid.SampledFrom([]byte("\x00\t\n\r :;,0aZ\x7f\xff%\"")).Draw(t, "in")) + s[i:]
	default:
		return s[:i] + s[max(0, i-rapid.IntRange(1, 40).Draw(t, "again")):]
	}
}
