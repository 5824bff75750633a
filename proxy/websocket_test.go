package proxy_test

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// end2 is one end of a connection of HTTP/2, made of frames: net/http does not speak RFC 8441.
type end2 struct {
	conn   net.Conn
	server bool
	accept func(*stream2) // of a server: is given what clients ask for
	window uint32         // of streams, given back as they are read
	wait   sync.WaitGroup

	write  sync.Mutex
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder

	mu      sync.Mutex
	changed *sync.Cond
	greeted bool
	takes   bool // extended CONNECT
	initial int64
	room    int64
	last    uint32
	streams map[uint32]*stream2
	broken  error
}

// stream2 is a stream, as the bytes of a tunnel.
type stream2 struct {
	*end2
	id     uint32
	head   map[string]string // the first one that has come; nil as long as none has
	in     bytes.Buffer
	room   int64
	ended  bool
	reset  bool
	code   http2.ErrCode
	closed bool // Close was called
	said   bool // our end
}

func newEnd2(t testing.TB, conn net.Conn, server bool, takes bool, accept func(*stream2)) *end2 {
	e := &end2{conn: conn, server: server, accept: accept, window: 64 << 10, initial: 65535, room: 65535, streams: map[uint32]*stream2{}}
	e.changed = sync.NewCond(&e.mu)
	e.framer = http2.NewFramer(conn, conn)
	e.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	e.hpack = hpack.NewEncoder(&e.block)
	if server {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(conn, preface); err != nil || string(preface) != http2.ClientPreface {
			_ = conn.Close()
			e.broken = errors.New("no HTTP/2")
			return e
		}
	} else {
		_, _ = io.WriteString(conn, http2.ClientPreface)
	}
	settings := []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: e.window}}
	if server && takes {
		settings = append(settings, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
	}
	if err := e.framer.WriteSettings(settings...); err != nil {
		t.Log(err)
	}
	e.wait.Go(e.read)
	return e
}

func (e *end2) read() {
	for {
		f, err := e.framer.ReadFrame()
		var bad http2.StreamError
		if errors.As(err, &bad) {
			continue
		}
		e.mu.Lock()
		if err != nil {
			e.broken = err
			e.changed.Broadcast()
			e.mu.Unlock()
			return
		}
		e.take(f)
		e.changed.Broadcast()
		e.mu.Unlock()
	}
}

func (e *end2) take(f http2.Frame) {
	s := e.streams[f.Header().StreamID]
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return
		}
		if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
			for _, s := range e.streams {
				s.room += int64(v) - e.initial
			}
			e.initial = int64(v)
		}
		v, _ := f.Value(http2.SettingEnableConnectProtocol)
		e.greeted, e.takes = true, v == 1
		e.send(func() error { return e.framer.WriteSettingsAck() })
	case *http2.PingFrame:
		if !f.IsAck() {
			e.send(func() error { return e.framer.WritePing(true, f.Data) })
		}
	case *http2.WindowUpdateFrame:
		if s != nil {
			s.room += int64(f.Increment)
		} else if f.StreamID == 0 {
			e.room += int64(f.Increment)
		}
	case *http2.MetaHeadersFrame:
		isNew := s == nil && e.server
		if isNew {
			s = &stream2{end2: e, id: f.StreamID, room: e.initial}
			e.streams[s.id] = s
		}
		if s == nil {
			return
		}
		if s.head == nil {
			s.head = map[string]string{}
			for _, h := range f.Fields {
				s.head[h.Name] = h.Value
			}
		}
		s.ended = s.ended || f.StreamEnded()
		if isNew {
			e.wait.Go(func() { e.accept(s) })
		}
	case *http2.DataFrame:
		n := uint32(f.Length)
		if s != nil {
			s.in.Write(f.Data())
			s.ended = s.ended || f.StreamEnded()
		}
		if n > 0 {
			e.send(func() error { return e.framer.WriteWindowUpdate(0, n) })
		}
	case *http2.RSTStreamFrame:
		if s != nil {
			s.reset, s.code = true, f.ErrCode
		}
	}
}

func (e *end2) send(f func() error) {
	e.write.Lock()
	defer e.write.Unlock()
	_ = f()
}

func (e *end2) close() {
	_ = e.conn.Close()
	e.wait.Wait()
}

// until waits for something to become true of what has come. It answers false where the connection ends before.
func (e *end2) until(t testing.TB, what string, ok func() bool) bool {
	t.Helper()
	stop := time.AfterFunc(10*time.Second, func() { _ = e.conn.Close() })
	defer stop.Stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	for !ok() {
		if e.broken != nil {
			t.Errorf("waited in vain: %s: %v", what, e.broken)
			return false
		}
		e.changed.Wait()
	}
	return true
}

// ask opens a stream with these lines, as they are. Streams are opened in the order of their numbers (RFC 9113 section 5.1.1).
func (e *end2) ask(end bool, lines ...string) *stream2 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.last += 2; e.last == 2 {
		e.last = 1
	}
	s := &stream2{end2: e, id: e.last, room: e.initial, said: end}
	e.streams[s.id] = s
	s.lines(end, lines...)
	return s
}

func (s *stream2) lines(end bool, lines ...string) {
	s.send(func() error {
		s.block.Reset()
		for _, l := range lines {
			i := strings.Index(l[1:], ":") + 1
			_ = s.hpack.WriteField(hpack.HeaderField{Name: l[:i], Value: strings.TrimPrefix(l[i+1:], " ")})
		}
		return s.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: s.block.Bytes(), EndStream: end, EndHeaders: true})
	})
}

// raw sends DATA whatever the windows are.
func (s *stream2) raw(end bool, text string) {
	s.send(func() error { return s.framer.WriteData(s.id, end, []byte(text)) })
}

func (s *stream2) status(t testing.TB) string {
	t.Helper()
	s.until(t, "an answer", func() bool { return s.head != nil || s.reset })
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.head == nil {
		return s.code.String()
	}
	return s.head[":status"]
}

func (s *stream2) Read(p []byte) (int, error) {
	s.mu.Lock()
	for s.in.Len() == 0 {
		switch {
		case s.closed:
			s.mu.Unlock()
			return 0, net.ErrClosed
		case s.ended:
			s.mu.Unlock()
			return 0, io.EOF
		case s.reset:
			defer s.mu.Unlock()
			return 0, http2.StreamError{StreamID: s.id, Code: s.code}
		case s.broken != nil:
			defer s.mu.Unlock()
			return 0, s.broken
		}
		s.changed.Wait()
	}
	n, _ := s.in.Read(p)
	open := !s.ended && !s.reset
	s.mu.Unlock()
	if open {
		s.send(func() error { return s.framer.WriteWindowUpdate(s.id, uint32(n)) })
	}
	return n, nil
}

func (s *stream2) Write(p []byte) (int, error) {
	for at := 0; at < len(p); {
		s.mu.Lock()
		for min(s.room, s.end2.room) <= 0 && !s.reset && s.broken == nil && !s.closed {
			s.changed.Wait()
		}
		if s.reset || s.broken != nil || s.closed {
			s.mu.Unlock()
			return at, io.ErrClosedPipe
		}
		n := min(len(p)-at, 16<<10, int(min(s.room, s.end2.room)))
		s.room -= int64(n)
		s.end2.room -= int64(n)
		s.mu.Unlock()
		s.send(func() error { return s.framer.WriteData(s.id, false, p[at:at+n]) })
		at += n
	}
	return len(p), nil
}

func (s *stream2) CloseWrite() error {
	if !s.said {
		s.said = true
		s.send(func() error { return s.framer.WriteData(s.id, true, nil) })
	}
	return nil
}

func (s *stream2) cancel() {
	s.send(func() error { return s.framer.WriteRSTStream(s.id, http2.ErrCodeCancel) })
}

// Close is how a WebSocket lets go of its connection.
func (s *stream2) Close() error {
	s.mu.Lock()
	over := s.closed || s.reset
	s.closed = true
	s.changed.Broadcast()
	s.mu.Unlock()
	if !over && !s.said {
		return s.CloseWrite()
	}
	return nil
}

func dialEnd2(t testing.TB, addr string) *end2 {
	t.Helper()
	c, err := dialTLS(t.Context(), addr, "h2")
	if err != nil {
		t.Fatal(err)
	}
	e := newEnd2(t, c, false, false, nil)
	t.Cleanup(e.close)
	return e
}

// chat are the lines of an extended CONNECT, of which some may be replaced or, without a value, left out.
func chat(changes ...string) []string {
	lines := []string{":method: CONNECT", ":protocol: websocket", ":scheme: https", ":path: /chat", ":authority: x", "sec-websocket-version: 13"}
	for _, c := range changes {
		name := c[:strings.Index(c[1:], ":")+1]
		at := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") })
		switch {
		case at < 0:
			lines = append(lines, c)
		case strings.HasSuffix(c, ":"):
			lines = slices.Delete(lines, at, at+1)
		default:
			lines[at] = c
		}
	}
	return lines
}

// RoundTrip makes an extended CONNECT of the upgrade that a WebSocket client asks for.
func (e *end2) RoundTrip(r *http.Request) (*http.Response, error) {
	e.mu.Lock()
	for !e.greeted && e.broken == nil {
		e.changed.Wait()
	}
	takes := e.takes
	e.mu.Unlock()
	if !takes {
		return nil, errors.New("extended CONNECT is not offered")
	}
	lines := []string{":method: CONNECT", ":protocol: websocket", ":scheme: https", ":path: " + r.URL.RequestURI(), ":authority: " + r.Host}
	for name, values := range r.Header {
		if name != "Connection" && name != "Upgrade" && name != "Sec-Websocket-Key" {
			lines = append(lines, strings.ToLower(name)+": "+values[0])
		}
	}
	s := e.ask(false, lines...)
	e.mu.Lock()
	defer e.mu.Unlock()
	for s.head == nil && !s.reset && e.broken == nil {
		e.changed.Wait()
	}
	if s.head[":status"] != "200" {
		return nil, fmt.Errorf("status %q, code %v, %v", s.head[":status"], s.code, e.broken)
	}
	res := &http.Response{StatusCode: 101, Header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}, Body: s, Request: r}
	for name, value := range s.head {
		if name[0] != ':' {
			res.Header.Set(name, value)
		}
	}
	if res.Header.Get("Sec-WebSocket-Accept") != "" {
		return nil, errors.New("an answer to a key that was not said")
	}
	res.Header.Set("Sec-WebSocket-Accept", acceptFor(r.Header.Get("Sec-WebSocket-Key")))
	return res, nil
}

func acceptFor(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// echo is a WebSocket service in HTTP/1.1.
func echo(t testing.TB, seen func(*http.Request)) string {
	return origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if seen != nil {
			seen(r)
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"b", "a"}, InsecureSkipVerify: true})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			kind, p, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, p); err != nil {
				return
			}
		}
	}))
}

// talks has a WebSocket say things and hear them again, and close.
func talks(t testing.TB, h *http.Client, url string) {
	t.Helper()
	c, res, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPClient: h, Subprotocols: []string{"a"}})
	if err != nil {
		t.Error(err)
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	if c.Subprotocol() != "a" || res.Header.Get("X-Forwarded-For") != "" {
		t.Errorf("got %v", res.Header)
	}
	for _, n := range []int{0, 1, 125, 126, 70_000, 700_000} {
		said := bytes.Repeat([]byte{byte(n), 7, 'x'}, n/3+1)[:n]
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := c.Write(t.Context(), websocket.MessageBinary, said); err != nil {
				t.Errorf("%d bytes: %v", n, err)
			}
		})
		_, heard, err := c.Read(t.Context())
		wg.Wait()
		if err != nil || !bytes.Equal(said, heard) {
			t.Errorf("%d bytes: got %d, %v", n, len(heard), err)
			return
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Errorf("close: %v", err)
	}
}

// TestWebSocketHTTP2: over every combination of HTTP/1.1 and HTTP/2, several at once.
func TestWebSocketHTTP2(t *testing.T) {
	var keys sync.Map
	service := echo(t, func(r *http.Request) {
		if _, again := keys.LoadOrStore(r.Header.Get("Sec-WebSocket-Key"), true); again || r.Method != http.MethodGet || r.Header.Get("X-Forwarded-For") == "" {
			t.Errorf("asked %s %v", r.Method, r.Header)
		}
	})
	inner := new(observed)
	in := inboundHTTP(t, shake(nil, "h2", "http/1.1"), service, proxy.Limits{}, nil)
	in.Observe(proxy.Observer{Log: inner.log}, "in")
	far := start(t, in)
	for _, c := range []struct {
		name  string
		to    *proxy.Cluster
		inner string // what the next proxy hears
	}{
		{"a plain service", cluster(t, upstream.Config{Name: "plain"}, service), ""},
		{"a plain service that takes HTTP/2", proxy.NewPlainCluster(balance(t, upstream.Config{Name: "h2c"}, service), proxy.ProtocolHTTP2, 0), ""},
		{"an attested one", proxy.NewAttestedCluster(balance(t, upstream.Config{Name: "attested"}, far), func(ctx context.Context, to upstream.Identity, protocols ...string) (proxy.Conn, error) {
			return dialer(to.Address, affirmed(), protocols...)(ctx)
		}, proxy.ProtocolAuto, 0), "HTTP/2"},
		{"an attested one that takes HTTP/1.1", proxy.NewAttestedCluster(balance(t, upstream.Config{Name: "attested"}, far), func(ctx context.Context, to upstream.Identity, protocols ...string) (proxy.Conn, error) {
			return dialer(to.Address, affirmed(), protocols...)(ctx)
		}, proxy.ProtocolHTTP1, 0), "HTTP/1.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			heard := new(observed)
			s := proxy.NewHTTP(engine(t), shake(nil, "h2", "http/1.1"), proxy.RouteTo(c.to), nil, proxy.Limits{})
			s.Observe(proxy.Observer{Log: heard.log}, "web")
			addr := start(t, s)
			for _, alpn := range []string{"HTTP/1.1", "HTTP/2"} {
				t.Run("from "+alpn, func(t *testing.T) {
					h := client(t, direct(addr), "http/1.1")
					if alpn == "HTTP/2" {
						h = &http.Client{Transport: dialEnd2(t, addr)}
					}
					const n = 3
					var wg sync.WaitGroup
					for range n {
						wg.Go(func() { talks(t, h, "http://x/chat?room=1") })
					}
					wg.Wait()
					status := map[string]int{"HTTP/1.1": 101, "HTTP/2": 200}
					for range n {
						if r := heard.next(t); r.Status != status[alpn] || r.Protocol != alpn || r.Method != "GET" || r.Path != "/chat?room=1" || r.Tries != 1 {
							t.Errorf("recorded %+v", r)
						}
						if c.inner != "" {
							if r := inner.next(t); r.Protocol != c.inner || r.Status != status[c.inner] {
								t.Errorf("the next proxy recorded %+v", r)
							}
						}
					}
					atRest(t, c.to)
				})
			}
		})
	}
}

// TestWebSocketKey: a client of HTTP/1.1 has its key answered, whatever the service speaks; one that is none goes in HTTP/1.1.
func TestWebSocketKey(t *testing.T) {
	service := origin2(t, true, func(s *stream2) {
		for _, name := range []string{"sec-websocket-key", "content-length", "expect", "upgrade"} {
			if v, ok := s.head[name]; ok || s.head[":method"] != "CONNECT" || s.head[":protocol"] != "websocket" {
				t.Errorf("the service was told %s: %q in %v", name, v, s.head)
			}
		}
		s.lines(false, ":status: 200", "sec-websocket-protocol: a", "sec-websocket-accept: forged")
		_, _ = io.Copy(s, s)
		_ = s.CloseWrite()
	})
	s := proxy.NewHTTP(engine(t), shake(nil, "http/1.1"), proxy.RouteTo(service.cluster), nil, proxy.Limits{})
	addr := start(t, s)
	for _, c := range []struct{ fields, want string }{
		{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"}, // RFC 6455 section 1.3
		{"Content-Length: 0\r\nExpect: 100-continue\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"},
		{"", ""},
		{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n", ""},
		{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==AAAA\r\n", ""},
		{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==\r\n", ""},
		{"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""},
	} {
		conn, err := dialTLS(t.Context(), addr, "http/1.1")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"+c.fields+"\r\n")
		got := readHead(conn)
		_ = conn.Close()
		if c.want == "" {
			if !strings.HasPrefix(got, "HTTP/1.1 502 ") { // the service speaks HTTP/2 only
				t.Errorf("%q: got %q", c.fields, got)
			}
			continue
		}
		if !strings.HasPrefix(got, "HTTP/1.1 101 ") || strings.Count(got, "ec-WebSocket-Accept")+strings.Count(got, "ec-websocket-accept") != 1 || !strings.Contains(got, c.want) {
			t.Errorf("%q: got %q", c.fields, got)
		}
	}
}

type service2 struct {
	cluster *proxy.Cluster
	conns   atomic.Int32
}

// origin2 is a service that speaks HTTP/2 alone, in frames.
func origin2(t *testing.T, takes bool, accept func(*stream2)) *service2 {
	s := new(service2)
	addr := rawOrigin(t, func(c *net.TCPConn) {
		s.conns.Add(1)
		e := newEnd2(t, c, true, takes, accept)
		e.wait.Wait()
	})
	s.cluster = proxy.NewPlainCluster(balance(t, upstream.Config{Name: "h2"}, addr), proxy.ProtocolHTTP2, 0)
	return s
}

// pipe is the other end of a tunnel through the proxy.
type pipe interface {
	io.ReadWriter
	CloseWrite() error
}

// rawSocket is a service of HTTP/1.1 that agrees to an upgrade, and then is a pipe.
func rawSocket(t *testing.T, serve func(pipe)) string { return slowSocket(t, 0, serve) }

func slowSocket(t *testing.T, after time.Duration, serve func(pipe)) string {
	return rawOrigin(t, func(c *net.TCPConn) {
		head := readHead(c)
		time.Sleep(after)
		_, key, _ := strings.Cut(head, "Sec-WebSocket-Key: ")
		key, _, _ = strings.Cut(key, "\r\n")
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", acceptFor(key))
		serve(c)
	})
}

func readHead(c net.Conn) string {
	var b []byte
	one := make([]byte, 1)
	for !bytes.HasSuffix(b, []byte("\r\n\r\n")) {
		if _, err := c.Read(one); err != nil {
			break
		}
		b = append(b, one[0])
	}
	return string(b)
}

// tunnels are those of which one end at least is a stream. open answers the client's end of one.
func tunnels(t *testing.T, limits proxy.Limits, serve func(pipe), f func(t *testing.T, to *proxy.Cluster, open func() pipe)) {
	for name, make := range map[string]func(t *testing.T) *proxy.Cluster{
		"to HTTP/1.1": func(t *testing.T) *proxy.Cluster { return cluster(t, upstream.Config{Name: "a"}, rawSocket(t, serve)) },
		"to HTTP/2": func(t *testing.T) *proxy.Cluster {
			return origin2(t, true, func(s *stream2) {
				s.lines(false, ":status: 200")
				serve(s)
			}).cluster
		},
	} {
		for _, alpn := range []string{"HTTP/1.1", "HTTP/2"} {
			if name == "to HTTP/1.1" && alpn == "HTTP/1.1" { // the connections are joined
				continue
			}
			t.Run("from "+alpn+" "+name, func(t *testing.T) {
				to := make(t)
				s := proxy.NewHTTP(engine(t), shake(nil, "h2", "http/1.1"), proxy.RouteTo(to), nil, limits)
				addr := start(t, s)
				f(t, to, func() pipe {
					if alpn == "HTTP/2" {
						s := dialEnd2(t, addr).ask(false, chat()...)
						if got := s.status(t); got != "200" {
							t.Fatalf("got %s", got)
						}
						return s
					}
					c, err := dialTLS(t.Context(), addr, "http/1.1")
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { _ = c.Close() })
					_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
					if head := readHead(c); !strings.HasPrefix(head, "HTTP/1.1 101 ") {
						t.Fatalf("got %q", head)
					}
					return c
				})
				atRest(t, to)
			})
		}
	}
}

// TestTunnelHalves: either end may end its direction first, and the other one goes on, however late it is read.
func TestTunnelHalves(t *testing.T) {
	const size = 600_000
	much := strings.Repeat("0123456789", size/10)
	type heard struct {
		what string
		err  error
	}
	for _, first := range []string{"client", "service"} {
		t.Run("the "+first+" first", func(t *testing.T) {
			service := make(chan heard, 1)
			ended := make(chan struct{}, 1)
			tunnels(t, proxy.Limits{}, func(p pipe) {
				if first == "service" {
					_, _ = io.WriteString(p, much)
					_ = p.CloseWrite()
					<-ended
				}
				b, err := io.ReadAll(p)
				if first == "client" {
					_, _ = io.WriteString(p, much)
					_ = p.CloseWrite()
				}
				service <- heard{string(b), err}
			}, func(t *testing.T, _ *proxy.Cluster, open func() pipe) {
				p := open()
				if first == "client" {
					_, _ = io.WriteString(p, much)
					_ = p.CloseWrite()
				}
				b, err := io.ReadAll(p)
				if string(b) != much || err != nil {
					t.Errorf("the client heard %d bytes, %v", len(b), err)
				}
				if first == "service" {
					sent := make(chan struct{})
					go func() {
						defer close(sent)
						_, _ = io.WriteString(p, much)
						_ = p.CloseWrite()
					}()
					ended <- struct{}{}
					<-sent
				}
				if h := <-service; h.what != much || h.err != nil {
					t.Errorf("the service heard %d bytes, %v", len(h.what), h.err)
				}
			})
		})
	}
}

// TestTunnelLateReader: a client has said and heard everything before the service takes what it said.
func TestTunnelLateReader(t *testing.T) {
	said := strings.Repeat("x", 200_000)
	whole, heard := make(chan struct{}), make(chan string, 1)
	tunnels(t, proxy.Limits{}, func(p pipe) {
		_ = p.CloseWrite()
		<-whole
		b, err := io.ReadAll(p)
		if err != nil {
			t.Error(err)
		}
		heard <- string(b)
	}, func(t *testing.T, to *proxy.Cluster, open func() pipe) {
		p := open()
		if b, err := io.ReadAll(p); len(b) > 0 || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
		_, _ = io.WriteString(p, said)
		_ = p.CloseWrite()
		if s, ok := p.(*stream2); ok { // what follows on the connection is answered after that
			if got := s.ask(true, ":method: CONNECT", ":authority: y:1").status(t); got != "405" {
				t.Errorf("got %s", got)
			}
		}
		whole <- struct{}{}
		if got := <-heard; got != said {
			t.Errorf("the service heard %d bytes", len(got))
		}
	})
}

// TestTunnelUnreadEnd: a service that does not take the end of a tunnel is not waited for any longer than one in the middle.
func TestTunnelUnreadEnd(t *testing.T) {
	cut := make(chan http2.ErrCode, 1)
	service := origin2(t, true, func(s *stream2) {
		s.lines(false, ":status: 200")
		_ = s.CloseWrite()
		s.until(t, "the proxy to give up", func() bool { return s.reset })
		cut <- s.code
	})
	s := proxy.NewHTTP(engine(t), shake(nil, "h2"), proxy.RouteTo(service.cluster), nil, proxy.Limits{Tunnel: 200 * time.Millisecond})
	st := dialEnd2(t, start(t, s)).ask(false, chat()...)
	if got := st.status(t); got != "200" {
		t.Fatalf("got %s", got)
	}
	_, _ = io.WriteString(st, strings.Repeat("x", 200_000))
	_ = st.CloseWrite()
	if code := <-cut; code != http2.ErrCodeCancel {
		t.Errorf("got %v", code)
	}
	atRest(t, service.cluster)
}

// TestTunnelBreaks: an end that is cut off does not look like a proper one to the other side.
func TestTunnelBreaks(t *testing.T) {
	breaks := func(p pipe) {
		switch p := p.(type) {
		case *stream2:
			p.cancel()
		case *net.TCPConn:
			_ = p.SetLinger(0)
			_ = p.Close()
		default:
			_ = p.(interface{ NetConn() net.Conn }).NetConn().(*net.TCPConn).SetLinger(0)
			_ = p.(interface{ NetConn() net.Conn }).NetConn().Close()
		}
	}
	for _, first := range []string{"client", "service"} {
		t.Run("the "+first, func(t *testing.T) {
			service := make(chan error, 1)
			tunnels(t, proxy.Limits{}, func(p pipe) {
				_, _ = io.WriteString(p, "hello")
				_, _ = io.ReadFull(p, make([]byte, 5))
				if first == "service" {
					breaks(p)
					return
				}
				_, _ = io.WriteString(p, "again")
				_, err := p.Read(make([]byte, 1))
				service <- err
			}, func(t *testing.T, _ *proxy.Cluster, open func() pipe) {
				p := open()
				_, _ = io.ReadFull(p, make([]byte, 5))
				_, _ = io.WriteString(p, "hello")
				if first == "client" {
					_, _ = io.ReadFull(p, make([]byte, 5))
					breaks(p)
					if err := <-service; err == nil || err == io.EOF {
						t.Errorf("the service heard of %v", err)
					}
					return
				}
				_, err := p.Read(make([]byte, 1))
				var reset http2.StreamError
				if err == nil || err == io.EOF || errors.As(err, &reset) && reset.Code != http2.ErrCodeCancel {
					t.Errorf("the client heard of %v", err)
				}
			})
		})
	}
}

// TestTunnelTimes: it ends when nothing has moved for as long as limits say, and not for what bounds requests.
func TestTunnelTimes(t *testing.T) {
	gone := make(chan error, 1)
	serve := func(p pipe) {
		_, err := io.Copy(p, p)
		_ = p.CloseWrite()
		gone <- err
	}
	tunnels(t, proxy.Limits{Tunnel: 100 * time.Millisecond}, serve, func(t *testing.T, _ *proxy.Cluster, open func() pipe) {
		p := open()
		if _, err := p.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("the client heard of %v", err)
		}
		if err := <-gone; err == nil {
			t.Error("the service took it for an end")
		}
	})
	tunnels(t, proxy.Limits{Stall: 50 * time.Millisecond, Answer: 50 * time.Millisecond}, serve, func(t *testing.T, _ *proxy.Cluster, open func() pipe) {
		p := open()
		for range 2 {
			time.Sleep(200 * time.Millisecond)
			_, _ = io.WriteString(p, "hello")
			if _, err := io.ReadFull(p, make([]byte, 5)); err != nil {
				t.Error(err)
			}
		}
		_ = p.CloseWrite()
		if _, err := p.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		<-gone
	})
}

// TestTunnelPressure: an end that does not read holds the other one up, and the proxy holds no more than its windows.
func TestTunnelPressure(t *testing.T) {
	const most = 16 << 20
	for _, slow := range []string{"client", "service"} {
		t.Run("the "+slow, func(t *testing.T) {
			var sent atomic.Int64
			push := func(p pipe) {
				b := make([]byte, 16<<10)
				for range most / len(b) {
					n, err := p.Write(b)
					sent.Add(int64(n))
					if err != nil {
						return
					}
				}
				_ = p.CloseWrite()
			}
			pull := func(p pipe, who string) {
				if n, err := io.Copy(io.Discard, p); n != most || err != nil {
					t.Errorf("the %s got %d bytes, %v", who, n, err)
				}
			}
			read := make(chan struct{}, 1)
			done := make(chan struct{}, 1)
			tunnels(t, proxy.Limits{}, func(p pipe) {
				if slow == "client" {
					push(p)
				} else {
					<-read
					pull(p, "service")
				}
				_ = p.CloseWrite()
				done <- struct{}{}
			}, func(t *testing.T, _ *proxy.Cluster, open func() pipe) {
				sent.Store(0)
				p := open()
				if slow == "service" {
					go push(p)
				}
				stuck := int64(-1)
				until(t, "the sender to be held up", func() bool {
					before := stuck
					time.Sleep(50 * time.Millisecond)
					stuck = sent.Load()
					return stuck > 0 && stuck == before
				})
				if stuck > most*3/4 {
					t.Errorf("%d bytes were taken from who reads nothing", stuck)
				}
				if slow == "client" {
					pull(p, "client")
					_ = p.CloseWrite()
				} else {
					read <- struct{}{}
					pull2 := make([]byte, 1)
					if _, err := p.Read(pull2); err != io.EOF {
						t.Errorf("the client heard of %v", err)
					}
				}
				<-done
			})
		})
	}
}

// TestTunnelNotBegun: nothing that a client says behind an upgrade reaches a service that has not agreed, and what that answers
// instead reaches the client as no tunnel.
func TestTunnelNotBegun(t *testing.T) {
	const ahead = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	good := "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
	for _, c := range []struct{ answer, want string }{
		{"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "403"},
		{"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n", "426"},
		{"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", "302"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "502"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "502"},
		{"HTTP/1.1 204 No Content\r\n\r\n", "502"},
		{good + "\r\n", "502"},
		{good + "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", "502"},
		{good + "Sec-WebSocket-Accept: KEY\r\nSec-WebSocket-Accept: KEY\r\n\r\n", "502"},
		{good + "Sec-WebSocket-Accept: KEY, KEY\r\n\r\n", "502"},
		{strings.Replace(good, "websocket", "h2c", 1) + "Sec-WebSocket-Accept: KEY\r\n\r\n", "502"},
		{good + "Sec-WebSocket-Accept: KEY\r\n\r\n", "200"},
		{"", "502"},
	} {
		var mu sync.Mutex
		var heard bytes.Buffer
		service := rawOrigin(t, func(conn *net.TCPConn) {
			head := readHead(conn)
			_, key, _ := strings.Cut(head, "Sec-WebSocket-Key: ")
			key, _, _ = strings.Cut(key, "\r\n")
			mu.Lock()
			heard.WriteString(head)
			mu.Unlock()
			if c.answer == "" {
				return
			}
			_, _ = io.WriteString(conn, strings.ReplaceAll(c.answer, "KEY", acceptFor(key)))
			rest, _ := io.ReadAll(conn)
			mu.Lock()
			heard.Write(rest)
			mu.Unlock()
		})
		in := inboundHTTP(t, shake(nil, "h2"), service, proxy.Limits{}, nil)
		e := dialEnd2(t, start(t, in))
		s := e.ask(false, chat("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==")...)
		s.raw(false, ahead)
		if got := s.status(t); got != c.want {
			t.Errorf("%q: got %s, want %s", c.answer, got, c.want)
		}
		if c.want == "200" {
			_ = s.CloseWrite()
		}
		s.until(t, "the end", func() bool { return s.ended || s.reset })
		e.close()
		shutdown(t, in, t.Context())
		mu.Lock()
		got := heard.String()
		mu.Unlock()
		if strings.Contains(got, "/smuggled") != (c.want == "200") || strings.Count(got, "Sec-WebSocket-Key") != 1 || strings.Contains(got, "dGhlIHNhbXBsZSBub25jZQ==") ||
			!strings.HasPrefix(got, "GET /chat HTTP/1.1\r\nHost: x\r\n") {
			t.Errorf("%q: the service heard %q", c.answer, got)
		}
	}
	for _, c := range []struct {
		lines []string
		want  string
	}{
		{[]string{":status: 403"}, "403"},
		{[]string{":status: 503"}, "503"},
		{[]string{":status: 302", "location: /"}, "302"},
		{nil, "502"},
	} {
		var heard atomic.Int64
		service := origin2(t, true, func(s *stream2) {
			if c.lines == nil {
				s.cancel()
				return
			}
			s.lines(true, c.lines...)
			b, _ := io.ReadAll(s)
			heard.Add(int64(len(b)))
		})
		s := proxy.NewHTTP(engine(t), shake(nil, "h2", "http/1.1"), proxy.RouteTo(service.cluster), nil, proxy.Limits{})
		e := dialEnd2(t, start(t, s))
		st := e.ask(false, chat()...)
		st.raw(false, ahead)
		if got := st.status(t); got != c.want {
			t.Errorf("%q: got %s", c.lines, got)
		}
		e.close()
		shutdown(t, s, t.Context())
		if heard.Load() != 0 {
			t.Errorf("%q: the service heard %d bytes", c.lines, heard.Load())
		}
	}
}

// TestTunnelToNowhere: what the proxy answers itself is no tunnel either.
func TestTunnelToNowhere(t *testing.T) {
	_, addr := routed(t, routing(t, map[string]*proxy.Cluster{"a": cluster(t, upstream.Config{Name: "a"}, "127.0.0.1:1")},
		route.Route{Match: route.RouteMatch{Path: "/direct"}, DirectResponse: &route.DirectResponse{Status: 200, Body: "hello"}},
		route.Route{Match: route.RouteMatch{Path: "/gone"}, DirectResponse: &route.DirectResponse{Status: 410, Body: "gone"}},
		route.Route{Match: route.RouteMatch{Path: "/moved"}, Redirect: &route.RedirectAction{Host: "new.example"}},
		route.Route{Match: route.RouteMatch{Path: "/a", Methods: []string{"GET"}}, Route: to("a")},
	), new(journal))
	for path, want := range map[string]string{"/direct": "400", "/gone": "410", "/moved": "301", "/a": "502", "/none": "404"} {
		if got := dialEnd2(t, addr).ask(false, chat(":path: "+path)...).status(t); got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
}

// TestExtendedConnect: what is no extended CONNECT for WebSocket is a fault of its stream, on either engine, and nothing of it
// reaches the service.
func TestExtendedConnect(t *testing.T) {
	cases := []struct{ name, lines, want string }{
		{"as it is", "", "200"},
		{"no version", "sec-websocket-version:", "200"},
		{"with trailers", "te: trailers", "200"},
		{"another protocol", ":protocol: h2c", "PROTOCOL_ERROR"},
		{"connect-udp", ":protocol: connect-udp", "PROTOCOL_ERROR"},
		{"connect-tcp", ":protocol: connect-tcp", "PROTOCOL_ERROR"},
		{"connect-ip", ":protocol: connect-ip", "PROTOCOL_ERROR"},
		{"another case", ":protocol: WebSocket", "PROTOCOL_ERROR"},
		{"two protocols", ":protocol: websocket, h2c", "PROTOCOL_ERROR"},
		{"a protocol with a line", ":protocol: websocket\r\nx: y", "PROTOCOL_ERROR"},
		{"a GET", ":method: GET", "PROTOCOL_ERROR"},
		{"a POST", ":method: POST", "PROTOCOL_ERROR"},
		{"a connect", ":method: connect", "PROTOCOL_ERROR"},
		{"no method", ":method:", "PROTOCOL_ERROR"},
		{"no scheme", ":scheme:", "PROTOCOL_ERROR"},
		{"another scheme", ":scheme: wss", "PROTOCOL_ERROR"},
		{"no path", ":path:", "PROTOCOL_ERROR"},
		{"no scheme and no path", ":scheme:|:path:", "PROTOCOL_ERROR"},
		{"a path that is none", ":path: chat", "PROTOCOL_ERROR"},
		{"a path with a line", ":path: /a HTTP/1.1\r\nx: y", "PROTOCOL_ERROR"},
		{"a path of OPTIONS", ":path: *", "PROTOCOL_ERROR"},
		{"no authority", ":authority:", "PROTOCOL_ERROR"},
		{"a host in its place", ":authority:|host: x", "PROTOCOL_ERROR"},
		{"another host", "host: y", "PROTOCOL_ERROR"},
		{"a length", "content-length: 0", "PROTOCOL_ERROR"},
		{"a length of something", "content-length: 5", "PROTOCOL_ERROR"},
		{"chunks", "transfer-encoding: chunked", "PROTOCOL_ERROR"},
		{"an upgrade", "upgrade: websocket", "PROTOCOL_ERROR"},
		{"a connection", "connection: upgrade", "PROTOCOL_ERROR"},
		{"no protocol", ":protocol:", "PROTOCOL_ERROR"},
		{"a plain CONNECT", ":protocol:|:scheme:|:path:", "405"},
		{"a version of the proxy's own", "jurat-result: forged", "200"},
	}
	engines := map[string]func() (*proxy.Engine, error){
		"epoll": func() (*proxy.Engine, error) { return proxy.NewEngine(1, nil) }, "portable": func() (*proxy.Engine, error) { return proxy.NewPortableEngine(1, nil) },
	}
	results := map[string][]string{}
	for name, make := range engines {
		eng, err := make()
		if err != nil {
			t.Fatal(err)
		}
		w := new(witness)
		service := rawOrigin(t, func(c *net.TCPConn) {
			head := readHead(c)
			_, key, _ := strings.Cut(head, "Sec-WebSocket-Key: ")
			key, _, _ = strings.Cut(key, "\r\n")
			w.mu.Lock()
			w.heard = append(w.heard, bytes.NewBufferString(head))
			w.mu.Unlock()
			fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", acceptFor(key))
			w.serve(c)
		})
		s, err := proxy.NewInboundHTTP(eng, shake(nil, "h2"), backend(t, service), nil, proxy.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		addr := start(t, s)
		for _, c := range cases {
			w.told()
			e := dialEnd2(t, addr)
			var changes []string
			if c.lines != "" {
				changes = strings.Split(c.lines, "|")
			}
			st := e.ask(false, chat(changes...)...)
			st.raw(true, "GET /behind HTTP/1.1\r\nHost: behind\r\n\r\n")
			got := st.status(t)
			if c.want == "200" {
				until(t, "what is behind", func() bool {
					w.mu.Lock()
					defer w.mu.Unlock()
					return slices.ContainsFunc(w.heard, func(b *bytes.Buffer) bool { return strings.Contains(b.String(), "/behind") })
				})
			} else if got == "405" {
				st.until(t, "the end", func() bool { return st.ended })
			}
			// The connection lives on.
			if next := e.ask(true, ":method: CONNECT", ":authority: y:1").status(t); next != "405" {
				t.Errorf("%s: the next one: %s", c.name, next)
			}
			e.close()
			heard := w.told()
			if i := strings.Index(heard, "Sec-WebSocket-Key: "); i >= 0 {
				heard = heard[:i] + heard[i+len("Sec-WebSocket-Key: ")+26:]
			}
			results[name] = append(results[name], got+" "+heard)
			if got != c.want || (heard != "") != (c.want == "200") || strings.Contains(heard, "forged") {
				t.Errorf("%s, %s: got %s, want %s; the service heard %q", name, c.name, got, c.want, heard)
			}
		}
		shutdown(t, s, t.Context())
		t.Cleanup(func() { _ = eng.Close() })
	}
	for i, c := range cases {
		if a, b := results["epoll"][i], results["portable"][i]; a != b {
			t.Errorf("%s: the engines differ: %q, %q", c.name, a, b)
		}
	}
}

// TestUpgradeToOlderService: one that speaks HTTP/2 and takes no extended CONNECT is asked in HTTP/1.1, and asked once about it.
func TestUpgradeToOlderService(t *testing.T) {
	service := echo(t, nil) // net/http offers none
	c := proxy.NewPlainCluster(balance(t, upstream.Config{Name: "a"}, service), proxy.ProtocolHTTP2, 0)
	s := proxy.NewHTTP(engine(t), shake(nil, "h2", "http/1.1"), proxy.RouteTo(c), nil, proxy.Limits{})
	addr := start(t, s)
	for range 3 {
		talks(t, &http.Client{Transport: dialEnd2(t, addr)}, "http://x/")
		talks(t, client(t, direct(addr), "http/1.1"), "http://x/")
	}
	atRest(t, c)
}

// TestUpgradeWaits for what the service says that it takes, and no longer than the service is there.
func TestUpgradeWaits(t *testing.T) {
	asked := make(chan struct{}, 4)
	addr := rawOrigin(t, func(c *net.TCPConn) {
		asked <- struct{}{}
		_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
	})
	c := proxy.NewPlainCluster(balance(t, upstream.Config{Name: "a"}, addr), proxy.ProtocolHTTP2, 0)
	s := proxy.NewHTTP(engine(t), shake(nil, "h2", "http/1.1"), proxy.RouteTo(c), nil, proxy.Limits{})
	if got := dialEnd2(t, start(t, s)).ask(false, chat()...).status(t); got != "502" {
		t.Errorf("got %s", got)
	}
	<-asked
	atRest(t, c)

	silent := rawOrigin(t, func(c *net.TCPConn) {
		asked <- struct{}{}
		_, _ = io.Copy(io.Discard, c)
	})
	c = proxy.NewPlainCluster(balance(t, upstream.Config{Name: "a"}, silent), proxy.ProtocolHTTP2, 0)
	s = proxy.NewHTTP(engine(t), shake(nil, "h2", "http/1.1"), proxy.RouteTo(c), nil, proxy.Limits{})
	e := dialEnd2(t, start(t, s))
	st := e.ask(false, chat()...)
	<-asked
	until(t, "the upgrade to wait", func() bool { return c.Balance().Stats().Pending == 1 })
	st.cancel()
	atRest(t, c)
}

// TestUpgradeRetries: like any request, as long as there is no tunnel; that has no times of a route.
func TestUpgradeRetries(t *testing.T) {
	c := cluster(t, upstream.Config{Name: "a"}, "127.0.0.1:1", slowSocket(t, 50*time.Millisecond, func(p pipe) {
		_, _ = io.Copy(p, p)
		_ = p.CloseWrite()
	}))
	a := to("a")
	a.RetryPolicy = retrying("connect-failure", 3)
	a.RetryPolicy.AvoidPreviousHosts, a.RetryPolicy.HostSelectionAttempts = true, 20
	a.RetryPolicy.Hedge = &route.Hedge{After: time.Millisecond}
	a.Timeout, a.IdleTimeout = time.Second, time.Second
	s := proxy.NewHTTP(engine(t), shake(nil, "h2"), routing(t, map[string]*proxy.Cluster{"a": c}, all(*a)), nil, proxy.Limits{Tunnel: -1})
	addr := start(t, s)
	for i := range 6 {
		s := dialEnd2(t, addr).ask(false, chat()...)
		if got := s.status(t); got != "200" {
			t.Fatalf("got %s", got)
		}
		if i == 0 {
			time.Sleep(1500 * time.Millisecond)
		}
		_, _ = io.WriteString(s, "hello")
		_ = s.CloseWrite()
		if b, err := io.ReadAll(s); string(b) != "hello" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	}
	counted(t, c, 0, 0)
	atRest(t, c)
}

// TestDrainWaitsForStreams that are tunnels.
func TestDrainWaitsForStreams(t *testing.T) {
	in := inboundHTTP(t, shake(nil, "h2"), rawSocket(t, func(p pipe) {
		_, _ = io.Copy(p, p)
		_ = p.CloseWrite()
	}), proxy.Limits{}, nil)
	e := dialEnd2(t, start(t, in))
	s := e.ask(false, chat()...)
	if got := s.status(t); got != "200" {
		t.Fatalf("got %s", got)
	}
	down := make(chan struct{})
	go func() {
		defer close(down)
		shutdown(t, in, t.Context())
	}()
	e.until(t, "the server to go away", func() bool { return true })
	_, _ = io.WriteString(s, "hello")
	_ = s.CloseWrite()
	if b, err := io.ReadAll(s); string(b) != "hello" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	<-down
}
