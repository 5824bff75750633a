package session_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictcbor"
	"github.com/jurat-tls/jurat/ratls/ea"
	"github.com/jurat-tls/jurat/ratls/session"
	"github.com/jurat-tls/jurat/test/tlspair"
)

// Frames as they are on the wire.
const (
	data = iota
	end
	hello
	request
	authenticator
	proof
	verdict
)

func frame(kind int, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(kind)<<24|uint32(len(body))), body...)
}

func cbor(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := strictcbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

type clientHello struct {
	Protocols []string `cbor:"1,keyasint"`
	Earlier   []byte   `cbor:"2,keyasint"`
}

type serverHello struct {
	Protocol string `cbor:"1,keyasint"`
	Earlier  bool   `cbor:"2,keyasint"`
	Asks     bool   `cbor:"3,keyasint"`
}

type verdictBody struct {
	Affirmed bool   `cbor:"1,keyasint"`
	Code     string `cbor:"2,keyasint"`
}

func good(t testing.TB) []byte { return cbor(t, clientHello{}) }

func ask(t testing.TB, conn *tls.Conn, from ea.Role, challenge byte) []byte {
	t.Helper()
	e, err := ea.New(conn.ConnectionState(), ea.DefaultExtension)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := e.Request(from, [32]byte{challenge})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// What a server is told by a client that does not keep to the exchange ends it, before a quote is asked for.
func TestHostileClients(t *testing.T) {
	hw := newHardware(t)
	for name, c := range map[string]struct {
		say  func(t *testing.T, conn *tls.Conn) []byte
		shut bool // closes then
		want string
	}{
		"nothing, and goes":        {func(*testing.T, *tls.Conn) []byte { return nil }, true, "closed the connection"},
		"half a header":            {func(*testing.T, *tls.Conn) []byte { return []byte{hello, 0} }, true, "closed the connection"},
		"half a frame":             {func(*testing.T, *tls.Conn) []byte { return []byte{hello, 0, 0, 9, 1} }, true, "closed the connection"},
		"half a verdict":           {func(*testing.T, *tls.Conn) []byte { return []byte{verdict, 0, 0, 9, 0xa2} }, true, "closed the connection"},
		"an unknown kind":          {func(*testing.T, *tls.Conn) []byte { return frame(7, nil) }, false, "a frame of kind 7"},
		"application bytes":        {func(*testing.T, *tls.Conn) []byte { return frame(data, []byte("GET / HTTP/1.1\r\n\r\n")) }, false, "data where hello was due"},
		"the preface of HTTP/2":    {func(*testing.T, *tls.Conn) []byte { return []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") }, false, "a frame of kind 80"},
		"an early request":         {func(t *testing.T, c *tls.Conn) []byte { return frame(request, ask(t, c, ea.Client, 1)) }, false, "request where hello was due"},
		"too large a hello":        {func(*testing.T, *tls.Conn) []byte { return frame(hello, make([]byte, 1<<10+1)) }, false, "hello of 1025 bytes"},
		"an authenticator of 16 M": {func(*testing.T, *tls.Conn) []byte { return []byte{authenticator, 0xff, 0xff, 0xff} }, false, "authenticator of 16777215 bytes"},
		"a hello of no CBOR":       {func(*testing.T, *tls.Conn) []byte { return frame(hello, []byte("hello")) }, false, "a frame that does not decode"},
		"an empty hello":           {func(*testing.T, *tls.Conn) []byte { return frame(hello, nil) }, false, "a frame that does not decode"},
		"two hellos":               {func(t *testing.T, _ *tls.Conn) []byte { return append(frame(hello, good(t)), frame(hello, good(t))...) }, false, "hello where request was due"},
		"a nameless protocol": {func(t *testing.T, c *tls.Conn) []byte {
			return append(frame(hello, cbor(t, clientHello{Protocols: []string{""}})), frame(request, ask(t, c, ea.Client, 1))...)
		}, false, "a protocol without a name"},
		"an end":    {func(*testing.T, *tls.Conn) []byte { return frame(end, nil) }, false, "end where hello was due"},
		"a verdict": {func(t *testing.T, _ *tls.Conn) []byte { return frame(verdict, cbor(t, verdictBody{Affirmed: true})) }, false, "an affirmation that nobody waits for"},
		"an unsound request": {func(t *testing.T, _ *tls.Conn) []byte {
			return append(frame(hello, good(t)), frame(request, []byte{17, 0, 0, 0})...)
		}, false, "a request for evidence"},
		"a request of a server": {func(t *testing.T, c *tls.Conn) []byte {
			return append(frame(hello, good(t)), frame(request, ask(t, c, ea.Server, 1))...)
		}, false, "a request for evidence"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProver(t, hw)
			client, server := pair(t, p)
			done := make(chan error, 1)
			go func() {
				_, err := session.Server(t.Context(), server, "peer", nil, p, time.Now, session.Options{})
				_ = server.Close()
				done <- err
			}()
			if _, err := client.Write(c.say(t, client)); err != nil {
				t.Fatal(err)
			}
			if c.shut {
				_ = client.Close()
			}
			err := <-done
			code(t, err, attest.CodeSessionExchange)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if n := p.quotes.Load(); n != 0 {
				t.Errorf("%d quotes", n)
			}
			if !c.shut {
				// It is told why, and nothing else.
				got, err := io.ReadAll(client)
				if want := frame(verdict, cbor(t, verdictBody{Code: string(attest.CodeSessionExchange)})); err != nil || string(got) != string(want) {
					t.Errorf("the client read %x, %v", got, err)
				}
			}
		})
	}
}

// The same at a client: what a server says out of turn ends the exchange, and no application byte has been sent.
func TestHostileServers(t *testing.T) {
	hw := newHardware(t)
	answer := func(t *testing.T, h serverHello) []byte { return frame(hello, cbor(t, h)) }
	for name, c := range map[string]struct {
		say  func(t *testing.T, conn *tls.Conn) []byte
		code attest.Code
		want string
	}{
		"application bytes":  {func(*testing.T, *tls.Conn) []byte { return frame(data, []byte("220 ready\r\n")) }, attest.CodeSessionExchange, "data where hello was due"},
		"another protocol":   {func(t *testing.T, _ *tls.Conn) []byte { return answer(t, serverHello{Protocol: "h3"}) }, attest.CodeSessionExchange, "which was not on offer"},
		"no protocol":        {func(t *testing.T, _ *tls.Conn) []byte { return answer(t, serverHello{}) }, attest.CodeSessionExchange, "which was not on offer"},
		"an earlier session": {func(t *testing.T, _ *tls.Conn) []byte { return answer(t, serverHello{Protocol: "h2", Earlier: true}) }, attest.CodeSessionExchange, "an earlier session that was not on offer"},
		"a proof instead": {func(t *testing.T, _ *tls.Conn) []byte {
			return append(answer(t, serverHello{Protocol: "h2"}), frame(proof, make([]byte, 90))...)
		}, attest.CodeSessionExchange, "proof where authenticator was due"},
		"no authenticator": {func(t *testing.T, _ *tls.Conn) []byte {
			return append(answer(t, serverHello{Protocol: "h2"}), frame(authenticator, []byte("evidence"))...)
		}, attest.CodeAuthenticator, "malformed"},
		"no request": {func(t *testing.T, _ *tls.Conn) []byte {
			return append(answer(t, serverHello{Protocol: "h2", Asks: true}), frame(authenticator, []byte("x"))...)
		}, attest.CodeSessionExchange, "authenticator where request was due"},
		"an affirmation": {func(t *testing.T, _ *tls.Conn) []byte {
			return append(answer(t, serverHello{Protocol: "h2"}), frame(verdict, cbor(t, verdictBody{Affirmed: true}))...)
		}, attest.CodeSessionExchange, "an affirmation that nobody waits for"},
		"a refusal": {func(t *testing.T, _ *tls.Conn) []byte {
			return frame(verdict, cbor(t, verdictBody{Code: "J802"}))
		}, attest.CodePeerRefused, "the TEE did not give evidence (J802)"},
		"no verdict to be read": {func(*testing.T, *tls.Conn) []byte { return frame(verdict, []byte("no")) }, attest.CodeSessionExchange, "does not decode"},
		"a refusal in words": {func(t *testing.T, _ *tls.Conn) []byte {
			return frame(verdict, cbor(t, verdictBody{Code: "\x1b[2Jall is well"}))
		}, attest.CodePeerRefused, "for a reason that is not known here"},
		"evidence asked of us": {func(t *testing.T, c *tls.Conn) []byte {
			return append(answer(t, serverHello{Protocol: "h2", Asks: true}), frame(request, ask(t, c, ea.Server, 1))...)
		}, attest.CodePeerRefused, "and we have none"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProver(t, hw)
			client, server := pair(t, p)
			done := make(chan []byte, 1)
			go func() {
				_, _ = server.Write(c.say(t, server))
				got, _ := io.ReadAll(server)
				done <- got
			}()
			_, err := session.Client(t.Context(), client, "a.example", newVerifier(hw, accept), nil, time.Now, session.Options{Protocols: []string{"h2"}})
			_ = client.Close()
			code(t, err, c.code)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			verdicts := 0
			for got := <-done; len(got) > 0; got = got[4+int(binary.BigEndian.Uint32(got)&0xffffff):] {
				switch got[0] {
				case data:
					t.Error("an application byte was sent")
				case verdict:
					verdicts++
				}
			}
			// Who has given up need not be told why the other does.
			if want := map[bool]int{true: 0, false: 1}[strings.HasPrefix(name, "a refusal")]; verdicts != want {
				t.Errorf("%d verdicts", verdicts)
			}
		})
	}
}

// Silence ends an exchange when its time is over, on either side, and leaves nothing behind.
func TestSilence(t *testing.T) {
	hw := newHardware(t)
	p := newProver(t, hw)
	for name, run := range map[string]func(ctx context.Context, client, server *tls.Conn) (*tls.Conn, error){
		"of a client": func(ctx context.Context, client, server *tls.Conn) (*tls.Conn, error) {
			_, err := session.Server(ctx, server, "peer", nil, p, time.Now, session.Options{})
			_ = server.Close()
			return client, err
		},
		"of a server": func(ctx context.Context, client, server *tls.Conn) (*tls.Conn, error) {
			_, err := session.Client(ctx, client, "a.example", newVerifier(hw, accept), nil, time.Now, session.Options{})
			_ = client.Close()
			return server, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t, p)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			silent, err := run(ctx, client, server)
			code(t, err, attest.CodeSessionExchange)
			if !strings.Contains(err.Error(), "not over in time") {
				t.Error(err)
			}
			// When the time is over it is over: nothing is written that could take longer.
			got, _ := io.ReadAll(silent)
			for ; len(got) > 0; got = got[4+int(binary.BigEndian.Uint32(got)&0xffffff):] {
				if got[0] == verdict {
					t.Error("a verdict was sent after the time was over")
				}
			}
		})
	}
}

// What is not ready for an exchange has none.
func TestNotReady(t *testing.T) {
	hw := newHardware(t)
	p, v := newProver(t, hw), newVerifier(hw, accept)
	client, server := pair(t, p)
	otherClient, otherServer := tlspair.WithALPN(t, p.tls, "h2")
	for name, c := range map[string]struct {
		run  func() error
		code attest.Code
		want string
	}{
		"a client without a verifier": {func() error {
			_, err := session.Client(t.Context(), client, "a.example", nil, p, time.Now, session.Options{})
			return err
		}, attest.CodeNoExpectation, ""},
		"a client without a server": {func() error {
			_, err := session.Client(t.Context(), server, "a.example", v, p, time.Now, session.Options{})
			return err
		}, attest.CodeNoExpectation, ""},
		"a server without evidence": {func() error {
			_, err := session.Server(t.Context(), server, "peer", v, nil, time.Now, session.Options{})
			return err
		}, attest.CodeNoExpectation, ""},
		"a client of another protocol": {func() error {
			_, err := session.Client(t.Context(), otherClient, "a.example", v, p, time.Now, session.Options{})
			return err
		}, attest.CodeSessionExchange, `ALPN protocol "h2"`},
		"a server of another protocol": {func() error {
			_, err := session.Server(t.Context(), otherServer, "peer", nil, p, time.Now, session.Options{})
			return err
		}, attest.CodeSessionExchange, `ALPN protocol "h2"`},
		"an unknown profile": {func() error {
			_, err := session.Client(t.Context(), client, "a.example", v, p, time.Now, session.Options{Profile: "x"})
			return err
		}, attest.CodeSessionExchange, "profile"},
		"TLS 1.2": {func() error {
			c, _ := tlspair.Old(t, p.tls, session.ALPN)
			_, err := session.Client(t.Context(), c, "a.example", v, p, time.Now, session.Options{})
			return err
		}, attest.CodeSessionExchange, "without authenticators"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.run()
			code(t, err, c.code)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if n := p.quotes.Load(); n != 0 {
		t.Errorf("%d quotes", n)
	}
}

// late refuses, but only when the time is over.
type late struct {
	*verifier
	over context.CancelFunc
}

func (l late) Appraise(ctx context.Context, p *session.Presented) *attest.Result {
	l.over()
	return l.verifier.Appraise(context.WithoutCancel(ctx), p)
}

// A refusal is one, whatever the clock says.
func TestRefusedLate(t *testing.T) {
	hw := newHardware(t)
	p := newProver(t, hw)
	client, server := pair(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = session.Server(t.Context(), server, "peer", nil, p, time.Now, session.Options{})
		_ = server.Close()
	}()
	_, err := session.Client(ctx, client, "a.example", late{newVerifier(hw, refuse), cancel}, nil, time.Now, session.Options{})
	code(t, err, attest.CodeDebug)
	_ = client.Close()
	<-done
}

// Whoever gives up is answered nothing: it listens no more, and in an emergency there are thousands of them. One that affirms out of
// turn is.
func TestNobodyIsToldTwice(t *testing.T) {
	for said, want := range map[verdictBody]string{
		{Code: "J504"}:   "",
		{Affirmed: true}: string(frame(verdict, cbor(t, verdictBody{Code: string(attest.CodeSessionExchange)}))),
	} {
		client, raw, _, _ := open(t, session.Options{})
		told := drain(client)
		if _, err := raw.Write(frame(verdict, cbor(t, said))); err != nil {
			t.Fatal(err)
		}
		if err := <-told; err == nil {
			t.Errorf("%+v: goes on", said)
		}
		if got, _ := io.ReadAll(raw); string(got) != want {
			t.Errorf("%+v: answered %x, want %x", said, got, want)
		}
	}
}

// The end of the application's bytes is said once.
func TestEndIsSaidOnce(t *testing.T) {
	client, raw, _, _ := open(t, session.Options{})
	for range 2 {
		if err := client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
	}
	_ = client.Close()
	if got, err := io.ReadAll(raw); err != nil || string(got) != string(frame(end, nil)) {
		t.Errorf("got %x, %v", got, err)
	}
}

// stuckConn is a transport whose writes hang from some point on. Deadlines that are set then are counted.
type stuckConn struct {
	net.Conn
	stuck     atomic.Bool
	hangs     chan struct{}
	free      chan struct{}
	deadlines atomic.Int32
}

func (s *stuckConn) Write(p []byte) (int, error) {
	if s.stuck.Load() {
		s.hangs <- struct{}{}
		<-s.free
		return 0, net.ErrClosed
	}
	return s.Conn.Write(p)
}

func (s *stuckConn) SetWriteDeadline(t time.Time) error {
	if s.stuck.Load() {
		s.deadlines.Add(1)
	}
	return s.Conn.SetWriteDeadline(t)
}

func (s *stuckConn) Close() error {
	if s.stuck.Load() {
		close(s.free)
	}
	return s.Conn.Close()
}

// Closing does not wait for a write that hangs: what was cut short must not look whole anyway.
func TestCloseDuringWrite(t *testing.T) {
	hw := newHardware(t)
	p := newProver(t, hw)
	a, b := net.Pipe()
	transport := &stuckConn{Conn: a, hangs: make(chan struct{}), free: make(chan struct{})}
	s := setup{serverProver: p, clientVerify: newVerifier(hw, accept)}
	s.client, s.server = tlspair.Over(t, transport, b, p.tls, session.ALPN)
	c, srv := s.run(t)
	ok(t, c, srv)
	transport.stuck.Store(true)
	done := make(chan error, 1)
	go func() {
		_, err := c.conn.Write([]byte("x"))
		done <- err
	}()
	<-transport.hangs
	_ = c.conn.Close()
	if err := <-done; err == nil {
		t.Error("a write that was cut off succeeded")
	}
	if n := transport.deadlines.Load(); n != 0 {
		t.Errorf("%d deadlines: it waits for the write", n)
	}
	_ = srv.conn.Close()
}

// open makes two ends of an open connection; the server's end is spoken to by hand through raw.
func open(t *testing.T, opts session.Options) (client *session.Conn, raw *tls.Conn, p *prover, v *verifier) {
	t.Helper()
	hw := newHardware(t)
	p, v = newProver(t, hw), newVerifier(hw, accept)
	s := setup{serverProver: p, clientVerify: v, clientOpts: opts}
	s.client, s.server = pair(t, p)
	c, srv := s.run(t)
	ok(t, c, srv)
	return c.conn, s.server, p, v
}

// On an open connection, too, only what is due is taken; anything else closes it for good.
func TestHostileWhileOpen(t *testing.T) {
	for name, c := range map[string]struct {
		say  func(t *testing.T, raw *tls.Conn) []byte
		want string
	}{
		"an authenticator":   {func(*testing.T, *tls.Conn) []byte { return frame(authenticator, []byte("x")) }, "an authenticator that nobody asked for"},
		"a hello":            {func(t *testing.T, _ *tls.Conn) []byte { return frame(hello, good(t)) }, "hello on an open connection"},
		"a proof":            {func(*testing.T, *tls.Conn) []byte { return frame(proof, make([]byte, 64)) }, "proof on an open connection"},
		"an affirmation":     {func(t *testing.T, _ *tls.Conn) []byte { return frame(verdict, cbor(t, verdictBody{Affirmed: true})) }, "an affirmation that nobody waits for"},
		"an unsound verdict": {func(*testing.T, *tls.Conn) []byte { return frame(verdict, []byte("no")) }, "a frame that does not decode"},
		"a request":          {func(t *testing.T, raw *tls.Conn) []byte { return frame(request, ask(t, raw, ea.Server, 1)) }, "a request for evidence at an end that has none"},
		"an unknown kind":    {func(*testing.T, *tls.Conn) []byte { return frame(99, nil) }, "a frame of kind 99"},
		"data after the end": {func(*testing.T, *tls.Conn) []byte { return append(frame(end, nil), frame(data, []byte("x"))...) }, "more after the end"},
		"two ends":           {func(*testing.T, *tls.Conn) []byte { return append(frame(end, nil), frame(end, nil)...) }, "more after the end"},
	} {
		t.Run(name, func(t *testing.T) {
			client, raw, _, _ := open(t, session.Options{})
			// All of it in one record: what follows is there when the reason to stop is met.
			said := append(frame(data, []byte("ok")), c.say(t, raw)...)
			if name != "two ends" {
				said = append(said, frame(data, []byte("more"))...)
			}
			if _, err := raw.Write(said); err != nil {
				t.Fatal(err)
			}
			var got []byte
			var err error
			for err == nil {
				var n int
				buf := make([]byte, 16)
				n, err = client.Read(buf)
				if n == 0 && err == nil {
					t.Fatal("a read that gives nothing, and no reason")
				}
				got = append(got, buf[:n]...)
			}
			if err == io.EOF {
				err = nil
			}
			for range 3 {
				n, _ := client.Read(make([]byte, 9))
				got = append(got, make([]byte, n)...)
			}
			if string(got) != "ok" {
				t.Errorf("read %q", got)
			}
			for err == nil { // the end is seen before what follows it
				_, err = client.Write([]byte("x"))
			}
			code(t, err, attest.CodeSessionExchange)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, err := client.Write([]byte("x")); attest.CodeOf(err) != attest.CodeSessionExchange {
				t.Errorf("a write after that: %v", err)
			}
			_ = client.Close()
		})
	}
}

// A connection that was cut off never looks finished.
func TestCut(t *testing.T) {
	for name, cut := range map[string]func(raw *tls.Conn){
		"by the network":          func(raw *tls.Conn) { _ = raw.NetConn().Close() },
		"with the alert of TLS":   func(raw *tls.Conn) { _ = raw.Close() },
		"in a header":             func(raw *tls.Conn) { _, _ = raw.Write([]byte{data, 0}); _ = raw.Close() },
		"in the bytes of a frame": func(raw *tls.Conn) { _, _ = raw.Write([]byte{data, 0, 0, 9, 'x'}); _ = raw.Close() },
		"after an empty frame":    func(raw *tls.Conn) { _, _ = raw.Write(frame(data, nil)); _ = raw.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			client, raw, _, _ := open(t, session.Options{})
			cut(raw)
			if _, err := io.ReadAll(client); err == nil || err == io.EOF {
				t.Errorf("got %v", err)
			}
			_ = client.Close()
		})
	}
	t.Run("by nobody", func(t *testing.T) {
		client, raw, _, _ := open(t, session.Options{})
		_, _ = raw.Write(append(frame(data, []byte("whole")), frame(end, nil)...))
		if got, err := io.ReadAll(client); err != nil || string(got) != "whole" {
			t.Errorf("got %q, %v", got, err)
		}
		_ = client.Close()
	})
}

// The end of the application's bytes is seen at once and for good, and an end of the connection after it is no fault.
func TestEnd(t *testing.T) {
	client, raw, _, _ := open(t, session.Options{})
	defer client.Close()
	if _, err := raw.Write(append(append(frame(data, []byte("a")), frame(data, nil)...), frame(end, nil)...)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 9)
	if n, err := client.Read(nil); n != 0 || err != nil {
		t.Fatalf("a read of nothing: %d, %v", n, err)
	}
	if n, err := client.Read(buf); n != 1 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	for range 2 {
		if n, err := client.Read(buf); n != 0 || err != io.EOF {
			t.Fatalf("got %d, %v", n, err)
		}
	}
	_ = raw.Close()
	for {
		if _, err := client.Write(buf); err != nil {
			if got := attest.CodeOf(err); got != attest.CodeInternal {
				t.Errorf("a write to a peer that has gone: %v", err)
			}
			break
		}
	}
	if err := client.CloseWrite(); err == nil {
		t.Error("the end was told to nobody")
	}
	if n, err := client.Write([]byte("x")); n != 0 || err != net.ErrClosed {
		t.Errorf("a write after the end: %d, %v", n, err)
	}
}

// A read that a deadline ends loses nothing, wherever it falls.
func TestDeadlineInTheMiddle(t *testing.T) {
	client, raw, _, _ := open(t, session.Options{})
	defer client.Close()
	whole := append(frame(data, []byte("hello")), frame(verdict, cbor(t, verdictBody{Code: "J802"}))...)
	var got []byte
	buf := make([]byte, 16)
	for i := range whole {
		if _, err := raw.Write(whole[i : i+1]); err != nil {
			t.Fatal(err)
		}
		for {
			_ = client.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
			n, err := client.Read(buf)
			got = append(got, buf[:n]...)
			if err == nil {
				continue
			}
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				break
			}
			if i != len(whole)-1 {
				t.Fatalf("byte %d: %v", i, err)
			}
			code(t, err, attest.CodePeerRefused)
			break
		}
	}
	if string(got) != "hello" {
		t.Errorf("read %q", got)
	}
}

// Whoever reads when the end comes learns of it, though the connection stays open.
func TestEndForAllWhoRead(t *testing.T) {
	for range 100 {
		client, server, _, _, _ := openBoth(t, 0, false)
		ended := make(chan error, 8)
		for range cap(ended) {
			go func() {
				_, err := client.Read(make([]byte, 1))
				ended <- err
			}()
		}
		time.Sleep(time.Millisecond)
		if err := server.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		for range cap(ended) {
			select {
			case err := <-ended:
				if err != io.EOF {
					t.Fatal(err)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("a reader waits on")
			}
		}
	}
}
