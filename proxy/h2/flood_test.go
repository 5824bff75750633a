package h2_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/jurat-tls/jurat/proxy/h2"
	"github.com/jurat-tls/jurat/proxy/message"
)

// flood feeds one piece after the other until the machine has had enough, and answers after how many that was. With read,
// what the machine writes is read.
func flood(t *testing.T, c *h2.Conn, begin []byte, read bool, piece func(i int) []byte) int {
	t.Helper()
	if err := c.Feed(0, begin); err != nil {
		t.Fatal(err)
	}
	for i := range 1_000_000 {
		err := c.Feed(0, piece(i))
		if len(c.Output()) > 256<<10 {
			t.Fatalf("%d bytes are queued", len(c.Output()))
		}
		if err != nil {
			var e *h2.Error
			if !errors.As(err, &e) || e.Code != h2.EnhanceYourCalm {
				t.Fatalf("after %d: %v", i, err)
			}
			if c.Streams() != 0 {
				t.Fatal("streams go on")
			}
			return i
		}
		if read {
			c.Sent(len(c.Output()))
		}
	}
	t.Fatal("it goes on for ever")
	return 0
}

func piece(write func(w *script)) []byte {
	w := newScript()
	write(w)
	return w.Bytes()
}

func always(write func(w *script)) func(int) []byte {
	b := piece(write)
	return func(int) []byte { return b }
}

func TestFloods(t *testing.T) {
	open := fromClient().headers(1, false, post()...).Bytes()
	done := fromClient().headers(1, true, get...).Bytes()
	block := newScript().encode(get...)
	next := func(write func(w *script, id uint32)) func(int) []byte {
		return func(i int) []byte { return piece(func(w *script) { write(w, uint32(2*i+3)) }) }
	}
	request := func(w *script, id uint32) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true})
	}
	for _, c := range []struct {
		name  string
		begin []byte
		read  bool
		most  int // pieces until the end
		piece func(i int) []byte
	}{
		{"PING", done, true, 2100, always(func(w *script) { w.raw(6, 0, 0, "12345678") })},
		{"PING unread (CVE-2019-9512)", done, false, 2000, always(func(w *script) { w.raw(6, 0, 0, "12345678") })},
		{"answers to no PING", done, true, 2100, always(func(w *script) { w.raw(6, 1, 0, "12345678") })},
		{"SETTINGS (CVE-2019-9515)", done, true, 2100, always(func(w *script) { w.raw(4, 0, 0, "") })},
		{"long SETTINGS", done, true, 20, always(func(w *script) { w.raw(4, 0, 0, strings.Repeat("\x00\x04\x00\x00\x00\x01", 2730)) })},
		{"acks of SETTINGS", done, true, 2100, always(func(w *script) { w.raw(4, 1, 0, "") })},
		{"PRIORITY (CVE-2019-9513)", done, true, 2100, always(func(w *script) { w.raw(2, 0, 9, "\x00\x00\x00\x01\x01") })},
		{"empty DATA (CVE-2019-9518)", open, true, 2100, always(func(w *script) { w.data(1, false, "") })},
		{"padding alone", open, true, 2100, always(func(w *script) { w.raw(0, 8, 1, "\x01\x00") })},
		{"WINDOW_UPDATE", open, true, 2100, always(func(w *script) { w.raw(8, 0, 1, "\x00\x00\x00\x01") })},
		{"WINDOW_UPDATE of the connection", open, true, 2100, always(func(w *script) { w.raw(8, 0, 0, "\x00\x00\x00\x01") })},
		{"unknown frames", done, true, 2100, always(func(w *script) { w.raw(77, 0, 0, "") })},
		{"GOAWAY", done, true, 2100, always(func(w *script) { w.raw(7, 0, 0, "12345678") })},
		{"RST_STREAM of what has ended", fromClient().headers(1, true, get...).raw(3, 0, 1, "\x00\x00\x00\x08").Bytes(), true, 2100, always(func(w *script) { w.raw(3, 0, 1, "\x00\x00\x00\x08") })},
		{"DATA of what has ended", fromClient().headers(1, true, get...).raw(3, 0, 1, "\x00\x00\x00\x08").Bytes(), true, 2100, always(func(w *script) { w.data(1, false, "x") })},
		{"DATA of what we have reset", fromClient().headers(1, true, get...).data(1, false, "x").Bytes(), true, 2100, always(func(w *script) { w.data(1, false, "x") })},
		{"HEADERS of what we have reset", fromClient().headers(1, true, get...).data(1, false, "x").Bytes(), true, 2100, always(func(w *script) { w.raw(1, 5, 1, "") })},
		{"rapid reset (CVE-2023-44487)", done, true, 520, next(func(w *script, id uint32) {
			request(w, id)
			w.raw(3, 0, id, "\x00\x00\x00\x08")
		})},
		{"resets by a wrong WINDOW_UPDATE (CVE-2025-8671)", done, true, 520, next(func(w *script, id uint32) {
			request(w, id)
			w.raw(8, 0, id, "\x00\x00\x00\x00")
		})},
		{"resets by an overflowing WINDOW_UPDATE", done, true, 520, next(func(w *script, id uint32) {
			request(w, id)
			w.raw(8, 0, id, "\x7f\xff\xff\xff")
		})},
		{"resets by DATA after the end", done, true, 520, next(func(w *script, id uint32) {
			_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true})
			w.data(id, true, "")
		})},
		{"resets by trailers that don't end", done, true, 520, next(func(w *script, id uint32) {
			request(w, id)
			request(w, id)
		})},
		{"malformed heads", done, true, 520, next(func(w *script, id uint32) {
			w.raw(1, 5, id, "\x82")
		})},
		{"heads that are too large", done, true, 520, func() func(i int) []byte {
			large := newScript().encode(append(post(), "x: "+strings.Repeat("x", 1100))...)
			return next(func(w *script, id uint32) { w.raw(1, 5, id, string(large)) })
		}()},
		{"more streams than allowed", done, true, 2500, next(request)},
		{"requests whose answers are not read", done, false, 20_000, next(func(w *script, id uint32) {
			_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true})
		})},
		{"CONTINUATION (CVE-2024-27316)", fromClient().raw(1, 0, 1, "").Bytes(), true, 17, always(func(w *script) { w.raw(9, 0, 1, "") })},
		{"a long header block", fromClient().raw(1, 0, 1, "").Bytes(), true, 11, always(func(w *script) { w.raw(9, 0, 1, strings.Repeat("\x00\x01a\x00", 4000)) })},
	} {
		t.Run(c.name, func(t *testing.T) {
			limits := h2.Limits{}
			e := &ears{}
			if strings.HasPrefix(c.name, "heads that are") {
				limits.HeaderBytes, limits.HeaderBlock = 1000, 2000
			}
			if strings.HasPrefix(c.name, "requests whose") {
				e.request = func(s *h2.Stream, _ *message.Request, end bool) {
					if err := s.Respond(&answer, true); err != nil {
						t.Error(err)
					}
				}
			}
			if got := flood(t, h2.NewServer(limits, nil, e), c.begin, c.read, c.piece); got > c.most {
				t.Errorf("it took %d", got)
			}
		})
	}
}

// A service's frames are bounded alike.
func TestClientFloods(t *testing.T) {
	for name, f := range map[string]func(int) []byte{
		"PING":          always(func(w *script) { w.raw(6, 0, 0, "12345678") }),
		"SETTINGS":      always(func(w *script) { w.raw(4, 0, 0, "") }),
		"informational": always(func(w *script) { w.headers(1, false, ":status: 103") }),
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := client(h2.Limits{}, 1, "GET")()
			if got := flood(t, c, fromServer().Bytes(), true, f); got > 2100 {
				t.Errorf("it took %d", got)
			}
		})
	}
}

// The clock's being far on at the beginning gives nothing; neither does a shutdown.
func TestFloodLate(t *testing.T) {
	c := h2.NewServer(h2.Limits{}, nil, &ears{})
	c.Shutdown()
	c.Shutdown()
	if err := c.Feed(time.Hour, fromClient().Bytes()); err != nil {
		t.Fatal(err)
	}
	block := newScript().encode(get...)
	for i := range uint32(10_000) {
		c.Sent(len(c.Output()))
		if c.Feed(time.Hour, newScript().raw(1, 4, 2*i+1, string(block)).Bytes()) != nil {
			if i > 2100 || c.Streams() > 0 {
				t.Error(i, c.Streams())
			}
			return
		}
	}
	t.Error("it goes on for ever")
}

// What is spent comes back, by time and by what moves.
func TestBudgetsComeBack(t *testing.T) {
	ping := newScript().raw(6, 0, 0, "12345678").Bytes()
	c := h2.NewServer(h2.Limits{Frames: h2.Rate{Burst: 10, PerSecond: 5}}, nil, &ears{})
	if err := c.Feed(0, fromClient().Bytes()); err != nil {
		t.Fatal(err)
	}
	now := time.Duration(0)
	for i := range 1000 {
		now += 200 * time.Millisecond
		if err := c.Feed(now, ping); err != nil {
			t.Fatal(i, err)
		}
		c.Sent(len(c.Output()))
	}
	// A PING for each piece of a body that comes, as one measures a link.
	c = h2.NewServer(h2.Limits{Frames: h2.Rate{Burst: 10}}, nil, &ears{})
	if err := c.Feed(0, fromClient().headers(1, false, post()...).Bytes()); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if err := c.Feed(0, append(newScript().data(1, false, "x").Bytes(), ping...)); err != nil {
			t.Fatal(i, err)
		}
		c.Sent(len(c.Output()))
	}
	// As many calls as one likes, half of them cancelled.
	w := fromClient()
	c = h2.NewServer(h2.Limits{Resets: h2.Rate{Burst: 10}}, nil, &ears{
		request: func(s *h2.Stream, r *message.Request, end bool) {
			if end {
				_ = s.Respond(&answer, true)
			}
		},
	})
	for i := range uint32(5000) {
		w.headers(4*i+1, true, get...).headers(4*i+3, false, get...).raw(3, 0, 4*i+3, "\x00\x00\x00\x08")
		if err := c.Feed(0, w.Bytes()); err != nil {
			t.Fatal(i, err)
		}
		c.Sent(len(c.Output()))
		w.Reset()
	}
}

// A head that is too large is answered, and the connection goes on.
func TestTooLarge(t *testing.T) {
	for _, lines := range [][]string{
		post("x: " + strings.Repeat("x", 1100)),
		post(strings.Split(strings.Repeat("a: b\n", 19)+"a: b", "\n")...),
	} {
		w := fromClient().headers(1, false, lines...).data(1, false, "abc").headers(1, true, "a: b")
		w.headers(3, true, lines...).headers(5, true, get...)
		wrote, events, err := play(t, server(h2.Limits{HeaderBytes: 1000, HeaderBlock: 2000, HeaderFields: 20}), w.Bytes())
		want := "[ack HEADERS 1 :status=431 content-length=0 end reset 1 NO_ERROR HEADERS 3 :status=431 content-length=0 end]"
		if fmt.Sprint(wrote) != want || fmt.Sprint(events) != "[request 5 GET a.test / end]" || err != nil {
			t.Errorf("wrote %q, heard %q, %v", wrote, events, err)
		}
	}
}

// An idle connection holds little, whatever it has carried.
func TestIdleMemory(t *testing.T) {
	pool := h2.NewPool()
	const n = 500
	conns := make([][2]*h2.Conn, n)
	body := make([]byte, 20_000)
	measure := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := measure()
	for i := range conns {
		s := h2.NewServer(h2.Limits{}, pool, &ears{
			request:  func(s *h2.Stream, _ *message.Request, _ bool) { send(s, &answer, body, ok) },
			writable: writeMore,
		})
		c := h2.NewClient(h2.Limits{}, pool, &ears{})
		exchange(t, c, s)
		for range 20 {
			if _, err := c.Request(&call, true); err != nil {
				t.Fatal(err)
			}
		}
		exchange(t, c, s)
		if !c.Idle() || !s.Idle() {
			t.Fatal("not idle")
		}
		conns[i] = [2]*h2.Conn{c, s}
	}
	each := (measure() - before) / (2 * n)
	t.Logf("%d bytes each", each)
	if each > 10_000 {
		t.Error("that is too much")
	}
	runtime.KeepAlive(conns)
}
