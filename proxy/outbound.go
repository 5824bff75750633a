package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// NewOutbound joins every plain local connection with an attested one of its own to a peer. It moves bytes only, so that
// whatever the two ends speak passes exactly. Nothing is read for the peer before the peer is affirmed.
func NewOutbound(engine *Engine, dial Dial, logger *slog.Logger, limits Limits) *Server {
	return newOutbound(engine, func(ctx context.Context, _ net.Conn) (Conn, error) { return dial(ctx) }, logger, limits)
}

func newOutbound(engine *Engine, establish func(context.Context, net.Conn) (Conn, error), logger *slog.Logger, limits Limits) *Server {
	s := newServer(engine, limits, logger)
	s.establish = establish
	s.judge, s.outward = affirmedPeer, true
	s.refused = func(raw net.Conn, err error) {
		if s.ctx.Err() == nil {
			apologise(raw, err)
		}
		_ = raw.Close()
	}
	s.carry = func(raw net.Conn, l *link, logger *slog.Logger) {
		told := s.carriedOut(l, raw, "")
		join(engine, l, raw, s.limits.Tunnel, logger, told)
	}
	return s
}

// How long, and for how many bytes, a local client is listened to that cannot be served.
const (
	apologyTime  = time.Second
	apologyBytes = 256 << 10
)

// apologise tells a client that speaks HTTP/1 why it has no connection. Whoever speaks something else is told nothing:
// any byte could mean something there.
func apologise(raw net.Conn, err error) {
	_ = raw.SetDeadline(time.Now().Add(apologyTime))
	method, ok := httpMethod(raw)
	if !ok {
		return
	}
	text := apology(err)
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"+
		"Content-Length: %d\r\n%s: %s\r\nConnection: close\r\n\r\n", len(text), HeaderError, attest.CodeOf(err))
	if method != http.MethodHead {
		b.WriteString(text)
	}
	if _, err := raw.Write(b.Bytes()); err == nil {
		hangUp(raw)
	}
}

// apology says what is wrong and what to do next.
func apology(err error) string {
	text := fmt.Sprintf("jurat: %v\n", err)
	var coded *attest.Error
	if errors.As(err, &coded) {
		text += "next: " + coded.Remedy() + "\n"
	}
	return text
}

// hangUp ends raw behind an answer. Closing while the request is still arriving would reset the connection, and the answer
// with it.
func hangUp(raw net.Conn) {
	if c, ok := raw.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, raw, apologyBytes)
}

// httpMethod reads the first word of what could be a request. "PRI", which opens HTTP/2, is none.
func httpMethod(raw io.Reader) (string, bool) {
	var word []byte
	for c := make([]byte, 1); len(word) <= len(http.MethodOptions); {
		if _, err := raw.Read(c); err != nil {
			return "", false
		}
		if c[0] != ' ' {
			word = append(word, c[0])
			continue
		}
		switch method := string(word); method {
		case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
			http.MethodConnect, http.MethodOptions, http.MethodTrace:
			return method, true
		}
		return "", false
	}
	return "", false
}
