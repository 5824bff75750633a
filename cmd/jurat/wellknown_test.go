package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/batch"
	"github.com/jurat-tls/jurat/ratls/wellknown"
)

// flaky is a TEE that can be told to fail.
type flaky struct{ err atomic.Pointer[error] }

func (f *flaky) Attest(_ context.Context, data attest.ReportData) (*attest.Evidence, error) {
	if err := f.err.Load(); err != nil {
		return nil, *err
	}
	return &attest.Evidence{Format: "test", Raw: data[:]}, nil
}

func TestWellKnownAnswers(t *testing.T) {
	tee := new(flaky)
	id, err := ratls.NewIdentity(t.Context(), tee, []string{"127.0.0.1"}, [32]byte{1}, ratls.IdentityOptions{Batch: batch.Options{Patience: time.Millisecond, Failures: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer id.Close()
	var ahead atomic.Int64
	now := func() time.Time { return time.Unix(1e9+ahead.Load(), 0) }
	engine, err := proxy.NewEngine(1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer engine.Close()
	acceptor := ratls.NewAcceptor(id, "h2", "http/1.1")
	backend, err := proxy.ParseBackend("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	s, err := proxy.NewInboundHTTP(engine, func(ctx context.Context, raw net.Conn) (proxy.Conn, error) { return acceptor.Handshake(ctx, raw) }, backend, slog.New(slog.DiscardHandler), proxy.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	s.AnswerLocally(newWellKnown(id, now, slog.New(slog.DiscardHandler)))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	defer func() {
		_ = s.Shutdown(t.Context())
		<-served
	}()
	for _, h2 := range []bool{false, true} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: h2} // what it answers is what is looked at
		defer tr.CloseIdleConnections()
		ask := func(method, query string) (*http.Response, []byte) {
			t.Helper()
			req, err := http.NewRequestWithContext(t.Context(), method, "https://"+ln.Addr().String()+wellknown.Path+query, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || (res.ProtoMajor == 2) != h2 {
				t.Fatal(err, res.Proto)
			}
			h := res.Header
			if h.Get("Cache-Control") != "no-store" || h.Get("Access-Control-Allow-Origin") != "*" || h.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s %s: %v", method, query, h)
			}
			return res, body
		}
		good := "?" + wellknown.Query(make([]byte, 32))
		ahead.Add(3600)
		res, body := ask(http.MethodGet, good)
		d, err := wellknown.Unmarshal(body)
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/json" || err != nil || len(d.Nonce) != 32 || d.Config != [32]byte{1} {
			t.Fatalf("%v %s %v %+v", err, res.Status, res.Header, d)
		}
		for _, query := range []string{"", "?nonce=", "?nonce=AAAA", good + "&x", "?x=1"} {
			if res, _ := ask(http.MethodGet, query); res.StatusCode != 400 {
				t.Errorf("%q: %s", query, res.Status)
			}
		}
		for _, method := range []string{http.MethodHead, http.MethodPost, http.MethodOptions, http.MethodDelete} {
			if res, _ := ask(method, good); res.StatusCode != 405 || res.Header.Get("Allow") != "GET" {
				t.Errorf("%s: %s %v", method, res.Status, res.Header)
			}
		}
		for range 9 {
			if res, body := ask(http.MethodGet, good); res.StatusCode != 200 {
				t.Fatalf("%s: %s", res.Status, body)
			}
		}
		if res, _ := ask(http.MethodGet, good); res.StatusCode != 429 || res.Header.Get("Retry-After") != "1" || res.Header.Get(proxy.HeaderError) != "J108" {
			t.Errorf("%s %v", res.Status, res.Header)
		}
		ahead.Add(3600)
		if h2 {
			broken := errors.New("broken")
			tee.err.Store(&broken)
			for _, code := range []string{"J802", "J806"} {
				if res, _ := ask(http.MethodGet, good); res.StatusCode != 503 || res.Header.Get("Retry-After") != "5" || res.Header.Get(proxy.HeaderError) != code {
					t.Errorf("%s %v", res.Status, res.Header)
				}
			}
		}
	}
}
