package proxy_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
)

func TestMain(m *testing.M) {
	if flag.Parse(); !loads() && !emergencyClients() {
		goleak.VerifyTestMain(m)
	}
}

// hardware verifies evidence that is the report data itself. The proxy sees Results only, never who made them.
type hardware struct{ claims attest.Claims }

func (h hardware) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	c := h.claims
	c.ReportData = attest.ReportData(ev.Raw)
	return &c, nil
}

type policy struct{ code attest.Code }

func (p policy) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	c := attest.Check{ID: "test", Status: attest.StatusPass}
	if p.code != "" {
		c.Status, c.Code = attest.StatusFail, p.code
	}
	return attest.Judgement{ID: "sha256:feed", Checks: []attest.Check{c}}
}

var genoa = attest.Claims{Vendor: "amd", TEE: "snp", Generation: "genoa"}

func appraise(claims attest.Claims, code attest.Code) *attest.Result {
	var rd attest.ReportData
	rd[0] = 1
	ev := &attest.Evidence{Format: "test", Raw: rd[:]}
	a := attest.NewAppraiser(attest.NoEndorser{}, hardware{claims})
	return a.Appraise(context.Background(), ev, attest.Expect(rd, attest.LevelKey, time.Time{}), policy{code}, time.Unix(1700000000, 0))
}

func affirmed() *attest.Result { return appraise(genoa, "") }

func refused(code attest.Code) *attest.Result { return appraise(genoa, code) }

// conn is an attested connection whose Result was settled beforehand.
type conn struct {
	*tls.Conn
	result *attest.Result
}

func (c *conn) Result() *attest.Result { return c.result }

var leaf = sync.OnceValue(func() tls.Certificate { return makeLeaf("peer.example", "odd;\"name\",=x", `back\slash`) })

func makeLeaf(names ...string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "jurat"}, DNSNames: names,
		URIs:      []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/a,b"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// shake is the server's side; client is what the client is said to have proved.
func shake(client *attest.Result, protos ...string) proxy.Handshake {
	return func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
		c := tls.Server(raw, &tls.Config{
			Certificates: []tls.Certificate{leaf()}, NextProtos: protos, MinVersion: tls.VersionTLS13,
			ClientAuth: tls.RequestClientCert, SessionTicketsDisabled: true,
		})
		if err := c.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		return &conn{c, client}, nil
	}
}

// dialTLS is a client that knows nothing of attestation.
func dialTLS(ctx context.Context, addr string, protos ...string) (*tls.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return overTLS(ctx, raw, protos...)
}

func overTLS(ctx context.Context, raw net.Conn, protos ...string) (*tls.Conn, error) {
	protos = slices.DeleteFunc(protos, func(p string) bool { return p == "" })
	c := tls.Client(raw, &tls.Config{
		InsecureSkipVerify: true, NextProtos: protos, Certificates: []tls.Certificate{leaf()}, MinVersion: tls.VersionTLS13,
	})
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// dialer is the client's side towards addr.
func dialer(addr string, server *attest.Result, protos ...string) proxy.Dial {
	return func(ctx context.Context) (proxy.Conn, error) {
		raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, &attest.Error{Code: attest.CodeUnreachable, Subject: addr, Err: err}
		}
		c, err := overTLS(ctx, proxy.Watch(raw), protos...)
		if err != nil {
			return nil, err
		}
		return &conn{c, server}, nil
	}
}

func backend(t testing.TB, s string) proxy.Backend {
	t.Helper()
	b, err := proxy.ParseBackend(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var portable = flag.Bool("portable", false, "use the engine that works on every system")

// engine moves what the servers of a test carry. It ends after them.
func engine(t testing.TB) *proxy.Engine {
	t.Helper()
	start := proxy.NewEngine
	if *portable {
		start = proxy.NewPortableEngine
	}
	e, err := start(2, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// start serves until the test ends, and answers the address.
func start(t testing.TB, s *proxy.Server) string {
	t.Helper()
	ln := listen(t)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if n := s.Stats().Active; n != 0 {
			t.Errorf("%d connections left after shutdown", n)
		}
	})
	return ln.Addr().String()
}

func inboundHTTP(t testing.TB, h proxy.Handshake, to string, l proxy.Limits, log *slog.Logger) *proxy.Server {
	t.Helper()
	s, err := proxy.NewInboundHTTP(engine(t), h, backend(t, to), log, l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func inboundTCP(t testing.TB, h proxy.Handshake, to string, l proxy.Limits, log *slog.Logger) *proxy.Server {
	t.Helper()
	s, err := proxy.NewInboundTCP(engine(t), h, backend(t, to), log, l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// origin is an unmodified service that speaks HTTP/1.1 and HTTP/2 in the clear.
func origin(t testing.TB, h http.Handler) string {
	t.Helper()
	ln := listen(t)
	serveOrigin(t, ln, h)
	return ln.Addr().String()
}

func serveOrigin(t testing.TB, ln net.Listener, h http.Handler) {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: h, Protocols: p, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
}

// rawOrigin hands each connection to serve and closes it afterwards.
func rawOrigin(t testing.TB, serve func(*net.TCPConn)) string {
	t.Helper()
	ln := listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

type dialFunc func(ctx context.Context) (net.Conn, error)

// way is one of the ways from a client to the service.
type way struct {
	name string
	// dial makes a connection whose TLS, if it has any, speaks for alpn.
	dial  func(alpn string) dialFunc
	stats func() proxy.Stats // of the inbound server
}

// ways are the inbound server alone, and behind an outbound one that negotiates nothing, so that the first bytes decide.
func ways(t testing.TB, in *proxy.Server) []way {
	addr := start(t, in)
	out := start(t, proxy.NewOutbound(engine(t), dialer(addr, affirmed()), nil, proxy.Limits{}))
	return []way{
		{"inbound", func(alpn string) dialFunc {
			return func(ctx context.Context) (net.Conn, error) { return dialTLS(ctx, addr, alpn) }
		}, in.Stats},
		{"outbound to inbound", func(string) dialFunc {
			return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", out) }
		}, in.Stats},
	}
}

// client speaks HTTP over connections of dial, which look like plain ones to it.
func client(t testing.TB, dial func(alpn string) dialFunc, alpn string) *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(alpn == "http/1.1")
	p.SetUnencryptedHTTP2(alpn == "h2")
	tr := &http.Transport{
		Protocols:             p,
		DialContext:           func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(alpn)(ctx) },
		DisableCompression:    true,
		ExpectContinueTimeout: 10 * time.Second,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func direct(addr string) func(string) dialFunc {
	return func(alpn string) dialFunc {
		return func(ctx context.Context) (net.Conn, error) { return dialTLS(ctx, addr, alpn) }
	}
}

func get(t testing.TB, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, c, req)
}

func do(t testing.TB, c *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// journal is a log that can be searched while it is written.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// until waits for what another goroutine is about to do.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func timeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// withHints keeps the header of an informational answer.
func withHints(ctx context.Context, keep *http.Header) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		*keep = http.Header(h)
		return nil
	}})
}
