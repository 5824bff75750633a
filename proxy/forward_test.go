package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/accesslog"
)

// opening is how a client says to a forward proxy where it wants to go.
type opening struct {
	name, say string
	success   string // what it is told
}

// openings ask for shop.example:8443.
func openings() []opening {
	return []opening{
		{
			"connect", "CONNECT shop.example:8443 HTTP/1.1\r\nHost: shop.example:8443\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n",
			"HTTP/1.1 200 Connection established\r\n\r\n",
		},
		{
			"socks5", "\x05\x02\x02\x00" + "\x05\x01\x00\x03\x0cshop.example\x20\xfb",
			"\x05\x00" + "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00",
		},
	}
}

// onlyTo is a DialTarget that knows one target.
func onlyTo(target string, dial proxy.Dial) proxy.DialTarget {
	return func(ctx context.Context, got string) (proxy.Conn, error) {
		if got != target {
			return nil, &attest.Error{Code: attest.CodeNoPolicy, Subject: got}
		}
		return dial(ctx)
	}
}

// knock opens a connection to a proxy and says how it begins.
func knock(t testing.TB, network, addr, say string) halfCloser {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, say); err != nil {
		t.Fatal(err)
	}
	return c.(halfCloser)
}

func hears(t testing.TB, c io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("heard %q, %v, want %q", got[:n], err, want)
	}
}

// TestForward: what a client sends behind its request, at once or when it has its answer, gets to the peer, in that order, and
// either direction may end before the other.
func TestForward(t *testing.T) {
	const size = 2 << 20
	service := rawOrigin(t, func(c *net.TCPConn) {
		sum := digest(t, c)
		_, _ = c.Write(sum[:])
		_, _ = io.Copy(c, randomBytes(2, size))
	})
	peer := start(t, inboundTCP(t, shake(nil), service, proxy.Limits{}, nil))
	logs := new(journal)
	forward := proxy.NewForward(engine(t), onlyTo("shop.example:8443", dialer(peer, affirmed())), logs.logger(), proxy.Limits{})
	records := make(chan accesslog.Record, 100)
	forward.Observe(proxy.Observer{Log: func(r *accesslog.Record) { records <- *r }}, "out")
	addr := start(t, forward)
	served := 0
	for _, o := range openings() {
		for _, ahead := range []int64{0, 1, 700, 40 << 10} {
			t.Run(fmt.Sprint(o.name, " with ", ahead, " ahead"), func(t *testing.T) {
				said := randomBytes(1, size)
				first, err := io.ReadAll(io.LimitReader(said, ahead))
				if err != nil {
					t.Fatal(err)
				}
				c := knock(t, "tcp", addr, o.say+string(first))
				hears(t, c, o.success)
				if _, err := io.Copy(c, said); err != nil {
					t.Fatal(err)
				}
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				var sum [32]byte
				if _, err := io.ReadFull(c, sum[:]); err != nil {
					t.Fatal(err)
				}
				if sum != digest(t, randomBytes(1, size)) {
					t.Error("the service got other bytes")
				}
				if digest(t, c) != digest(t, randomBytes(2, size)) {
					t.Error("the client got other bytes")
				}
				if r := <-records; r.Authority != "shop.example:8443" || r.Client != c.LocalAddr().String() || r.Received != size || r.Sent != size+32 || r.Endpoint != peer {
					t.Errorf("recorded %+v", r)
				}
			})
			served++
		}
	}
	if s := forward.Stats(); s.BytesIn != uint64(served)*size || s.BytesOut != uint64(served)*(size+32) || s.Handshakes != uint64(served) {
		t.Errorf("counted %+v", s)
	}
	if text := logs.String(); text != "" {
		t.Errorf("logged %s", text)
	}
}

// TestForwardOverUnix: the proxy may listen where files say who gets in. Its clients have no address.
func TestForwardOverUnix(t *testing.T) {
	peer := start(t, inboundTCP(t, shake(nil), rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }), proxy.Limits{}, nil))
	client := make(chan net.Addr, 2)
	forward := proxy.NewForward(engine(t), func(ctx context.Context, _ string) (proxy.Conn, error) {
		client <- proxy.ClientAddr(ctx)
		return dialer(peer, affirmed())(ctx)
	}, nil, proxy.Limits{})
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- forward.Serve(ln) }()
	t.Cleanup(func() {
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	addr := start(t, forward)
	for _, o := range openings() {
		c := knock(t, "unix", path, o.say)
		hears(t, c, o.success)
		_, _ = io.WriteString(c, "echo")
		hears(t, c, "echo")
		if got := <-client; got.Network() != "unix" {
			t.Errorf("the client comes from %v", got)
		}
		c = knock(t, "tcp", addr, o.say)
		hears(t, c, o.success)
		if got := <-client; got.String() != c.LocalAddr().String() {
			t.Errorf("the client comes from %v, want %v", got, c.LocalAddr())
		}
	}
	if a := proxy.ClientAddr(t.Context()); a != nil {
		t.Errorf("a client out of nowhere: %v", a)
	}
}

// TestForwardRefuses: not a byte of what the client sent ahead reaches a peer that is not affirmed, and the client is told as
// much as its protocol has words for.
func TestForwardRefuses(t *testing.T) {
	received := make(chan []byte, 1)
	peer := rawOrigin(t, func(raw *net.TCPConn) {
		c, err := shake(nil)(context.Background(), raw)
		if err != nil {
			return
		}
		got, _ := io.ReadAll(c)
		received <- got
	})
	fails := func(err error) proxy.Dial {
		return func(context.Context) (proxy.Conn, error) { return nil, err }
	}
	unreachable := func(err error) proxy.Dial {
		return fails(&attest.Error{Code: attest.CodeUnreachable, Subject: "shop.example:8443", Err: err})
	}
	for _, tt := range []struct {
		name    string
		target  string
		dial    proxy.Dial
		reached bool
		want    attest.Code
		status  int
		reply   byte
		text    string
	}{
		{"no policy", "other.example:443", fails(errors.New("dialled")), false, attest.CodeNoPolicy, 403, 2, "jurat: shop.example:8443: no policy covers this target (J519)\nnext: "},
		{"refused by dial", "", fails(&attest.Error{Code: attest.CodeDebug}), false, attest.CodeDebug, 502, 2, "(J504)"},
		{"not appraised", "", dialer(peer, nil), true, attest.CodeNoEvidence, 502, 2, "(J105)"},
		{"refused but passed", "", dialer(peer, refused(attest.CodeMeasurement)), true, attest.CodeMeasurement, 502, 2, "(J502)"},
		{"zero result passed", "", dialer(peer, new(attest.Result)), true, attest.CodeEmptyPolicy, 502, 2, "(J508)"},
		{"forged", "", fails(&attest.Error{Code: attest.CodeSignature}), false, attest.CodeSignature, 502, 2, "(J301)"},
		{"undecidable", "", fails(&attest.Error{Code: attest.CodeEndorsementMissing}), false, attest.CodeEndorsementMissing, 502, 1, "(J601)"},
		{"unreachable", "", unreachable(syscall.EHOSTUNREACH), false, attest.CodeUnreachable, 502, 4, "(J101)"},
		{"no network", "", unreachable(syscall.ENETUNREACH), false, attest.CodeUnreachable, 502, 3, "(J101)"},
		{"nobody listens", "", unreachable(syscall.ECONNREFUSED), false, attest.CodeUnreachable, 502, 5, "(J101)"},
		{"no such name", "", unreachable(&net.DNSError{IsNotFound: true}), false, attest.CodeUnreachable, 502, 4, "(J101)"},
		{"too slow", "", fails(&attest.Error{Code: attest.CodeTimeout}), false, attest.CodeTimeout, 502, 4, "(J106)"},
		{"no code", "", fails(errors.New("oops")), false, attest.CodeHandshake, 502, 1, "oops (J102)"},
		{"nothing dialled", "", fails(nil), false, attest.CodeInternal, 502, 1, "(J803)"},
		{"panic", "", func(context.Context) (proxy.Conn, error) { panic("boom") }, false, attest.CodeInternal, 502, 1, "(J803)"},
	} {
		for _, o := range openings() {
			t.Run(tt.name+" "+o.name, func(t *testing.T) {
				logs := new(journal)
				target := tt.target
				if target == "" {
					target = "shop.example:8443"
				}
				forward := proxy.NewForward(engine(t), onlyTo(target, tt.dial), logs.logger(), proxy.Limits{})
				c := knock(t, "tcp", start(t, forward), o.say+"GET / HTTP/1.1\r\nX: for the peer\r\n\r\n")
				if o.name == "socks5" {
					hears(t, c, "\x05\x00"+"\x05"+string(rune(tt.reply))+"\x00\x01\x00\x00\x00\x00\x00\x00")
					if rest, err := io.ReadAll(c); len(rest) > 0 || err != nil {
						t.Errorf("heard %q, %v", rest, err)
					}
				} else {
					told(t, c, tt.status, tt.want, tt.text)
				}
				until(t, "the count", func() bool { return forward.Stats().Refused[tt.want] == 1 })
				if s := forward.Stats(); s.Handshakes != 0 || s.BytesIn != 0 || s.BytesOut != 0 || s.Active != 0 {
					t.Errorf("counted %+v", s)
				}
				if text := logs.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, string(tt.want)) || strings.Contains(text, "c2VjcmV0") {
					t.Errorf("logged %s", text)
				}
				if tt.reached {
					if got := <-received; len(got) > 0 {
						t.Errorf("the peer got %q", got)
					}
				}
			})
		}
	}
}

// told reads a refusal in HTTP, and the end of the connection.
func told(t *testing.T, c io.Reader, status int, code attest.Code, text string) {
	t.Helper()
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != status || res.Header.Get(proxy.HeaderError) != string(code) || !strings.Contains(string(body), text) {
		t.Errorf("got %s %v %q, %v", res.Status, res.Header, body, err)
	}
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		t.Errorf("heard %q, %v", rest, err)
	}
}

// TestForwardNotUnderstood: what is no request gets no connection. Nobody is asked to connect to anything.
func TestForwardNotUnderstood(t *testing.T) {
	dial := func(context.Context, string) (proxy.Conn, error) {
		t.Error("dialled")
		return nil, errors.New("dialled")
	}
	for name, tt := range map[string]struct {
		say, socks string
		status     int
		text       string
	}{
		"GET":            {"GET http://shop.example/ HTTP/1.1\r\nHost: shop.example\r\n\r\n", "", 405, "only tunnels (J116)\nnext: let the client speak HTTP CONNECT or SOCKS5 to it"},
		"POST":           {"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 100000), "", 405, "only tunnels"},
		"no target":      {"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", "", 400, "(J116)"},
		"port 0":         {"CONNECT a:0 HTTP/1.1\r\nHost: a\r\n\r\n", "", 400, "(J116)"},
		"UDP ASSOCIATE":  {"\x05\x01\x00\x05\x03\x00\x01\x01\x01\x01\x01\x01\x01", "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00", 0, ""},
		"only passwords": {"\x05\x01\x02", "\x05\xff", 0, ""},
		"SOCKS4a":        {"\x04\x01\x01\xbb\x00\x00\x00\x01\x00shop.example\x00", "\x00\x5b\x00\x00\x00\x00\x00\x00", 0, ""},
		"TLS":            {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "", 0, ""},
		"HTTP/2":         {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", 0, ""},
		"SSH":            {"SSH-2.0-OpenSSH\r\n\r\n", "", 400, "(J116)"},
		"nothing":        {"", "", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			forward := proxy.NewForward(engine(t), dial, nil, proxy.Limits{})
			c := knock(t, "tcp", start(t, forward), tt.say)
			_ = c.CloseWrite()
			if tt.status != 0 {
				told(t, c, tt.status, attest.CodeProxyRequest, tt.text)
			} else if got, err := io.ReadAll(c); string(got) != tt.socks || timeout(err) {
				t.Errorf("heard %q, %v", got, err)
			}
			until(t, "the count", func() bool { return forward.Stats().Refused[attest.CodeProxyRequest] == 1 })
		})
	}
}

// TestForwardForUsers: who says nothing or something wrong gets nowhere.
func TestForwardForUsers(t *testing.T) {
	peer := start(t, inboundTCP(t, shake(nil), rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }), proxy.Limits{}, nil))
	logs := new(journal)
	users := func(user, password string) bool { return user == "ann" && password == "secret" }
	addr := start(t, proxy.NewForwardFor(engine(t), users, onlyTo("shop.example:8443", dialer(peer, affirmed())), logs.logger(), proxy.Limits{}))
	connect := func(token string) string {
		return "CONNECT shop.example:8443 HTTP/1.1\r\nHost: shop.example\r\n" + token + "\r\n"
	}
	socks := func(password string) string {
		return "\x05\x02\x00\x02\x01\x03ann" + string(rune(len(password))) + password + "\x05\x01\x00\x03\x0cshop.example\x20\xfb"
	}
	c := knock(t, "tcp", addr, connect("Proxy-Authorization: Basic YW5uOnNlY3JldA==\r\n")+"echo")
	hears(t, c, "HTTP/1.1 200 Connection established\r\n\r\necho")
	c = knock(t, "tcp", addr, socks("secret")+"echo")
	hears(t, c, "\x05\x02\x01\x00\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00echo")
	for _, token := range []string{"", "Proxy-Authorization: Basic YW5uOlNlY3JldA==\r\n"} {
		told(t, knock(t, "tcp", addr, connect(token)), 407, attest.CodeProxyCredentials, "(J117)")
	}
	hears(t, knock(t, "tcp", addr, socks("Secret")), "\x05\x02\x01\x01")
	hears(t, knock(t, "tcp", addr, openings()[1].say[:1]+"\x01\x00"), "\x05\xff")
	if text := logs.String(); strings.Contains(strings.ToLower(text), "secret") || strings.Contains(text, "YW5u") || strings.Contains(text, "ann") {
		t.Errorf("logged %s", text)
	}
}

// TestForwardWaitsForTheVerdict: success is said when the peer is affirmed, and not a moment before.
func TestForwardWaitsForTheVerdict(t *testing.T) {
	peer := start(t, inboundTCP(t, shake(nil), rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }), proxy.Limits{}, nil))
	for _, o := range openings() {
		asked, verdict := make(chan struct{}), make(chan struct{})
		addr := start(t, proxy.NewForward(engine(t), func(ctx context.Context, _ string) (proxy.Conn, error) {
			close(asked)
			<-verdict
			return dialer(peer, affirmed())(ctx)
		}, nil, proxy.Limits{}))
		c := knock(t, "tcp", addr, o.say+"echo")
		success := o.success
		if o.name == "socks5" {
			hears(t, c, success[:2])
			success = success[2:]
		}
		<-asked
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := c.Read(make([]byte, 1)); n != 0 || !timeout(err) {
			t.Errorf("%s: heard something before the verdict: %v", o.name, err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		close(verdict)
		hears(t, c, success+"echo")
	}
}

// TestForwardIsBounded: clients that say nothing, or not all of it, lose their place.
func TestForwardIsBounded(t *testing.T) {
	forward := proxy.NewForward(engine(t), onlyTo("", nil), nil, proxy.Limits{Header: 50 * time.Millisecond, Handshake: time.Hour})
	addr := start(t, forward)
	says := []string{"", "CONNECT shop", "\x05", "\x05\x01\x00", "\x05\x01\x00\x05\x01\x00\x03\xffshop"}
	for _, say := range says {
		c := knock(t, "tcp", addr, say)
		if got, err := io.ReadAll(c); timeout(err) || strings.Contains(string(got), "HTTP") {
			t.Errorf("%q: heard %q, %v", say, got, err)
		}
	}
	if n := forward.Stats().Refused[attest.CodeTimeout]; n != uint64(len(says)) {
		t.Errorf("%d timed out, want %d", n, len(says))
	}
}

// TestForwardShutdown: clients that are being listened to, or wait for a peer, hold nobody up.
func TestForwardShutdown(t *testing.T) {
	asked := make(chan struct{})
	forward := proxy.NewForward(engine(t), func(ctx context.Context, _ string) (proxy.Conn, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	}, nil, proxy.Limits{})
	ln := listen(t)
	served := make(chan error, 1)
	go func() { served <- forward.Serve(ln) }()
	silent := knock(t, "tcp", ln.Addr().String(), "CONN")
	waits := knock(t, "tcp", ln.Addr().String(), openings()[0].say)
	<-asked
	if err := forward.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	for _, c := range []net.Conn{silent, waits} {
		if got, err := io.ReadAll(c); len(got) > 0 || timeout(err) {
			t.Errorf("heard %q, %v", got, err)
		}
	}
}

// TestForwardTooLate: a peer that is affirmed when all is over already is of no use, and its client is not left waiting.
func TestForwardTooLate(t *testing.T) {
	peer := start(t, inboundTCP(t, shake(nil), rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }), proxy.Limits{}, nil))
	ln := &closes{Listener: listen(t), closed: make(chan struct{}), ended: make(chan struct{})}
	asked := make(chan struct{})
	forward := proxy.NewForward(engine(t), func(ctx context.Context, _ string) (proxy.Conn, error) {
		close(asked)
		<-ctx.Done()
		<-ln.ended
		return dialer(peer, affirmed())(context.WithoutCancel(ctx))
	}, nil, proxy.Limits{})
	served := make(chan error, 1)
	go func() { served <- forward.Serve(ln) }()
	c := knock(t, "tcp", ln.Addr().String(), openings()[0].say)
	<-asked
	if err := forward.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if got, err := io.ReadAll(c); len(got) > 0 || timeout(err) {
		t.Errorf("heard %q, %v", got, err)
	}
	<-ln.closed
}

// TestForwardClientGone: a client that has gone before its answer leaves no connection that looks finished to the peer, and
// no connection at all.
func TestForwardClientGone(t *testing.T) {
	ends := make(chan error, 1)
	service := rawOrigin(t, func(c *net.TCPConn) {
		_, err := io.ReadAll(c)
		ends <- err
	})
	peer := start(t, inboundTCP(t, shake(nil), service, proxy.Limits{}, nil))
	for _, o := range openings() {
		asked, gone := make(chan struct{}), make(chan struct{})
		forward := proxy.NewForward(engine(t), func(ctx context.Context, _ string) (proxy.Conn, error) {
			close(asked)
			<-gone
			return dialer(peer, affirmed())(ctx)
		}, nil, proxy.Limits{})
		ln := &closes{Listener: listen(t), closed: make(chan struct{}), ended: make(chan struct{})}
		served := make(chan error, 1)
		go func() { served <- forward.Serve(ln) }()
		c := knock(t, "tcp", ln.Addr().String(), o.say)
		<-asked
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
		close(gone)
		if err := <-ends; err == nil {
			t.Errorf("%s: the service took it for an end", o.name)
		}
		<-ln.closed
		until(t, "the end", func() bool { return forward.Stats().Active == 0 })
		if err := forward.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

// closes tells when the one connection that it accepted is closed, and when it is closed itself.
type closes struct {
	net.Listener
	closed, ended chan struct{}
	once          sync.Once
}

func (l *closes) Close() error {
	defer l.once.Do(func() { close(l.ended) })
	return l.Listener.Close()
}

func (l *closes) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &closing{TCPConn: c.(*net.TCPConn), closed: l.closed}, nil
}

type closing struct {
	*net.TCPConn
	closed chan struct{}
	once   sync.Once
}

func (c *closing) Close() error {
	defer c.once.Do(func() { close(c.closed) })
	return c.TCPConn.Close()
}
