package h2_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/h2"
	"github.com/jurat-tls/jurat/proxy/message"
)

// ends are a client and a server that have greeted each other.
func ends(t *testing.T, l h2.Limits) (c, s *h2.Conn, atClient, atServer *[]string) {
	t.Helper()
	atClient, atServer = new([]string), new([]string)
	c, s = h2.NewClient(l, nil, recorder(atClient)), h2.NewServer(l, nil, recorder(atServer))
	exchange(t, c, s)
	return c, s, atClient, atServer
}

func request(t *testing.T, c *h2.Conn, end bool) *h2.Stream {
	t.Helper()
	s, err := c.Request(&message.Request{Method: "GET", Authority: "a", Path: "/", Length: message.NoBody}, end)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func heardOf(t *testing.T, who string, log *[]string, want ...string) {
	t.Helper()
	if got := strings.Join(*log, "; "); got != strings.Join(want, "; ") {
		t.Errorf("%s heard %q, want %q", who, got, want)
	}
	*log = nil
}

// A client hears of a shutdown before it counts: what it has sent by then is answered.
func TestShutdown(t *testing.T) {
	var open []*h2.Stream
	e := &ears{request: func(s *h2.Stream, _ *message.Request, _ bool) { open = append(open, s) }}
	s := h2.NewServer(h2.Limits{}, nil, e)
	log := new([]string)
	c := h2.NewClient(h2.Limits{}, nil, recorder(log))
	exchange(t, c, s)
	request(t, c, true)
	exchange(t, c, s)
	s.Shutdown()
	request(t, c, true) // on its way before the client hears
	early := c.Output()
	if err := s.Feed(0, early); err != nil || len(open) != 2 {
		t.Fatal(err, open)
	}
	c.Sent(len(early))
	exchange(t, c, s)
	if c.CanOpen() || s.Done() || c.Done() {
		t.Error("a client that has heard opens no more, and nothing is done")
	}
	heardOf(t, "client", log, "goaway 2147483647 NO_ERROR", "goaway 3 NO_ERROR")
	for _, o := range open {
		if err := o.Respond(&answer, true); err != nil {
			t.Error(err)
		}
	}
	if s.Done() {
		t.Error("the answers are not written")
	}
	exchange(t, c, s)
	if !s.Done() || !c.Done() {
		t.Error("all is done")
	}
	if _, err := c.Request(&call, true); !errors.Is(err, h2.ErrBusy) {
		t.Error(err)
	}
	s.Shutdown()
	if len(s.Output()) != 0 {
		t.Error("there was nothing to say")
	}
}

// A client that does not answer is not waited for; what it opens after that is left out, but goes through HPACK.
func TestShutdownAtOnce(t *testing.T) {
	c, s, atClient, atServer := ends(t, h2.Limits{})
	s.Shutdown()
	s.Shutdown()
	for range 2 {
		stream, err := c.Request(&call, false)
		if err != nil {
			t.Fatal(err)
		}
		stream.Write([]byte("x"), false)
		if err := stream.Trailers(message.Fields{{Name: "a", Value: "b"}}); err != nil {
			t.Error(err)
		}
	}
	exchange(t, c, s)
	heardOf(t, "server", atServer)
	heardOf(t, "client", atClient, "goaway 2147483647 NO_ERROR", "closed 1 REFUSED_STREAM 1", "closed 3 REFUSED_STREAM 1", "goaway 0 NO_ERROR")
	if !s.Done() || !c.Done() || s.Err() != nil {
		t.Error("all is done")
	}
	if err := s.Feed(0, newScript().raw(6, 0, 1, "").Bytes()); err == nil || fmt.Sprint(read(s.Output())) != "[goaway 0 PROTOCOL_ERROR]" {
		t.Error(err, read(s.Output()))
	}
}

func TestClientShutdown(t *testing.T) {
	c, s, _, atServer := ends(t, h2.Limits{})
	r := request(t, c, false)
	c.Shutdown()
	c.Shutdown()
	exchange(t, c, s)
	if c.Done() || c.CanOpen() || s.Done() {
		t.Error("one stream is open")
	}
	r.Reset(h2.Cancel)
	exchange(t, c, s)
	if !c.Done() || s.Done() {
		t.Error("the client is the one who closes")
	}
	heardOf(t, "server", atServer, "request 1 GET a /", "goaway 0 NO_ERROR", "closed 1 CANCEL 1")
}

func TestPing(t *testing.T) {
	c, s, _, _ := ends(t, h2.Limits{})
	for _, p := range []*h2.Conn{c, s} {
		p.Ping()
		p.Ping()
		if p.Unanswered() != 2 {
			t.Error(p.Unanswered())
		}
		exchange(t, c, s)
		if p.Unanswered() != 0 {
			t.Error(p.Unanswered())
		}
	}
	// An answer to nothing is none, also while one to another PING is awaited.
	s.Shutdown()
	if err := s.Feed(0, newScript().raw(6, 1, 0, "jurat\x00\x00a").raw(6, 1, 0, "jurat\x00\x00b").Bytes()); err != nil || s.Unanswered() != 0 {
		t.Error(err, s.Unanswered())
	}
	exchange(t, c, s)
	if !s.Done() {
		t.Error("the answer was not recognised")
	}
}

func TestAbort(t *testing.T) {
	c, s, atClient, atServer := ends(t, h2.Limits{})
	r := request(t, c, false)
	request(t, c, false)
	exchange(t, c, s)
	*atServer = nil
	s.Abort(h2.EnhanceYourCalm)
	c.Abort(h2.NoError)
	if got := fmt.Sprint(read(s.Output())); got != "[goaway 3 ENHANCE_YOUR_CALM]" || s.Done() || s.Streams() != 0 {
		t.Error(got)
	}
	if len(c.Output()) != 0 || !c.Done() || c.Err() == nil {
		t.Error("the client has nothing more to say")
	}
	heardOf(t, "server", atServer, "closed 1 ENHANCE_YOUR_CALM 4", "closed 3 ENHANCE_YOUR_CALM 4")
	heardOf(t, "client", atClient, "closed 1 NO_ERROR 4", "closed 3 NO_ERROR 4")
	// Nothing moves any more, and nothing breaks.
	c.Ping()
	c.Shutdown()
	c.Abort(h2.InternalError)
	r.Reset(h2.Cancel)
	r.Consumed(1)
	if r.Write([]byte("x"), true) != 0 || r.Trailers(nil) == nil || r.Respond(&answer, true) == nil || len(c.Output()) != 0 {
		t.Error("a stream that has ended")
	}
	if err := c.Feed(0, []byte("x")); err == nil {
		t.Error("no error")
	}
}

// A server that has answered, and wants no more of the request, says so without harm (RFC 9113 section 8.1).
func TestEarlyAnswer(t *testing.T) {
	atClient := new([]string)
	c := h2.NewClient(h2.Limits{}, nil, recorder(atClient))
	s := h2.NewServer(h2.Limits{}, nil, &ears{request: func(s *h2.Stream, _ *message.Request, _ bool) {
		_ = s.Respond(&answer, true)
		s.Reset(h2.NoError)
	}})
	request(t, c, false).Write([]byte("abc"), false) // DATA that is on its way when the stream is reset
	exchange(t, c, s)
	heardOf(t, "client", atClient, "response 1 200 end", "closed 1 NO_ERROR 1")
	if s.Err() != nil || s.Streams() != 0 {
		t.Error(s.Err())
	}
}

// While Closed is told, nothing can be done with the stream any more.
func TestClosedIsLast(t *testing.T) {
	closed := 0
	e := &ears{closed: func(s *h2.Stream, _ h2.Cause) {
		closed++
		s.Reset(h2.Cancel)
		s.Consumed(1)
		if s.Write([]byte("x"), true) != 0 || s.Trailers(nil) == nil || s.Respond(&answer, true) == nil || s.Conn() == nil || s.ID() != 1 {
			t.Error("a stream that has ended")
		}
	}}
	s := h2.NewServer(h2.Limits{}, nil, e)
	w := fromClient().headers(1, false, get...).data(1, false, "x").raw(3, 0, 1, "\x00\x00\x00\x08")
	if err := s.Feed(0, w.Bytes()); err != nil || closed != 1 || fmt.Sprint(read(s.Output())) != "[ack]" {
		t.Error(err, closed, read(s.Output()))
	}
}

// What cannot be sent leaves the connection as it was.
func TestMalformedIsNotSent(t *testing.T) {
	good := message.Request{Method: "GET", Authority: "a", Path: "/", Length: message.NoBody}
	for name, spoil := range map[string]func(r *message.Request){
		"method":           func(r *message.Request) { r.Method = "G T" },
		"no method":        func(r *message.Request) { r.Method = "" },
		"authority":        func(r *message.Request) { r.Authority = "a b" },
		"no authority":     func(r *message.Request) { r.Authority = "" },
		"path":             func(r *message.Request) { r.Path = "/ HTTP/1.1" },
		"no path":          func(r *message.Request) { r.Path = "" },
		"scheme":           func(r *message.Request) { r.Scheme = "a b" },
		"upgrade":          func(r *message.Request) { r.Upgrade = "websocket" },
		"extended CONNECT": func(r *message.Request) { r.Method, r.Upgrade = "CONNECT", "websocket" },
		"a name":           func(r *message.Request) { r.Fields = message.Fields{{Name: "a:", Value: "b"}} },
		"a pseudo-header":  func(r *message.Request) { r.Fields = message.Fields{{Name: ":path", Value: "/b"}} },
		"a value":          func(r *message.Request) { r.Fields = message.Fields{{Name: "a", Value: "b\r\nc: d"}} },
		"a secret value":   func(r *message.Request) { r.Fields = message.Fields{{Name: "a", Value: "b\n", Secret: true}} },
		"connection":       func(r *message.Request) { r.Fields = message.Fields{{Name: "Connection", Value: "x"}} },
		"transfer-encoding": func(r *message.Request) {
			r.Fields = message.Fields{{Name: "Transfer-Encoding", Value: "chunked"}}
		},
		"host":           func(r *message.Request) { r.Fields = message.Fields{{Name: "Host", Value: "b"}} },
		"content-length": func(r *message.Request) { r.Fields = message.Fields{{Name: "Content-Length", Value: "1"}} },
	} {
		c, s, _, atServer := ends(t, h2.Limits{})
		r := good
		r.Fields = message.Fields{{Name: "x", Value: "y"}}
		for range 3 { // so that there is something in the table
			if _, err := c.Request(&r, true); err != nil {
				t.Fatal(err)
			}
		}
		exchange(t, c, s)
		bad := good
		spoil(&bad)
		bad.Fields = append(message.Fields{{Name: "x", Value: "y"}, {Name: "x", Value: "z"}}, bad.Fields...)
		if _, err := c.Request(&bad, true); !errors.Is(err, h2.ErrMalformed) || len(c.Output()) != 0 {
			t.Errorf("%s: %v", name, err)
		}
		*atServer = nil
		request(t, c, true)
		if _, err := c.Request(&r, true); err != nil {
			t.Fatal(err)
		}
		exchange(t, c, s)
		heardOf(t, "server after "+name, atServer, "request 7 GET a / end", "request 9 GET a / end")
	}
}

func TestRespondMalformed(t *testing.T) {
	var stream *h2.Stream
	s := h2.NewServer(h2.Limits{}, nil, &ears{request: func(r *h2.Stream, _ *message.Request, _ bool) { stream = r }})
	if err := s.Feed(0, fromClient().headers(1, true, get...).Bytes()); err != nil {
		t.Fatal(err)
	}
	for _, r := range []message.Response{
		{Status: 99},
		{Status: 1000},
		{Status: 101},
		{Status: 200, Fields: message.Fields{{Name: "a", Value: "\n"}}},
	} {
		if err := stream.Respond(&r, true); !errors.Is(err, h2.ErrMalformed) {
			t.Errorf("%d: %v", r.Status, err)
		}
	}
	if err := stream.Respond(&message.Response{Status: 103}, true); !errors.Is(err, h2.ErrMalformed) {
		t.Error(err)
	}
	if stream.Write([]byte("x"), true) != 0 || !errors.Is(stream.Trailers(nil), h2.ErrState) {
		t.Error("a body before the head")
	}
	if err := stream.Respond(&answer, false); err != nil {
		t.Fatal(err)
	}
	if err := stream.Respond(&answer, false); !errors.Is(err, h2.ErrState) {
		t.Error(err)
	}
	if err := stream.Trailers(message.Fields{{Name: ":status", Value: "200"}}); !errors.Is(err, h2.ErrMalformed) {
		t.Error(err)
	}
	if err := stream.Trailers(ok); err != nil || s.Streams() != 0 {
		t.Error(err)
	}
}

func TestStatus(t *testing.T) {
	for _, status := range []string{"099", "2000", "20", "2x0", "", "101", "-10"} {
		_, events, _ := play(t, client(h2.Limits{}, 1, "GET"), fromServer().headers(1, true, ":status: "+status).Bytes())
		if got := strings.Join(events, "; "); got != "closed 1 PROTOCOL_ERROR 3" {
			t.Errorf("%q: heard %q", status, got)
		}
	}
	for _, lines := range [][]string{{":status: 200", ":status: 200"}, {":status: 200", ":path: /"}, {"a: b", ":status: 200"}} {
		_, events, _ := play(t, client(h2.Limits{}, 1, "GET"), fromServer().headers(1, true, lines...).Bytes())
		if got := strings.Join(events, "; "); got != "closed 1 PROTOCOL_ERROR 3" {
			t.Errorf("%q: heard %q", lines, got)
		}
	}
}

// A field that was looked at before vouches for no other one, nor for its place.
func TestLookedAtBefore(t *testing.T) {
	log := new([]string)
	s := h2.NewServer(h2.Limits{}, nil, recorder(log))
	w := fromClient().headers(1, true, append(append([]string{}, get...), "xyz: a-b")...)
	w.headers(3, true, append(append([]string{}, get...), "xyz: a\nb")...)
	w.headers(5, true, append(append([]string{}, get...), "xYz: a-b")...)
	w.headers(7, true, append([]string{"xyz: a-b"}, get...)...)
	w.headers(9, true, append(append([]string{}, get...), "xyz: a-b")...)
	if err := s.Feed(0, w.Bytes()); err != nil {
		t.Fatal(err)
	}
	heardOf(t, "server", log, "request 1 GET a.test / end", "request 9 GET a.test / end")
}

// What a service says does not change how a client is understood.
func TestExpect(t *testing.T) {
	pool := h2.NewPool()
	c := h2.NewClient(h2.Limits{}, pool, &ears{})
	request(t, c, true)
	if err := c.Feed(0, fromServer().headers(1, true, ":status: 200", "expect: 100-continue", "te: x").Bytes()); err != nil {
		t.Fatal(err)
	}
	var got []bool
	s := h2.NewServer(h2.Limits{}, pool, &ears{request: func(_ *h2.Stream, r *message.Request, _ bool) {
		got = append(got, r.Expect, r.Trailers, len(r.Fields) > 0)
	}})
	w := fromClient().headers(1, false, post("expect: 100-continue", "te: trailers")...).headers(3, false, post("expect: more")...)
	w.headers(5, false, post()...)
	if err := s.Feed(0, w.Bytes()); err != nil || fmt.Sprint(got) != "[true true false false false true false false false]" {
		t.Error(err, got)
	}
	// And it goes on to the service.
	sent := new([]string)
	e := recorder(sent)
	e.request = func(_ *h2.Stream, r *message.Request, _ bool) {
		*sent = append(*sent, fmt.Sprint(r.Expect, r.Trailers))
	}
	c, s = h2.NewClient(h2.Limits{}, pool, e), h2.NewServer(h2.Limits{}, pool, e)
	if _, err := c.Request(&message.Request{Method: "PUT", Authority: "a", Path: "/", Expect: true, Trailers: true, Length: message.Unknown}, false); err != nil {
		t.Fatal(err)
	}
	exchange(t, c, s)
	heardOf(t, "server", sent, "true true")
}

// Where there can be no body, none is announced (RFC 9110 section 8.6).
func TestLengthOfNothing(t *testing.T) {
	s := h2.NewServer(h2.Limits{}, nil, &ears{request: func(s *h2.Stream, r *message.Request, _ bool) {
		_ = s.Respond(&message.Response{Status: 103, Length: 5}, false)
		_ = s.Respond(&message.Response{Status: map[string]int{"GET": 204, "HEAD": 200, "CONNECT": 200}[r.Method], Length: 5}, true)
	}})
	w := fromClient().headers(1, true, get...).headers(3, true, append([]string{":method: HEAD"}, get[1:]...)...)
	w.headers(5, true, ":method: CONNECT", ":authority: a:1")
	if err := s.Feed(0, w.Bytes()); err != nil {
		t.Fatal(err)
	}
	want := "ack; HEADERS 1 :status=103; HEADERS 1 :status=204 end; HEADERS 3 :status=103; " +
		"HEADERS 3 :status=200 content-length=5 end; HEADERS 5 :status=103; HEADERS 5 :status=200 end"
	if got := strings.Join(read(s.Output()), "; "); got != want {
		t.Error(got)
	}
}

// Streams that wait for the same window or for room take turns, a frame each.
func TestFairness(t *testing.T) {
	const streams, size = 5, 200_000
	body := make([]byte, size)
	s := h2.NewServer(h2.Limits{}, nil, &ears{
		request:  func(s *h2.Stream, _ *message.Request, _ bool) { send(s, &answer, body, nil) },
		writable: writeMore,
	})
	got := map[uint32]int{}
	c := h2.NewClient(h2.Limits{StreamWindow: 1 << 20, ConnWindow: 1 << 20}, nil, &ears{
		data: func(s *h2.Stream, p []byte, _ bool) {
			got[s.ID()] += len(p)
			s.Consumed(len(p))
			least, most := size, 0
			for id := uint32(1); id < 2*streams; id += 2 {
				least, most = min(least, got[id]), max(most, got[id])
			}
			if most-least > 64<<10+16<<10+16384 {
				t.Fatalf("one stream has %d bytes, another %d", most, least)
			}
		},
	})
	exchange(t, c, s)
	for range streams {
		request(t, c, true)
	}
	for rounds := 0; c.Streams() > 0; rounds++ {
		if out := c.Output(); len(out) > 0 {
			if err := s.Feed(0, out); err != nil {
				t.Fatal(err)
			}
			c.Sent(len(out))
		}
		if len(s.Output()) > 64<<10+16384+1000 {
			t.Fatalf("%d bytes are queued", len(s.Output()))
		}
		n := min(len(s.Output()), 10_000)
		if err := c.Feed(0, s.Output()[:n]); err != nil {
			t.Fatal(err)
		}
		s.Sent(n)
	}
}

// A head that is longer than a frame goes on in CONTINUATION.
func TestLongHead(t *testing.T) {
	c, s, _, atServer := ends(t, h2.Limits{})
	r := call
	r.Fields = nil
	for i := range 6 {
		r.Fields = append(r.Fields, message.Field{Name: fmt.Sprintf("x-%d", i), Value: strings.Repeat("v", 10_000)})
	}
	if _, err := c.Request(&r, true); err != nil {
		t.Fatal(err)
	}
	exchange(t, c, s)
	heardOf(t, "server", atServer, "request 1 POST service.test:8443 /helloworld.Greeter/SayHello end")
}

// The number of streams that the service takes is kept to, also when it says so late.
func TestConcurrency(t *testing.T) {
	c := h2.NewClient(h2.Limits{}, nil, &ears{})
	n := 0
	for ; c.CanOpen(); n++ {
		request(t, c, true)
	}
	if n != 100 {
		t.Errorf("%d before the service has spoken", n)
	}
	w := newScript().raw(4, 0, 0, "\x00\x03\x00\x00\x00\x66")
	if err := c.Feed(0, w.Bytes()); err != nil {
		t.Fatal(err)
	}
	for ; c.CanOpen(); n++ {
		request(t, c, true)
	}
	if n != 0x66 {
		t.Errorf("%d after it has", n)
	}
	for said, want := range map[string]int{"": 256, "\x00\x03\x00\x00\x00\x64": 100} {
		c = h2.NewClient(h2.Limits{}, nil, &ears{})
		if err := c.Feed(0, newScript().raw(4, 0, 0, said).raw(4, 0, 0, "").Bytes()); err != nil {
			t.Fatal(err)
		}
		for n = 0; c.CanOpen(); n++ {
			request(t, c, true)
			c.Sent(len(c.Output()))
		}
		if n != want {
			t.Errorf("%d, want %d", n, want)
		}
	}
}

// More than the windows is refused, on the stream or for the connection.
func TestWindowsAreKept(t *testing.T) {
	hold := func(l h2.Limits) (*h2.Conn, *[]string) {
		log := new([]string)
		e := recorder(log)
		e.data = func(*h2.Stream, []byte, bool) {}
		return h2.NewServer(l, nil, e), log
	}
	fill := func(w *script, id uint32, n int) {
		for ; n > 0; n -= 16384 {
			w.data(id, false, strings.Repeat("x", min(n, 16384)))
		}
	}
	// Before our SETTINGS are acknowledged, the window is that of the RFC.
	c, log := hold(h2.Limits{StreamWindow: 1000, ConnWindow: 200_000})
	w := fromClient().headers(1, false, get...)
	fill(w, 1, 65535)
	if err := c.Feed(0, w.Bytes()); err != nil || len(*log) != 1 {
		t.Fatal(err, *log)
	}
	// After that it is ours, and may be less than nothing.
	w = newScript().raw(4, 1, 0, "").headers(3, false, get...)
	fill(w, 3, 1000)
	w.data(1, true, "").data(3, false, "x")
	if err := c.Feed(0, w.Bytes()); err != nil {
		t.Fatal(err)
	}
	heardOf(t, "server", log, "request 1 GET a.test /", "request 3 GET a.test /", "closed 3 FLOW_CONTROL_ERROR 3")

	c, _ = hold(h2.Limits{StreamWindow: 100_000, ConnWindow: 70_000})
	w = fromClient().headers(1, false, get...)
	fill(w, 1, 70_001)
	var e *h2.Error
	if err := c.Feed(0, w.Bytes()); !errors.As(err, &e) || e.Code != h2.FlowControlError {
		t.Error(err)
	}
	// So is what comes after a reset, whatever it is made of.
	c, _ = hold(h2.Limits{StreamWindow: 50_000, ConnWindow: 70_000})
	w = fromClient().headers(1, true, get...)
	fill(w, 1, 500_000)
	for range 1000 {
		w.raw(0, 8, 1, "\xff"+strings.Repeat("x", 255))
	}
	if err := c.Feed(0, w.Bytes()); err != nil {
		t.Error(err)
	}
	// And padding is given back on its stream.
	c, log = hold(h2.Limits{StreamWindow: 500, ConnWindow: 70_000})
	w = fromClient().raw(4, 1, 0, "").headers(1, false, get...)
	for range 1000 {
		w.raw(0, 8, 1, "\xff"+strings.Repeat("x", 255))
	}
	if err := c.Feed(0, w.Bytes()); err != nil || len(*log) != 1 {
		t.Error(err, *log)
	}
	// What ends unconsumed is given back to the connection.
	c, _ = hold(h2.Limits{StreamWindow: 50_000, ConnWindow: 70_000})
	w = fromClient()
	for id := uint32(1); id < 99; id += 2 {
		w.headers(id, false, get...)
		fill(w, id, 50_000)
		w.raw(3, 0, id, "\x00\x00\x00\x08")
	}
	if err := c.Feed(0, w.Bytes()); err != nil {
		t.Error(err)
	}
}

// A window that SETTINGS change changes for streams that are open, and may be less than nothing (RFC 9113 section 6.9.2).
func TestWindowsMove(t *testing.T) {
	s := h2.NewServer(h2.Limits{}, nil, &ears{
		request:  func(s *h2.Stream, _ *message.Request, _ bool) { send(s, &answer, []byte("0123456789"), nil) },
		writable: writeMore,
	})
	window := func(n byte) *script { return newScript().raw(4, 0, 0, "\x00\x04\x00\x00\x00"+string([]byte{n})) }
	w := newScript()
	w.Buffer.WriteString(preface)
	w.Buffer.Write(window(4).Bytes())
	var got []string
	for _, b := range [][]byte{w.headers(1, true, get...).Bytes(), window(2).Bytes(), window(4).Bytes(), window(6).Bytes(), window(10).Bytes()} {
		if err := s.Feed(0, b); err != nil {
			t.Fatal(err)
		}
		got = append(got, read(s.Output())[1:]...)
		s.Sent(len(s.Output()))
	}
	want := `HEADERS 1 :status=200 content-type=application/grpc; DATA 1 "0123"; DATA 1 "45"; DATA 1 "6789" end`
	if strings.Join(got, "; ") != want {
		t.Errorf("got %q", got)
	}
}

// An empty frame may end a body, and what comes in pieces costs nothing but its events.
func TestPieces(t *testing.T) {
	c, log := server(h2.Limits{})()
	if err := c.Feed(0, fromClient().headers(1, false, get...).data(1, true, "").headers(3, false, get...).raw(0, 9, 3, "\x01x").Bytes()); err != nil {
		t.Fatal(err)
	}
	heardOf(t, "server", log, "request 1 GET a.test /", "data 1: end", "request 3 GET a.test /", "data 3: end")
	block := newScript().encode(post()...)
	s := h2.NewServer(h2.Limits{}, nil, &ears{request: func(s *h2.Stream, _ *message.Request, _ bool) { _ = s.Respond(&answer, true) }})
	if err := s.Feed(0, fromClient().Bytes()); err != nil {
		t.Fatal(err)
	}
	id := uint32(1)
	w := newScript()
	piecemeal := func() {
		w.Reset()
		w.raw(1, 1, id, string(block[:5])).raw(9, 4, id, string(block[5:]))
		id += 2
		for b := w.Bytes(); len(b) > 0; b = b[1:] {
			if err := s.Feed(0, b[:1]); err != nil {
				t.Fatal(err)
			}
		}
		s.Sent(len(s.Output()))
	}
	piecemeal()
	// What encode made has literals, each of which is a string; the script itself makes a few.
	if n := testing.AllocsPerRun(100, piecemeal); n > 8 {
		t.Errorf("%v allocations", n)
	}
}

// A block is bounded in one frame as in many.
func TestBlockInOneFrame(t *testing.T) {
	var e *h2.Error
	c, _ := server(h2.Limits{HeaderBlock: 100})()
	if err := c.Feed(0, fromClient().headers(1, true, post("x: "+strings.Repeat("~", 100))...).Bytes()); !errors.As(err, &e) || e.Code != h2.EnhanceYourCalm {
		t.Error(err)
	}
}

// Streams above the limit are refused, and their frames that are on their way are let pass.
func TestRefused(t *testing.T) {
	w := fromClient()
	for id := uint32(1); id < 7; id += 2 {
		w.headers(id, false, get...).data(id, false, "x").headers(id, true, "a: b")
	}
	wrote, events, err := play(t, server(h2.Limits{Streams: 2}), w.Bytes())
	want := "request 1 GET a.test /; data 1:x; trailers 1 [{a b false}]; request 3 GET a.test /; data 3:x; trailers 3 [{a b false}]"
	if fmt.Sprint(wrote) != "[ack reset 5 REFUSED_STREAM]" || strings.Join(events, "; ") != want || err != nil {
		t.Errorf("wrote %q, heard %q, %v", wrote, events, err)
	}
}

// What a service answers is bounded and has the form that its status and the request allow.
func TestResponses(t *testing.T) {
	large := strings.Repeat("x", 600)
	for _, c := range []struct {
		method string
		script *script
		want   string
	}{
		{"GET", fromServer().headers(1, true, ":status: 200", "x: "+large), "closed 1 ENHANCE_YOUR_CALM 3"},
		{"GET", fromServer().headers(1, false, ":status: 200").headers(1, true, "x: "+large), "response 1 200; closed 1 ENHANCE_YOUR_CALM 3"},
		{"GET", fromServer().headers(1, false, ":status: 304", "content-length: 1").data(1, true, "x"), "response 1 304; closed 1 PROTOCOL_ERROR 3"},
		{"GET", fromServer().headers(1, true, ":status: 304", "content-length: 1"), "response 1 304 end"},
		{"GET", fromServer().headers(1, true, ":status: 200", "content-length: 1"), "closed 1 PROTOCOL_ERROR 3"},
		{"GET", fromServer().headers(1, true, ":status: 204", "content-length: 1"), "closed 1 PROTOCOL_ERROR 3"},
		{"GET", fromServer().headers(1, false, ":status: 103", "content-length: 1"), "closed 1 PROTOCOL_ERROR 3"},
		{"GET", fromServer().headers(1, true, ":status: 200", "host: a"), "response 1 200 end"},
	} {
		_, events, _ := play(t, client(h2.Limits{HeaderBytes: 500}, 1, c.method), c.script.Bytes())
		if got := strings.Join(events, "; "); got != c.want {
			t.Errorf("heard %q, want %q", got, c.want)
		}
	}
	// A tunnel has no length, and no end that is announced.
	for lines, want := range map[string]string{"": "response 1 200; data 1:x", "content-length: 5": "closed 1 PROTOCOL_ERROR 3"} {
		log := new([]string)
		c := h2.NewClient(h2.Limits{}, nil, recorder(log))
		s, err := c.Request(&message.Request{Method: "CONNECT", Authority: "a:1", Length: message.Unknown}, false)
		if err != nil || !errors.Is(s.Respond(&answer, true), h2.ErrState) {
			t.Fatal(err)
		}
		head := []string{":status: 200"}
		if lines != "" {
			head = append(head, lines)
		}
		if err := c.Feed(0, fromServer().headers(1, false, head...).data(1, false, "x").Bytes()); err != nil {
			t.Fatal(err)
		}
		heardOf(t, "client", log, want)
	}
}

// Answers to calls that were given up long ago are let pass.
func TestLateAnswers(t *testing.T) {
	c := h2.NewClient(h2.Limits{}, nil, &ears{})
	w := fromServer()
	for range 90 {
		s := request(t, c, true)
		w.headers(s.ID(), false, ":status: 200", "x-n: "+fmt.Sprint(s.ID())).data(s.ID(), true, "x")
		s.Reset(h2.Cancel)
	}
	c.Sent(len(c.Output()))
	if err := c.Feed(0, w.Bytes()); err != nil || fmt.Sprint(read(c.Output())) != "[ack]" {
		t.Error(err, read(c.Output()))
	}
}

func TestExtendedConnect(t *testing.T) {
	c, s, _, atServer := ends(t, h2.Limits{Connect: "websocket"})
	r := message.Request{Method: "CONNECT", Scheme: "https", Authority: "a", Path: "/c", Upgrade: "websocket", Length: message.Unknown}
	if _, err := c.Request(&r, false); err != nil {
		t.Fatal(err)
	}
	r = message.Request{Method: "CONNECT", Authority: "a:1", Length: message.Unknown}
	if _, err := c.Request(&r, false); err != nil {
		t.Fatal(err)
	}
	exchange(t, c, s)
	heardOf(t, "server", atServer, "request 1 CONNECT a /cwebsocket", "request 3 CONNECT a:1 ")
}

func TestNames(t *testing.T) {
	if h2.EnhanceYourCalm.String() != "ENHANCE_YOUR_CALM" || h2.ErrCode(77).String() != "code 77" {
		t.Error("names of codes")
	}
	if got := (&h2.Error{Code: h2.Cancel, Why: "why"}).Error(); got != "HTTP/2: why (CANCEL)" {
		t.Error(got)
	}
}
