package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/message"
)

// requestBody carries the trailers over at its end, and remembers whether it was the client who broke off.
type requestBody struct {
	io.ReadCloser
	began  time.Time
	in     *http.Request
	out    http.Header // the announced trailers, without what names the client
	failed atomic.Bool
}

// passTrailers arranges for the client's trailers to reach the service: those that were announced and do not speak of
// the client's identity. A server that merges trailers into headers would otherwise take them for the proxy's.
func passTrailers(pr *httputil.ProxyRequest) {
	out := pr.Out
	out.Trailer = nil
	if out.Body == nil || out.Body == http.NoBody {
		return
	}
	body := &requestBody{ReadCloser: out.Body, began: time.Now(), in: pr.In}
	out.Body = body
	for name := range pr.In.Trailer {
		if !message.Identifies(name) {
			if body.out == nil {
				body.out = make(http.Header)
			}
			body.out[name] = nil
		}
	}
	if body.out != nil {
		out.Trailer = body.out
		out.ContentLength = -1 // HTTP/1.1 has trailers only where the body is chunked
	}
}

func (b *requestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		for name := range b.out {
			b.out[name] = b.in.Trailer[name]
		}
	default:
		b.failed.Store(true)
	}
	return n, err
}

// responseBody removes from the trailers what only the proxy may say. They are there once the body has ended.
type responseBody struct {
	io.ReadCloser
	res *http.Response
	log *slog.Logger
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		strip(b.res.Trailer, message.Ours)
	case b.res.Request.Context().Err() != nil: // the client has gone
	case grpcExpired(b.res.Request):
		if b.res.Trailer == nil {
			b.res.Trailer = make(http.Header)
		}
		sayExpired(b.res.Trailer)
		return n, io.EOF
	default:
		b.log.Error("the answer broke off", "code", string(attest.CodeBackendFailed), "error", plainError(err))
	}
	return n, err
}

func (b *responseBody) Close() error {
	err := b.ReadCloser.Close()
	strip(b.res.Trailer, message.Ours)
	return err
}

// plainError is err without what net/http quotes from a message: that may be a value of a header.
func plainError(err error) string {
	var coded *attest.Error
	var network interface{ Timeout() bool }
	switch {
	case errors.As(err, &coded), errors.As(err, &network):
		return err.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, errNotAsked):
		return err.Error()
	default:
		return "not an answer in HTTP"
	}
}
