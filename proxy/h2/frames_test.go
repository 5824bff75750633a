package h2_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/jurat-tls/jurat/proxy/h2"
	"github.com/jurat-tls/jurat/proxy/message"
)

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// script is what a peer says, written by another implementation.
type script struct {
	bytes.Buffer
	*http2.Framer
	enc   *hpack.Encoder
	block bytes.Buffer
}

func newScript() *script {
	w := &script{}
	w.Framer = http2.NewFramer(&w.Buffer, nil)
	w.AllowIllegalWrites = true
	w.enc = hpack.NewEncoder(&w.block)
	return w
}

// fromClient is a script that begins as one of a client does.
func fromClient() *script {
	w := newScript()
	w.Buffer.WriteString(preface)
	_ = w.WriteSettings()
	return w
}

func fromServer() *script {
	w := newScript()
	_ = w.WriteSettings()
	return w
}

// encode is a header block of "name: value" lines; a name may begin with a colon.
func (w *script) encode(lines ...string) []byte {
	w.block.Reset()
	for _, l := range lines {
		at := strings.Index(l[1:], ":") + 1
		_ = w.enc.WriteField(hpack.HeaderField{Name: l[:at], Value: strings.TrimPrefix(l[at+1:], " ")})
	}
	return bytes.Clone(w.block.Bytes())
}

func (w *script) headers(id uint32, end bool, lines ...string) *script {
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: w.encode(lines...), EndStream: end, EndHeaders: true})
	return w
}

func (w *script) data(id uint32, end bool, s string) *script {
	_ = w.WriteData(id, end, []byte(s))
	return w
}

func (w *script) raw(kind http2.FrameType, flags http2.Flags, id uint32, payload string) *script {
	_ = w.WriteRawFrame(kind, flags, id, []byte(payload))
	return w
}

var get = []string{":method: GET", ":scheme: http", ":path: /", ":authority: a.test"}

func post(more ...string) []string {
	return append([]string{":method: POST", ":scheme: http", ":path: /", ":authority: a.test"}, more...)
}

// read answers what a machine has written, in words, as another implementation reads it. What each machine says at its
// beginning is left out.
func read(out []byte) (lines []string) {
	out = bytes.TrimPrefix(out, []byte(preface))
	fr := http2.NewFramer(io.Discard, bytes.NewReader(out))
	fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		f, err := fr.ReadFrame()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			return append(lines, "ERROR "+err.Error())
		}
		line := fmt.Sprintf("%v %d", f.Header().Type, f.Header().StreamID)
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				continue
			}
			line = "ack"
		case *http2.MetaHeadersFrame:
			for _, h := range f.Fields {
				line += fmt.Sprintf(" %s=%s", h.Name, h.Value)
			}
			if f.StreamEnded() {
				line += " end"
			}
		case *http2.DataFrame:
			line += fmt.Sprintf(" %q", f.Data())
			if f.StreamEnded() {
				line += " end"
			}
		case *http2.RSTStreamFrame:
			line = fmt.Sprintf("reset %d %v", f.StreamID, f.ErrCode)
		case *http2.GoAwayFrame:
			line = fmt.Sprintf("goaway %d %v", f.LastStreamID, f.ErrCode)
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 && f.Increment == 1<<20-65535 {
				continue
			}
			line = fmt.Sprintf("window %d %d", f.StreamID, f.Increment)
		case *http2.PingFrame:
			line = fmt.Sprintf("ping %q ack=%v", f.Data[:], f.IsAck())
		}
		lines = append(lines, line)
	}
}

// play feeds a script whole, and again byte by byte: what is written has to be the same.
func play(t *testing.T, create func() (*h2.Conn, *[]string), script []byte) (wrote, events []string, err error) {
	t.Helper()
	c, log := create()
	err = c.Feed(0, script)
	wrote, events = read(c.Output()), *log
	c2, log2 := create()
	var err2 error
	for i := range script {
		if err2 = c2.Feed(0, script[i:i+1]); err2 != nil {
			break
		}
	}
	if fmt.Sprint(err) != fmt.Sprint(err2) || fmt.Sprint(read(c2.Output())) != fmt.Sprint(wrote) {
		t.Errorf("byte by byte: %v, %q; at once: %v, %q", err2, read(c2.Output()), err, wrote)
	}
	if got, want := fmt.Sprint(merge(*log2)), fmt.Sprint(merge(events)); got != want {
		t.Errorf("byte by byte: %s; at once: %s", got, want)
	}
	return wrote, events, err
}

// merge joins the parts of bodies.
func merge(events []string) (merged []string) {
	for _, e := range events {
		if n := len(merged) - 1; n >= 0 && strings.HasPrefix(e, "data ") {
			id := e[:strings.IndexByte(e, ':')+1]
			if strings.HasPrefix(merged[n], id) && !strings.HasSuffix(merged[n], " end") {
				merged[n] += e[len(id):]
				continue
			}
		}
		merged = append(merged, e)
	}
	return merged
}

func mark(end bool) string {
	if end {
		return " end"
	}
	return ""
}

// recorder writes down all events.
func recorder(log *[]string) *ears {
	say := func(format string, args ...any) { *log = append(*log, fmt.Sprintf(format, args...)) }
	return &ears{
		request: func(s *h2.Stream, r *message.Request, end bool) {
			say("request %d %s %s %s%s%s", s.ID(), r.Method, r.Authority, r.Path, r.Upgrade, mark(end))
		},
		response: func(s *h2.Stream, r *message.Response, end bool) {
			say("response %d %d%s", s.ID(), r.Status, mark(end))
		},
		data: func(s *h2.Stream, p []byte, end bool) {
			say("data %d:%s%s", s.ID(), p, mark(end))
			s.Consumed(len(p))
		},
		trailers: func(s *h2.Stream, f message.Fields) { say("trailers %d %v", s.ID(), f) },
		closed:   func(s *h2.Stream, why h2.Cause) { say("closed %d %v %d", s.ID(), why.Code, why.By) },
		goAway:   func(_ *h2.Conn, last uint32, code h2.ErrCode) { say("goaway %d %v", last, code) },
	}
}

func server(l h2.Limits) func() (*h2.Conn, *[]string) {
	return func() (*h2.Conn, *[]string) {
		log := new([]string)
		return h2.NewServer(l, nil, recorder(log)), log
	}
}

// client is one that has sent n requests with bodies to come.
func client(l h2.Limits, n int, method string) func() (*h2.Conn, *[]string) {
	return func() (*h2.Conn, *[]string) {
		log := new([]string)
		c := h2.NewClient(l, nil, recorder(log))
		for range n {
			if _, err := c.Request(&message.Request{Method: method, Authority: "a", Path: "/", Length: message.Unknown}, false); err != nil {
				panic(err)
			}
		}
		c.Sent(len(c.Output()))
		return c, log
	}
}

func TestServerFrames(t *testing.T) {
	priority := func(on uint32) string { return string([]byte{0, 0, 0, byte(on), 7}) }
	for _, c := range []struct {
		name   string
		script *script
		want   string // what is written, the ack of SETTINGS left out
	}{
		{"no preface", func() *script { w := newScript(); w.Buffer.WriteString("GET / HTTP/1.1\r\n\r\n"); return w }(), "goaway 0 PROTOCOL_ERROR"},
		{"no SETTINGS", func() *script { w := newScript(); w.Buffer.WriteString(preface); return w.headers(1, true, get...) }(), "goaway 0 PROTOCOL_ERROR"},
		{"SETTINGS begin with an ack", func() *script { w := newScript(); w.Buffer.WriteString(preface); return w.raw(4, 1, 0, "") }(), "goaway 0 PROTOCOL_ERROR"},
		{"too large a frame", fromClient().raw(0, 0, 1, strings.Repeat("x", 16385)), "goaway 0 FRAME_SIZE_ERROR"},
		{"DATA of no stream", fromClient().data(0, false, "x"), "goaway 0 PROTOCOL_ERROR"},
		{"DATA of an idle stream", fromClient().data(1, false, "x"), "goaway 0 PROTOCOL_ERROR"},
		{"DATA of a server's stream", fromClient().headers(3, true, get...).data(2, false, "x"), "goaway 3 PROTOCOL_ERROR"},
		{"DATA after the end", fromClient().headers(1, true, get...).data(1, false, "x"), "reset 1 STREAM_CLOSED"},
		{"DATA after RST_STREAM", fromClient().headers(1, false, get...).raw(3, 0, 1, "\x00\x00\x00\x08").data(1, false, "x"), "reset 1 STREAM_CLOSED"},
		{"DATA after our RST_STREAM", fromClient().headers(1, true, get...).data(1, false, "x").data(1, false, "x"), "reset 1 STREAM_CLOSED"},
		{"padding without a length", fromClient().headers(1, false, get...).raw(0, 8, 1, ""), "goaway 1 FRAME_SIZE_ERROR"},
		{"padding above the frame", fromClient().headers(1, false, get...).raw(0, 8, 1, "\x04abc"), "goaway 1 PROTOCOL_ERROR"},
		{"padded DATA", fromClient().headers(1, false, get...).raw(0, 9, 1, "\x02abcde\x00\x00"), ""},
		{"HEADERS of no stream", fromClient().headers(0, true, get...), "goaway 0 PROTOCOL_ERROR"},
		{"HEADERS of a server's stream", fromClient().headers(2, true, get...), "goaway 0 PROTOCOL_ERROR"},
		{"a number that goes back", fromClient().headers(5, true, get...).headers(3, true, get...), "goaway 5 PROTOCOL_ERROR"},
		{"HEADERS after the end", fromClient().headers(1, true, get...).headers(1, true, "a: b"), "reset 1 STREAM_CLOSED"},
		{"HEADERS after RST_STREAM", fromClient().headers(1, true, get...).raw(3, 0, 1, "\x00\x00\x00\x08").headers(1, true, get...), "goaway 1 STREAM_CLOSED"},
		{"HEADERS after our RST_STREAM", fromClient().headers(1, true, get...).data(1, false, "x").headers(1, true, "a: b"), "reset 1 STREAM_CLOSED"},
		{"HEADERS padded above the frame", fromClient().raw(1, 0xd, 1, "\x04abc"), "goaway 0 PROTOCOL_ERROR"},
		{"HEADERS padded without a length", fromClient().raw(1, 0xd, 1, ""), "goaway 0 FRAME_SIZE_ERROR"},
		{"HEADERS without the priority", fromClient().raw(1, 0x25, 1, "abc"), "goaway 0 FRAME_SIZE_ERROR"},
		{"HEADERS that depend on themselves", fromClient().raw(1, 0x25, 1, priority(1)+string(newScript().encode(get...))), "reset 1 PROTOCOL_ERROR"},
		{"HEADERS that depend on others", fromClient().raw(1, 0x25, 3, priority(1)+string(newScript().encode(get...))), ""},
		{"no HPACK", fromClient().raw(1, 5, 1, "\xff\xff\xff\xff\xff"), "goaway 0 COMPRESSION_ERROR"},
		{"half a field", fromClient().raw(1, 5, 1, "\x40\x05ab"), "goaway 0 COMPRESSION_ERROR"},
		{"an index of nothing", fromClient().raw(1, 5, 1, "\x80"), "goaway 0 COMPRESSION_ERROR"},
		{"a table above what we allow", fromClient().raw(1, 5, 1, "\x3f\xe2\x1f"), "goaway 0 COMPRESSION_ERROR"},
		{"PRIORITY of no stream", fromClient().raw(2, 0, 0, priority(3)), "goaway 0 PROTOCOL_ERROR"},
		{"short PRIORITY", fromClient().raw(2, 0, 1, "abc"), "goaway 0 FRAME_SIZE_ERROR"},
		{"PRIORITY of itself", fromClient().raw(2, 0, 1, priority(1)), "goaway 0 PROTOCOL_ERROR"},
		{"PRIORITY", fromClient().raw(2, 0, 1, priority(3)), ""},
		{"RST_STREAM of no stream", fromClient().raw(3, 0, 0, "\x00\x00\x00\x08"), "goaway 0 PROTOCOL_ERROR"},
		{"RST_STREAM of an idle stream", fromClient().raw(3, 0, 1, "\x00\x00\x00\x08"), "goaway 0 PROTOCOL_ERROR"},
		{"short RST_STREAM", fromClient().headers(1, true, get...).raw(3, 0, 1, "\x00\x00\x08"), "goaway 1 FRAME_SIZE_ERROR"},
		{"SETTINGS of a stream", fromClient().raw(4, 0, 1, ""), "goaway 0 PROTOCOL_ERROR"},
		{"an ack that says something", fromClient().raw(4, 1, 0, "\x00\x01\x00\x00\x00\x00"), "goaway 0 FRAME_SIZE_ERROR"},
		{"SETTINGS of a wrong size", fromClient().raw(4, 0, 0, "\x00\x01\x00"), "goaway 0 FRAME_SIZE_ERROR"},
		{"push of 2", fromClient().raw(4, 0, 0, "\x00\x02\x00\x00\x00\x02"), "goaway 0 PROTOCOL_ERROR"},
		{"push of 1", fromClient().raw(4, 0, 0, "\x00\x02\x00\x00\x00\x01"), "ack"},
		{"extended CONNECT said twice", fromClient().raw(4, 0, 0, "\x00\x08\x00\x00\x00\x01\x00\x08\x00\x00\x00\x01"), "ack"},
		{"no extended CONNECT", fromClient().raw(4, 0, 0, "\x00\x08\x00\x00\x00\x00"), "ack"},
		{"too large a window", fromClient().raw(4, 0, 0, "\x00\x04\x80\x00\x00\x00"), "goaway 0 FLOW_CONTROL_ERROR"},
		{"too small a frame", fromClient().raw(4, 0, 0, "\x00\x05\x00\x00\x3f\xff"), "goaway 0 PROTOCOL_ERROR"},
		{"too large a frame size", fromClient().raw(4, 0, 0, "\x00\x05\x01\x00\x00\x00"), "goaway 0 PROTOCOL_ERROR"},
		{"extended CONNECT of 2", fromClient().raw(4, 0, 0, "\x00\x08\x00\x00\x00\x02"), "goaway 0 PROTOCOL_ERROR"},
		{"extended CONNECT taken back", fromClient().raw(4, 0, 0, "\x00\x08\x00\x00\x00\x01\x00\x08\x00\x00\x00\x00"), "goaway 0 PROTOCOL_ERROR"},
		{"unknown settings", fromClient().raw(4, 0, 0, "\x77\x77\xff\xff\xff\xff"), "ack"},
		{"a window that SETTINGS overflow", fromClient().headers(1, true, get...).raw(8, 0, 1, "\x7f\xff\x00\x00").raw(4, 0, 0, "\x00\x04\x7f\xff\xff\xff"), "goaway 1 FLOW_CONTROL_ERROR"},
		{"PUSH_PROMISE", fromClient().raw(5, 4, 1, "\x00\x00\x00\x02"), "goaway 0 PROTOCOL_ERROR"},
		{"PING", fromClient().raw(6, 0, 0, "12345678"), `ping "12345678" ack=true`},
		{"an answer to no PING", fromClient().raw(6, 1, 0, "12345678"), ""},
		{"PING of a stream", fromClient().raw(6, 0, 1, "12345678"), "goaway 0 PROTOCOL_ERROR"},
		{"short PING", fromClient().raw(6, 0, 0, "123"), "goaway 0 FRAME_SIZE_ERROR"},
		{"GOAWAY of a stream", fromClient().raw(7, 0, 1, "12345678"), "goaway 0 PROTOCOL_ERROR"},
		{"short GOAWAY", fromClient().raw(7, 0, 0, "1234567"), "goaway 0 FRAME_SIZE_ERROR"},
		{"WINDOW_UPDATE of nothing", fromClient().raw(8, 0, 0, "\x00\x00\x00\x00"), "goaway 0 PROTOCOL_ERROR"},
		{"a stream's WINDOW_UPDATE of nothing", fromClient().headers(1, true, get...).raw(8, 0, 1, "\x00\x00\x00\x00"), "reset 1 PROTOCOL_ERROR"},
		{"too large a WINDOW_UPDATE", fromClient().raw(8, 0, 0, "\x7f\xff\xff\xff"), "goaway 0 FLOW_CONTROL_ERROR"},
		{"a stream's too large WINDOW_UPDATE", fromClient().headers(1, true, get...).raw(8, 0, 1, "\x7f\xff\xff\xff"), "reset 1 FLOW_CONTROL_ERROR"},
		{"WINDOW_UPDATE of an idle stream", fromClient().raw(8, 0, 1, "\x00\x00\x00\x01"), "goaway 0 PROTOCOL_ERROR"},
		{"short WINDOW_UPDATE", fromClient().raw(8, 0, 0, "\x00\x00\x01"), "goaway 0 FRAME_SIZE_ERROR"},
		{"WINDOW_UPDATE after the end", fromClient().headers(1, true, get...).raw(3, 0, 1, "\x00\x00\x00\x08").raw(8, 0, 1, "\x00\x00\x00\x01"), ""},
		{"CONTINUATION of nothing", fromClient().raw(9, 4, 1, ""), "goaway 0 PROTOCOL_ERROR"},
		{"CONTINUATION after the end of the block", fromClient().headers(1, true, get...).raw(9, 4, 1, ""), "goaway 1 PROTOCOL_ERROR"},
		{"CONTINUATION of another stream", fromClient().raw(1, 1, 1, "").raw(9, 4, 3, ""), "goaway 0 PROTOCOL_ERROR"},
		{"a block broken off", fromClient().raw(1, 1, 1, "").raw(6, 0, 0, "12345678"), "goaway 0 PROTOCOL_ERROR"},
		{"a block broken off by an unknown frame", fromClient().raw(1, 1, 1, "").raw(99, 0, 0, "12345678"), "goaway 0 PROTOCOL_ERROR"},
		{"a block in pieces", fromClient().raw(1, 1, 1, "").raw(9, 0, 1, "").raw(9, 4, 1, string(newScript().encode(get...))), ""},
		{"a block broken off by another", fromClient().raw(1, 1, 1, "").raw(1, 5, 1, ""), "goaway 0 PROTOCOL_ERROR"},
		{"no HPACK after the end", fromClient().headers(1, true, get...).raw(1, 5, 1, "\x80"), "goaway 1 COMPRESSION_ERROR"},
		{"no HPACK that depends on itself", fromClient().headers(1, false, get...).raw(1, 0x25, 1, priority(1)+"\x80"), "goaway 1 COMPRESSION_ERROR"},
		{"no HPACK after our RST_STREAM", fromClient().headers(1, true, get...).data(1, false, "x").raw(1, 5, 1, "\x80"), "reset 1 STREAM_CLOSED; goaway 1 COMPRESSION_ERROR"},
		{"what is dropped is no frame", fromClient().headers(1, true, get...).data(1, false, "xxxxxxxxxxxx").raw(6, 0, 0, "12345678"), `reset 1 STREAM_CLOSED; ping "12345678" ack=true`},
		{"too much is dropped", fromClient().headers(1, false, post("content-length: 3")...).data(1, false, "xxxxxxxxxxxx").raw(6, 0, 0, "12345678"), `reset 1 PROTOCOL_ERROR; ping "12345678" ack=true`},
		{"an unknown frame", fromClient().raw(99, 0xff, 7, "12345678").headers(1, true, get...), ""},
		{"trailers that don't end", fromClient().headers(1, false, get...).headers(1, false, "a: b"), "reset 1 PROTOCOL_ERROR"},
		{"trailers with a pseudo-header", fromClient().headers(1, false, get...).headers(1, true, ":path: /"), "reset 1 PROTOCOL_ERROR"},
		{"trailers with a length", fromClient().headers(1, false, get...).headers(1, true, "content-length: 0"), "reset 1 PROTOCOL_ERROR"},
		{"trailers that depend on themselves", fromClient().headers(1, false, get...).raw(1, 0x25, 1, priority(1)), "reset 1 PROTOCOL_ERROR"},
		{"less than the length", fromClient().headers(1, false, post("content-length: 3")...).data(1, true, "12"), "reset 1 PROTOCOL_ERROR"},
		{"more than the length", fromClient().headers(1, false, post("content-length: 3")...).data(1, false, "1234"), "reset 1 PROTOCOL_ERROR"},
		{"less than the length before trailers", fromClient().headers(1, false, post("content-length: 3")...).data(1, false, "12").headers(1, true, "a: b"), "reset 1 PROTOCOL_ERROR"},
		{"no body for a length", fromClient().headers(1, true, post("content-length: 3")...), "reset 1 PROTOCOL_ERROR"},
		{"the length", fromClient().headers(1, false, post("content-length: 3")...).data(1, false, "12").data(1, false, "").data(1, true, "3"), ""},
		{"the length and trailers", fromClient().headers(1, false, post("content-length: 3")...).data(1, false, "123").headers(1, true, "a: b"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			wrote, events, err := play(t, server(h2.Limits{}), c.script.Bytes())
			got := strings.TrimPrefix(strings.TrimPrefix(strings.Join(wrote, "; "), "ack"), "; ")
			if got != c.want {
				t.Errorf("wrote %q, want %q; %v", got, c.want, events)
			}
			if (err != nil) != strings.Contains(c.want, "goaway") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestClientFrames(t *testing.T) {
	for _, c := range []struct {
		name   string
		script *script
		want   string // what is written
		events string
	}{
		{"no SETTINGS", newScript().raw(6, 0, 0, "12345678"), "goaway 0 PROTOCOL_ERROR", "closed 1 PROTOCOL_ERROR 4; closed 3 PROTOCOL_ERROR 4"},
		{"an answer", fromServer().headers(1, false, ":status: 200").data(1, false, "ab").headers(1, true, "x: y"), "ack", "response 1 200; data 1:ab; trailers 1 [{x y false}]"},
		{"an informational one before", fromServer().headers(1, false, ":status: 103").headers(1, true, ":status: 200"), "ack", "response 1 103; response 1 200 end"},
		{"an informational one that ends", fromServer().headers(1, true, ":status: 103"), "ack; reset 1 PROTOCOL_ERROR", "closed 1 PROTOCOL_ERROR 3"},
		{"switching protocols", fromServer().headers(1, false, ":status: 101"), "ack; reset 1 PROTOCOL_ERROR", "closed 1 PROTOCOL_ERROR 3"},
		{"no status", fromServer().headers(1, true, "a: b"), "ack; reset 1 PROTOCOL_ERROR", "closed 1 PROTOCOL_ERROR 3"},
		{"a wrong status", fromServer().headers(1, true, ":status: 20"), "ack; reset 1 PROTOCOL_ERROR", "closed 1 PROTOCOL_ERROR 3"},
		{"DATA before the head", fromServer().data(1, true, "x"), "ack; reset 1 PROTOCOL_ERROR", "closed 1 PROTOCOL_ERROR 3"},
		{"DATA of a 204", fromServer().headers(1, false, ":status: 204").data(1, true, "x"), "ack; reset 1 PROTOCOL_ERROR", "response 1 204; closed 1 PROTOCOL_ERROR 3"},
		{"a stream never opened", fromServer().headers(5, true, ":status: 200"), "ack; goaway 0 PROTOCOL_ERROR", "closed 1 PROTOCOL_ERROR 4; closed 3 PROTOCOL_ERROR 4"},
		{"a stream of its own", fromServer().headers(2, true, ":status: 200"), "ack; goaway 0 PROTOCOL_ERROR", "closed 1 PROTOCOL_ERROR 4; closed 3 PROTOCOL_ERROR 4"},
		{"a push", fromServer().raw(5, 4, 1, "\x00\x00\x00\x02\x88"), "ack; goaway 0 PROTOCOL_ERROR", "closed 1 PROTOCOL_ERROR 4; closed 3 PROTOCOL_ERROR 4"},
		{"push allowed", newScript().raw(4, 0, 0, "\x00\x02\x00\x00\x00\x01"), "goaway 0 PROTOCOL_ERROR", "closed 1 PROTOCOL_ERROR 4; closed 3 PROTOCOL_ERROR 4"},
		{"refused", fromServer().raw(3, 0, 1, "\x00\x00\x00\x07"), "ack", "closed 1 REFUSED_STREAM 1"},
		{"going away", fromServer().raw(7, 0, 0, "\x00\x00\x00\x01\x00\x00\x00\x00"), "ack", "closed 3 REFUSED_STREAM 1; goaway 1 NO_ERROR"},
		{"going away, and back", fromServer().raw(7, 0, 0, "\x00\x00\x00\x01\x00\x00\x00\x00").raw(7, 0, 0, "\x00\x00\x00\x03\x00\x00\x00\x00"), "ack; goaway 0 PROTOCOL_ERROR", "closed 3 REFUSED_STREAM 1; goaway 1 NO_ERROR; closed 1 PROTOCOL_ERROR 4"},
		{"HEADERS on its way when we reset", fromServer().data(1, true, "x").headers(1, false, ":status: 200"), "ack; reset 1 PROTOCOL_ERROR", "closed 1 PROTOCOL_ERROR 3"},
		{"after the end", fromServer().headers(1, true, ":status: 200").headers(1, true, "a: b"), "ack; reset 1 STREAM_CLOSED", "response 1 200 end; closed 1 STREAM_CLOSED 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wrote, events, _ := play(t, client(h2.Limits{}, 2, "POST"), c.script.Bytes())
			if got := strings.Join(wrote, "; "); got != c.want {
				t.Errorf("wrote %q, want %q", got, c.want)
			}
			if got := strings.Join(events, "; "); got != c.events {
				t.Errorf("heard %q, want %q", got, c.events)
			}
		})
	}
	// What is said of a body in an answer to HEAD is what it would have been.
	_, events, _ := play(t, client(h2.Limits{}, 1, "HEAD"), fromServer().headers(1, true, ":status: 200", "content-length: 7").Bytes())
	if got := strings.Join(events, "; "); got != "response 1 200 end" {
		t.Errorf("HEAD: %q", got)
	}
	wrote, _, _ := play(t, client(h2.Limits{}, 1, "HEAD"), fromServer().headers(1, false, ":status: 200").data(1, true, "x").Bytes())
	if got := strings.Join(wrote, "; "); got != "ack; reset 1 PROTOCOL_ERROR" {
		t.Errorf("HEAD with a body: %q", got)
	}
}

func TestRequestHeads(t *testing.T) {
	full := func(more ...string) []string { return append(append([]string{}, get...), more...) }
	connect := []string{":method: CONNECT", ":scheme: https", ":path: /chat", ":authority: a.test", ":protocol: websocket"}
	for _, c := range []struct {
		lines []string
		want  string // the event, or "" for malformed
	}{
		{full(), "request 1 GET a.test / end"},
		{full("host: a.test"), "request 1 GET a.test / end"},
		{full("host: A.test"), "request 1 GET A.test / end"},
		{[]string{":method: GET", ":scheme: http", ":path: /", "host: b"}, "request 1 GET b / end"},
		{[]string{":method: OPTIONS", ":scheme: http", ":path: *", ":authority: b"}, "request 1 OPTIONS b * end"},
		{[]string{":method: CONNECT", ":authority: b:1"}, "request 1 CONNECT b:1  end"},
		{connect, "request 1 CONNECT a.test /chatwebsocket end"},
		{full("te: trailers", "cookie: a=1", "cookie: b=2", "x-empty:"), "request 1 GET a.test / end"},
		{full("content-length: 0"), "request 1 GET a.test / end"},

		{full("host: b.test"), ""},
		{full("host: a.test", "host: a.test"), ""},
		{[]string{":method: GET", ":scheme: http", ":path: /"}, ""},
		{[]string{":method: GET", ":scheme: http", ":authority: a"}, ""},
		{[]string{":method: GET", ":path: /", ":authority: a"}, ""},
		{[]string{":scheme: http", ":path: /", ":authority: a"}, ""},
		{full(":method: GET"), ""},
		{full(":authority: a.test"), ""},
		{full(":status: 200"), ""},
		{full(":unknown: 1"), ""},
		{full("a: b", ":path: /"), ""},
		{[]string{":method: G T", ":scheme: http", ":path: /", ":authority: a"}, ""},
		{[]string{":method: GET", ":scheme: ftp", ":path: /", ":authority: a"}, ""},
		{[]string{":method: GET", ":scheme: http", ":path: x", ":authority: a"}, ""},
		{[]string{":method: GET", ":scheme: http", ":path:", ":authority: a"}, ""},
		{[]string{":method: GET", ":scheme: http", ":path: *", ":authority: a"}, ""},
		{[]string{":method: GET", ":scheme: http", ":path: /a b", ":authority: a"}, ""},
		{[]string{":method: GET", ":scheme: http", ":path: /a#b", ":authority: a"}, ""},
		{[]string{":method: GET", ":scheme: http", ":path: /a\r\n", ":authority: a"}, ""},
		{[]string{":method: GET", ":scheme: http", ":path: /", ":authority: u@a"}, ""},
		{[]string{":method: GET", ":scheme: http", ":path: /", ":authority: a/b"}, ""},
		{[]string{":method: GET", ":scheme: http", ":path: /", ":authority:"}, ""},
		{[]string{":method: CONNECT", ":authority: b:1", ":path: /"}, ""},
		{[]string{":method: CONNECT", ":authority: b:1", ":scheme: http"}, ""},
		{[]string{":method: CONNECT", "host: b:1"}, ""},
		{[]string{":method: CONNECT", ":authority: b:1", "content-length: 0"}, ""},
		{full(":protocol: websocket"), ""},
		{connect[1:], ""},
		{append([]string{}, connect[0], connect[1], connect[2], connect[4]), ""},
		{append([]string{}, connect[0], connect[1], connect[3], connect[4]), ""},
		{append([]string{}, connect[0], connect[2], connect[3], connect[4]), ""},
		{append([]string{}, connect[0], connect[3], connect[4]), ""},
		{append([]string{":method: GET"}, connect[1:]...), ""},
		{append([]string{":method: connect"}, connect[1:]...), ""},
		{append(connect[:4:4], ":protocol: WebSocket"), ""},
		{append(connect[:4:4], ":protocol: h2c"), ""},
		{append(connect[:4:4], ":protocol:"), ""},
		{append(connect[:5:5], ":protocol: websocket"), ""},
		{append(connect[:5:5], "content-length: 0"), ""},
		{append(connect[:5:5], "upgrade: websocket"), ""},
		{append(connect[:5:5], "connection: upgrade"), ""},
		{append(connect[:4:4], "x: y", ":protocol: websocket"), ""},
		{full("Upper: x"), ""},
		{full("a b: x"), ""},
		{full("a\x00: x"), ""},
		{full("x: a\r\nb"), ""},
		{full("x: a\nb"), ""},
		{full("x: a\x00b"), ""},
		{full("x: a\x7fb"), ""},
		{full("x:  a"), ""},
		{full("x: a "), ""},
		{full("x: a\t"), ""},
		{full("connection: close"), ""},
		{full("proxy-connection: close"), ""},
		{full("keep-alive: 1"), ""},
		{full("transfer-encoding: chunked"), ""},
		{full("upgrade: x"), ""},
		{full("te: gzip"), ""},
		{full("content-length: 1"), ""},
		{full("content-length: -1"), ""},
		{full("content-length: +0"), ""},
		{full("content-length: 0", "content-length: 0"), ""},
		{[]string{":method: GET", ":scheme: http", ":path: /", "host: a b"}, ""},
		{[]string{":method: CONNECT", ":scheme: https", ":path: chat", ":authority: a.test", ":protocol: websocket"}, ""},
		{[]string{":method: CONNECT", ":scheme: https", ":path: /chat", ":authority: a.test", ":protocol: web socket"}, ""},
		{full("a: b", ":protocol: x"), ""},
		{full("content-length: 0, 0"), ""},
		{full("content-length:"), ""},
		{full("content-length: 9999999999999999999"), ""},
	} {
		wrote, events, err := play(t, server(h2.Limits{Connect: "websocket"}), fromClient().headers(1, true, c.lines...).Bytes())
		got, want := strings.Join(wrote, "; "), "ack"
		if c.want == "" {
			want = "ack; reset 1 PROTOCOL_ERROR"
		}
		if got != want || strings.Join(events, "; ") != c.want || err != nil {
			t.Errorf("%q: wrote %q, heard %q, %v", c.lines, got, events, err)
		}
	}
	// Without the option, no extended CONNECT.
	if _, events, _ := play(t, server(h2.Limits{}), fromClient().headers(1, true, connect...).Bytes()); len(events) != 0 {
		t.Errorf("heard %q", events)
	}
	// A name of no length is not to be written by encode.
	if _, events, _ := play(t, server(h2.Limits{}), fromClient().raw(1, 5, 1, string(newScript().encode(get...))+"\x00\x00\x01x").Bytes()); len(events) != 0 {
		t.Errorf("heard %q", events)
	}
}
