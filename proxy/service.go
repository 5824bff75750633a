package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/message"
)

// service is the way to the backend: one pool of connections for each manner of speaking to it.
type service struct {
	backend      Backend
	h1, h2, grpc *http.Transport
	log          *slog.Logger
}

func newService(b Backend, limits Limits, logger *slog.Logger) *service {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return b.dial(ctx, limits.Connect) }
	transport := func(http2 bool, answer time.Duration) *http.Transport {
		protocols := new(http.Protocols)
		protocols.SetHTTP1(!http2)
		protocols.SetUnencryptedHTTP2(http2)
		return &http.Transport{
			DialContext:            dial,
			Protocols:              protocols,
			HTTP2:                  backendHTTP2(),
			DisableCompression:     true, // bytes pass as they are
			MaxIdleConnsPerHost:    256,
			IdleConnTimeout:        4 * time.Second, // below the 5 s after which Node closes, or a request would meet the close
			ResponseHeaderTimeout:  answer,
			ExpectContinueTimeout:  time.Second,
			MaxResponseHeaderBytes: maxBackHeader,
			ReadBufferSize:         16 << 10,
			WriteBufferSize:        16 << 10,
		}
	}
	return &service{
		backend: b, log: logger,
		h1: transport(false, limits.Answer), h2: transport(true, limits.Answer), grpc: transport(true, 0),
	}
}

// inboundHTTP2 bounds what a client can make us hold; pings find clients that have gone.
func inboundHTTP2() *http.HTTP2Config {
	return &http.HTTP2Config{
		MaxConcurrentStreams:          maxStreams,
		MaxReceiveBufferPerConnection: 1 << 20,
		MaxReceiveBufferPerStream:     512 << 10,
		SendPingTimeout:               30 * time.Second,
		PingTimeout:                   15 * time.Second,
		WriteByteTimeout:              30 * time.Second,
	}
}

// backendHTTP2 sends no pings: gRPC servers close connections that ping more often than they like.
func backendHTTP2() *http.HTTP2Config {
	return &http.HTTP2Config{MaxReceiveBufferPerConnection: 1 << 20, MaxReceiveBufferPerStream: 512 << 10}
}

func (s *service) close() {
	for _, t := range []*http.Transport{s.h1, s.h2, s.grpc} {
		t.CloseIdleConnections()
	}
}

// RoundTrip sends r to the service.
func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	// An informational answer passes ModifyResponse by; what ReverseProxy is shown of it, it copies.
	ctx := httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
			strip(http.Header(h), message.Ours)
			return nil
		},
	})
	return s.pick(r).RoundTrip(r.WithContext(ctx))
}

func (s *service) pick(r *http.Request) *http.Transport {
	switch {
	case r.Header.Get("Upgrade") != "":
		return s.h1 // HTTP/2 has no upgrade
	case isGRPC(r):
		return s.grpc
	case s.backend.scheme == "h2c":
		return s.h2
	default:
		return s.h1
	}
}

var errNotAsked = errors.New("the service switched protocols unasked")

// modifyResponse keeps the service from speaking for the proxy.
func (h *httpSide) modifyResponse(res *http.Response) error {
	strip(res.Header, message.Ours)
	if res.StatusCode == http.StatusSwitchingProtocols {
		if res.Request.Header.Get("Upgrade") == "" {
			return errNotAsked
		}
		return nil
	}
	strip(res.Trailer, message.Ours)
	if len(res.Trailer) > 0 && res.Request.Method != http.MethodHead {
		res.Header.Del("Content-Length") // with one, HTTP/1.1 would not be chunked and could not carry the trailers
	}
	res.Body = &responseBody{ReadCloser: res.Body, res: res, log: h.log}
	return nil
}

// fail answers for a service that gave no answer. The text is for strangers: it names no address.
func (h *httpSide) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the client has gone
	}
	if grpcExpired(r) {
		w.Header().Set("Content-Type", "application/grpc")
		sayExpired(w.Header())
		return
	}
	if b, ok := r.Body.(*requestBody); ok && b.failed.Load() {
		w.Header().Set("Connection", "close")
		http.Error(w, "jurat: the body of the request broke off", http.StatusBadRequest)
		return
	}
	code, status := attest.CodeBackendFailed, http.StatusBadGateway
	var coded *attest.Error
	var timeout net.Error
	switch {
	case errors.As(err, &coded):
		code = coded.Code
	case errors.As(err, &timeout) && timeout.Timeout():
		status = http.StatusGatewayTimeout
	}
	h.log.Error("no answer from the service", "code", string(code), "error", plainError(err))
	w.Header().Set(HeaderError, string(code))
	http.Error(w, "jurat: "+code.Title()+" ("+string(code)+")", status)
}
