package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/textproto"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/h1"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/message"
)

// What a client sends goes through a server on each of the two engines, and into net/http. The engines have to agree in all
// that the client and the service get to see; with net/http they have to agree on what is a request, where it ends and what it
// means, but for what the list called stricter names: those are refused here and taken there. Nothing is the other way round.

// behind is sent behind everything: it shows where the next request begins, and ends the connection.
const behind = "GET /behind HTTP/1.1\r\nHost: behind\r\nConnection: close\r\n\r\n"

// heard is a request as a service understands it.
type heard struct {
	method, target, host string
	fields, trailers     http.Header
	body                 string
	err                  error // the body broke off
}

func (h heard) String() string {
	return fmt.Sprintf("%s %s of %q, %q, body %q, trailers %q", h.method, h.target, h.host, h.fields, h.body, h.trailers)
}

// hear reads a request's body. Its fields are those that are neither of the connection nor of the framing nor the proxy's own.
func hear(r *http.Request) heard {
	h := heard{method: r.Method, target: r.RequestURI, host: r.Host}
	body, err := io.ReadAll(r.Body)
	h.body, h.err = string(body), err
	if scheme, rest, ok := strings.Cut(h.target, "://"); ok && !strings.HasPrefix(scheme, "/") {
		i := strings.IndexAny(rest, "/?")
		switch {
		case i < 0 && r.Method == http.MethodOptions:
			h.target = "*"
		case i < 0:
			h.target = "/"
		case rest[i] == '?':
			h.target = "/" + rest[i:]
		default:
			h.target = rest[i:]
		}
	}
	of := options(r.Header)
	h.fields = kept(r.Header, of, append(ofConnections, "Expect"))
	h.trailers = kept(r.Trailer, of, onlyInHeads)
	return h
}

var (
	ofConnections = strings.Fields("Connection Content-Length Http2-Settings Keep-Alive Proxy-Connection Te Trailer Transfer-Encoding Upgrade")
	onlyInHeads   = strings.Fields(`Age Authentication-Info Authorization Cache-Control Content-Encoding Content-Range Content-Type
		Cookie Date Expires Forwarded If-Match If-Modified-Since If-None-Match If-Range If-Unmodified-Since Location Max-Forwards
		Pragma Proxy-Authenticate Proxy-Authentication-Info Proxy-Authorization Range Retry-After Set-Cookie Vary Www-Authenticate`)
)

// options are those of Connection.
func options(h http.Header) (names []string) {
	for _, v := range h["Connection"] {
		for option := range strings.SplitSeq(v, ",") {
			names = append(names, textproto.CanonicalMIMEHeaderKey(strings.Trim(option, " \t")))
		}
	}
	return names
}

// kept are the fields that a proxy passes on.
func kept(h http.Header, of, drop []string) http.Header {
	kept := http.Header{}
	for name, values := range h {
		if len(values) > 0 && !slices.Contains(drop, name) && !slices.Contains(of, name) && !message.Identifies(name) {
			kept[name] = values
		}
	}
	// net/http adds this by itself.
	if p := kept["Pragma"]; len(p) > 0 && p[0] == "no-cache" && slices.Equal(kept["Cache-Control"], []string{"no-cache"}) {
		delete(kept, "Cache-Control")
	}
	return kept
}

// script is a connection whose other end has said everything already.
type script struct {
	net.Conn // nil: what is not here must not be called
	in       io.Reader
	once     sync.Once
	done     chan struct{}
	asked    chan struct{} // where there is one, nothing is said before the end of a head has come, which closes it
	out      bytes.Buffer
}

func (s *script) Read(p []byte) (int, error) {
	if s.asked != nil {
		select {
		case <-s.asked:
		case <-s.done:
		}
	}
	return s.in.Read(p)
}

func (s *script) Write(p []byte) (int, error) {
	n, err := s.out.Write(p)
	if s.asked != nil && bytes.HasSuffix(s.out.Bytes(), []byte("\r\n\r\n")) {
		close(s.asked)
		s.out.Reset()
	}
	return n, err
}

func (s *script) LocalAddr() net.Addr            { return named("local") }
func (s *script) RemoteAddr() net.Addr           { return named("remote") }
func (*script) SetDeadline(time.Time) error      { return nil }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }
func (s *script) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

type named string

func (n named) Network() string { return "test" }
func (n named) String() string  { return string(n) }

// once is a listener that accepts one connection.
type once struct{ conns chan net.Conn }

func (o once) Accept() (net.Conn, error) {
	c, ok := <-o.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (once) Close() error   { return nil }
func (once) Addr() net.Addr { return named("local") }

// opinion is what net/http makes of what a client sends.
type opinion struct {
	requests []heard
	refused  bool // what follows them is no request
	short    bool // or it is one that goes on
}

func netHTTP(text string) (o opinion) {
	s := &script{in: strings.NewReader(text), done: make(chan struct{})}
	keeps := "Connection: close" // says that the connection stays open, or does not
	server := &http.Server{
		DisableGeneralOptionsHandler: true, ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if keeps = "Connection: close"; r.ProtoMinor == 0 {
				keeps = "Connection: keep-alive"
			}
			if r.ProtoMajor != 1 {
				o.refused = true
			} else if h := hear(r); h.err == nil {
				o.requests = append(o.requests, h)
			} else if errors.Is(h.err, io.ErrUnexpectedEOF) {
				o.short = true
			} else {
				o.refused = true
			}
			w.Header().Set("Content-Length", "0")
		}),
	}
	ln := once{make(chan net.Conn, 1)}
	ln.conns <- s
	close(ln.conns)
	_ = server.Serve(ln)
	<-s.done
	answers := strings.Split(s.out.String(), "HTTP/1.")[1:]
	n := len(answers)
	switch {
	case o.refused || o.short:
	case n > 0 && !strings.HasPrefix(answers[n-1][1:], " 200 "):
		o.refused = true
	case n == 0 || strings.Contains(answers[n-1], keeps) == (keeps == "Connection: keep-alive"):
		o.short = true // it waits for the rest
	}
	return o
}

// ear is a service that takes note of the requests that are whole, by who the proxy says they are of.
type ear struct {
	mu    sync.Mutex
	heard map[string][]heard
	wrong []string // that the proxy wrote what it should not
}

func (e *ear) serve(c net.Conn) {
	var raw bytes.Buffer
	for r := bufio.NewReader(io.TeeReader(c, &raw)); ; raw.Reset() {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		tag := strings.Join(req.Header["X-Forwarded-For"], ",")
		if req.Header.Get("Expect") != "" {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		h := hear(req)
		if h.err != nil {
			return
		}
		var again message.Request
		_, err = h1.ParseRequest(raw.Bytes(), h1.Limits{}, &again)
		e.mu.Lock()
		e.heard[tag] = append(e.heard[tag], h)
		if err != nil || r.Buffered() > 0 {
			e.wrong = append(e.wrong, fmt.Sprintf("the service was sent %q: %v", raw.String(), err))
		}
		e.mu.Unlock()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}
}

// take forgets what has come of a client, and answers it, with what was wrong with anything.
func (e *ear) take(tag string) (all []heard, wrong []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all, wrong = e.heard[tag], e.wrong
	delete(e.heard, tag)
	e.wrong = nil
	return all, wrong
}

// side is a server on one of the engines.
type side struct {
	name, addr string
	ear        *ear
}

// alias is a connection whose client has a name.
type alias struct {
	*conn
	name named
}

func (a alias) RemoteAddr() net.Addr { return a.name }

// byName is a handshake that takes the client's name from what it says it wants to reach.
func byName(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
	c, err := shake(nil, "http/1.1")(ctx, raw)
	if err != nil {
		return nil, err
	}
	return alias{c.(*conn), named(c.ConnectionState().ServerName)}, nil
}

// sockets serves on a socket of its own in the test's folder, and answers its path.
func socket(t testing.TB, name string, serve func(net.Conn)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return path
}

// serveOn starts an inbound server on an engine, and answers the path of its socket.
func serveOn(t testing.TB, start func(int, *side) (*proxy.Engine, error), s *side, to string) {
	t.Helper()
	e, err := start(1, s)
	if err != nil {
		t.Fatal(err)
	}
	in, err := proxy.NewInboundHTTP(e, byName, backend(t, "unix:"+to), nil, proxy.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	s.addr = filepath.Join(t.TempDir(), "in")
	ln, err := net.Listen("unix", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- in.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(in.Shutdown(ctx), <-served, e.Close()); err != nil {
			t.Error(err)
		}
	})
}

// twins are a server on each of the engines.
func twins(t testing.TB, to func(*side) string) [2]*side {
	t.Helper()
	both := [2]*side{{name: "epoll"}, {name: "portable"}}
	serveOn(t, func(n int, _ *side) (*proxy.Engine, error) { return proxy.NewEngine(n, nil) }, both[0], to(both[0]))
	serveOn(t, func(n int, _ *side) (*proxy.Engine, error) { return proxy.NewPortableEngine(n, nil) }, both[1], to(both[1]))
	return both
}

// talk is a client's connection under way.
type talk struct {
	conn *tls.Conn
	said chan string // all that came back, once the connection has ended
}

// dial connects to the server as a client of that name.
func (s *side) dial(ctx context.Context, name string) (*tls.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "unix", s.addr)
	if err != nil {
		return nil, err
	}
	c := tls.Client(loop.NewWire(raw), &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, ServerName: name, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519},
	})
	if err := c.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// say sends text, in the given pieces.
func (s *side) say(ctx context.Context, name, text string, pieces int) (*talk, error) {
	c, err := s.dial(ctx, name)
	if err != nil {
		return nil, err
	}
	k := &talk{c, make(chan string, 1)}
	go func() {
		got, err := io.ReadAll(c)
		if err != nil {
			got = append(got, " and then "+err.Error()...)
		}
		k.said <- string(got)
	}()
	go func() {
		for p := range slices.Chunk([]byte(text), 1+len(text)/pieces) {
			if _, err := c.Write(p); err != nil {
				return
			}
		}
	}()
	return k, nil
}

const (
	soon = 30 * time.Millisecond // for what is not to come
	late = 20 * time.Second      // for what is
)

// hearBoth has two clients, one at each server, say the same, and waits for what comes of it: for as long as it takes where
// one of the connections ends. The answer is what each was told, and whether the connection is still open.
func hearBoth(ctx context.Context, both [2]*side, name, text string, pieces [2]int, limit time.Duration) (said [2]string, open [2]bool, err error) {
	var talks [2]*talk
	for i, s := range both {
		if talks[i], err = s.say(ctx, name, text, pieces[i]); err != nil {
			return said, open, err
		}
		defer talks[i].conn.NetConn().Close()
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	wait := [2]chan string{talks[0].said, talks[1].said}
	for wait[0] != nil || wait[1] != nil {
		var i int
		select {
		case said[0] = <-wait[0]:
		case said[1] = <-wait[1]:
			i = 1
		case <-timer.C:
			return said, [2]bool{wait[0] != nil, wait[1] != nil}, nil
		}
		wait[i] = nil
		timer.Reset(late) // what one has come to the other does too
	}
	return said, open, nil
}

// differential compares what comes of requests.
type differential struct {
	sides [2]*side
	run   int

	passed, refused, waited int
	why                     map[string]int // of what net/http takes and we refuse
}

func newDifferential(t testing.TB) *differential {
	t.Helper()
	d := &differential{why: map[string]int{}}
	d.sides = twins(t, func(s *side) string {
		s.ear = &ear{heard: map[string][]heard{}}
		return socket(t, "service", s.ear.serve)
	})
	return d
}

// compare sends text with a request behind it. The answer is where the three differ.
func (d *differential) compare(ctx context.Context, text string, pieces int) error {
	whole := text + behind
	theirs := netHTTP(whole)
	if !theirs.short {
		return d.compareFor(ctx, whole, theirs, pieces, late)
	}
	if d.compareFor(ctx, whole, theirs, pieces, soon) == nil {
		return nil
	}
	return d.compareFor(ctx, whole, theirs, pieces, time.Second) // the machine may be busy
}

func (d *differential) compareFor(ctx context.Context, whole string, theirs opinion, pieces int, limit time.Duration) error {
	d.run++
	name := "client-" + strconv.Itoa(d.run)
	cuts := [2]int{1, pieces}
	if d.run%2 == 0 {
		cuts = [2]int{pieces, 1}
	}
	said, open, err := hearBoth(ctx, d.sides, name, whole, cuts, limit)
	if err != nil {
		return err
	}
	var ours [2][]heard
	for i, s := range d.sides {
		var wrong []string
		if ours[i], wrong = s.ear.take(name); len(wrong) > 0 {
			return fmt.Errorf("%s: %s", s.name, wrong)
		}
	}
	if said[0] != said[1] || open[0] != open[1] || fmt.Sprint(ours[0]) != fmt.Sprint(ours[1]) {
		return fmt.Errorf("the engines differ: the clients were told %q (open: %v), the services %q", said, open, ours)
	}
	return d.judge(whole, theirs, ours[0], said[0], open[0])
}

// judge compares what has come of what a client sent with what net/http makes of it.
func (d *differential) judge(whole string, theirs opinion, ours []heard, said string, open bool) error {
	for i, h := range ours {
		if i == len(theirs.requests) {
			return fmt.Errorf("net/http takes no request where the service was told %s", h)
		}
		if err := sameRequest(h, theirs.requests[i]); err != nil {
			return err
		}
	}
	answers := strings.Split(said, "HTTP/1.1 ")[1:]
	answers = slices.DeleteFunc(answers, func(a string) bool { return strings.HasPrefix(a, "100 ") })
	d.passed += len(ours)
	refused := len(answers) > 0 && !strings.HasPrefix(answers[len(answers)-1], "200 ")
	switch {
	case strings.Contains(said, " and then "):
		return fmt.Errorf("the connection broke: %q", said)
	case open:
		d.waited++
		if !theirs.short {
			return fmt.Errorf("it waits for more, net/http takes %v, refuses %v", theirs.requests, theirs.refused)
		}
	case len(answers) != len(ours) && !(refused && len(answers) == len(ours)+1):
		return fmt.Errorf("%q are the answers to %v", said, ours)
	case refused && len(ours) < len(theirs.requests), refused && theirs.short && !theirs.refused:
		d.refused++
		reason := stricter(rest(whole, len(ours)), ofRequests)
		d.why[reason]++
		if reason == "" {
			return fmt.Errorf("refused with %q, net/http takes %v", answers[len(answers)-1], theirs.requests[len(ours):])
		}
	case refused:
		d.refused++
	case len(ours) < len(theirs.requests):
		return fmt.Errorf("the connection ended after %v, net/http takes also %v", ours, theirs.requests[len(ours):])
	case theirs.refused, theirs.short:
		return fmt.Errorf("%v is all that there is, net/http sees more", ours)
	}
	return nil
}

func sameRequest(ours, theirs heard) error {
	if theirs.host == "" {
		ours.host = ""
	}
	if a, b := ours.String(), theirs.String(); a != b {
		return fmt.Errorf("the service was told %s, net/http says %s", a, b)
	}
	return nil
}

// rest is what follows the first requests of a text, which were taken.
func rest(text string, requests int) string {
	for range requests {
		var r message.Request
		m, err := h1.ParseRequest([]byte(text), h1.Limits{}, &r)
		if err != nil {
			return text
		}
		text = text[m.Size:]
		var b h1.Body
		for b.Start(m.Body, h1.Limits{}); ; {
			_, n, done, err := b.Feed([]byte(text))
			if text = text[n:]; done || err != nil || text == "" {
				break
			}
		}
	}
	return text
}

// TestDifferential compares what becomes of the corpus, and that each reason to be stricter has its sample.
func TestDifferential(t *testing.T) {
	if *portable {
		t.Skip("both engines are in it")
	}
	d := newDifferential(t)
	for _, s := range requests(t) {
		if err := d.compare(t.Context(), s, 5); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	t.Log(d)
	for _, r := range ofRequests {
		if d.why[r.name] == 0 {
			t.Errorf("no request is refused for %q (%s)", r.name, r.why)
		}
	}
}

// requests are those of the corpus.
func requests(t testing.TB) (all []string) {
	t.Helper()
	for _, s := range corpus(t) {
		switch s.what {
		case "request":
			all = append(all, s.message)
		case "chunked":
			all = append(all, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+s.message)
		}
	}
	return append(all, "GET / HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("X: y\r\n", 130)+"\r\n", "POST / HTTP/1.1\r\nHost: a\r\n\r\n\r\n")
}

func (d *differential) String() string {
	return fmt.Sprintf("%d runs: %d requests taken, %d refused, %d goes on; net/http takes of the refused: %v", d.run, d.passed, d.refused, d.waited, d.why)
}

// FuzzDifferential compares what becomes of anything.
func FuzzDifferential(f *testing.F) {
	for i, s := range requests(f) {
		f.Add([]byte(s), uint8(i))
	}
	d := newDifferential(f)
	f.Fuzz(func(t *testing.T, text []byte, pieces uint8) {
		if len(text) > 4096 {
			return
		}
		if err := d.compare(t.Context(), string(text), int(pieces%32)+1); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// TestDifferentialGrammar compares what becomes of requests that are nearly right.
func TestDifferentialGrammar(t *testing.T) {
	if *portable {
		t.Skip("both engines are in it")
	}
	d := newDifferential(t)
	rapid.Check(t, d.check)
	t.Log(d)
}

// FuzzDifferentialGrammar does so where the fuzzer makes the choices.
func FuzzDifferentialGrammar(f *testing.F) {
	d := newDifferential(f)
	f.Fuzz(rapid.MakeFuzz(d.check))
}

func (d *differential) check(t *rapid.T) {
	text := strings.Join(rapid.SliceOfN(rapid.Custom(anyRequest), 1, 3).Draw(t, "requests"), "")
	if err := d.compare(t.Context(), text, rapid.IntRange(1, 20).Draw(t, "pieces")); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
}
