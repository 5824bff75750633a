package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
)

// TestOutboundRefuses: the local client has sent its request at once; not a byte of it reaches the peer, and it is told
// why if it speaks HTTP/1.
func TestOutboundRefuses(t *testing.T) {
	received := make(chan []byte, 1)
	peer := rawOrigin(t, func(raw *net.TCPConn) {
		c, err := shake(nil)(context.Background(), raw)
		if err != nil {
			return
		}
		got, _ := io.ReadAll(c)
		received <- got
	})
	closed := listen(t)
	closed.Close()
	fails := func(err error) proxy.Dial {
		return func(context.Context) (proxy.Conn, error) { return nil, err }
	}
	coded := &attest.Error{Code: attest.CodeDebug, Subject: "shop.example", Got: "on", Want: "off"}
	for _, tt := range []struct {
		name    string
		dial    proxy.Dial
		reached bool
		want    attest.Code
		text    string
	}{
		{"refused by dial", fails(coded), false, attest.CodeDebug, "jurat: shop.example: guest has debugging enabled: got on, want off (J504)\nnext: start the guest without the debug bit\n"},
		{"unreachable", dialer(closed.Addr().String(), affirmed()), false, attest.CodeUnreachable, "the target cannot be reached"},
		{"no code", fails(errors.New("oops")), false, attest.CodeHandshake, "oops (J102)"},
		{"not appraised", dialer(peer, nil), true, attest.CodeNoEvidence, "(J105)"},
		{"refused but passed", dialer(peer, refused(attest.CodeMeasurement)), true, attest.CodeMeasurement, "(J502)"},
		{"zero result passed", dialer(peer, new(attest.Result)), true, attest.CodeEmptyPolicy, "(J508)"},
		{"panic", func(context.Context) (proxy.Conn, error) { panic("boom") }, false, attest.CodeInternal, "(J803)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			logs := new(journal)
			out := proxy.NewOutbound(engine(t), tt.dial, logs.logger(), proxy.Limits{})
			addr := start(t, out)
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nAuthorization: secret\r\nContent-Length: 10\r\n\r\n0123456789")
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != 502 || res.Header.Get("Jurat-Error") != string(tt.want) || !strings.Contains(string(body), tt.text) {
				t.Errorf("got %s %v %q", res.Status, res.Header, body)
			}
			if s := out.Stats(); s.Refused[tt.want] != 1 || s.Handshakes != 0 || s.BytesIn != 0 || s.BytesOut != 0 {
				t.Errorf("counted %+v", s)
			}
			if text := logs.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, string(tt.want)) || strings.Contains(text, "secret") {
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

// TestOutboundApology: only what is surely HTTP/1 gets an answer.
func TestOutboundApology(t *testing.T) {
	out := start(t, proxy.NewOutbound(engine(t), func(context.Context) (proxy.Conn, error) {
		return nil, &attest.Error{Code: attest.CodeDebug}
	}, nil, proxy.Limits{}))
	for _, tt := range []struct {
		say            string
		answered, body bool
	}{
		{"GET / HTTP/1.1\r\n\r\n", true, true},
		{"OPTIONS * HTTP/1.1\r\n\r\n", true, true},
		{"HEAD / HTTP/1.1\r\n\r\n", true, false},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false, false},
		{"get / HTTP/1.1\r\n\r\n", false, false},
		{"EHLO x\r\n", false, false},
		{strings.Repeat("A", 1<<16), false, false},
		{"\x16\x03\x01", false, false},
		{"", false, false},
	} {
		c, err := net.Dial("tcp", out)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		for _, b := range []byte(tt.say[:min(len(tt.say), 4)]) {
			_, _ = c.Write([]byte{b})
		}
		_, _ = io.WriteString(c, tt.say[min(len(tt.say), 4):])
		_ = c.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(c)
		c.Close()
		if timeout(err) || bytes.HasPrefix(got, []byte("HTTP/1.1 502 ")) != tt.answered || bytes.Contains(got, []byte("jurat: ")) != tt.body {
			t.Errorf("%.20q: got %q, %v", tt.say, got, err)
		}
	}
	t.Run("silent client", func(t *testing.T) {
		c, err := net.Dial("tcp", out)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if got, err := io.ReadAll(c); timeout(err) || len(got) > 0 {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("large upload", func(t *testing.T) {
		c, err := net.Dial("tcp", out)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		body := strings.Repeat("x", 200<<10)
		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 204800\r\n\r\n"+body); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || !bytes.Contains(got, []byte("J504")) {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// TestOutboundDialIsBounded: a peer that accepts and says nothing does not hang the local client.
func TestOutboundDialIsBounded(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	peer := rawOrigin(t, func(*net.TCPConn) { <-release })
	out := proxy.NewOutbound(engine(t), dialer(peer, affirmed()), nil, proxy.Limits{Handshake: 100 * time.Millisecond})
	addr := start(t, out)
	plain := func(string) dialFunc {
		return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", addr) }
	}
	if res, _ := get(t, client(t, plain, "http/1.1"), "http://x/"); res.StatusCode != 502 || res.Header.Get("Jurat-Error") != "J106" {
		t.Errorf("got %s %v", res.Status, res.Header)
	}
}

func TestOutboundDrain(t *testing.T) {
	peer := start(t, inboundTCP(t, shake(nil), rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }), proxy.Limits{}, nil))
	out := proxy.NewOutbound(engine(t), dialer(peer, affirmed()), nil, proxy.Limits{})
	c, err := net.Dial("tcp", start(t, out))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("x"))
	_, _ = io.ReadFull(c, make([]byte, 1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := out.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("still open")
	}
}
