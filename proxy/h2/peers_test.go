package h2_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/proxy/h2"
	"github.com/jurat-tls/jurat/proxy/message"
)

func h2c() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// echo is a machine that answers each request with its own body, as it comes.
func echo() *h2.Conn {
	type echoing struct {
		rest     []byte
		ended    bool
		trailers message.Fields
	}
	more := func(s *h2.Stream) {
		e := s.User.(*echoing)
		n := s.Write(e.rest, e.ended && e.trailers == nil)
		e.rest = e.rest[n:]
		s.Consumed(n)
		if len(e.rest) == 0 && e.trailers != nil {
			_ = s.Trailers(e.trailers)
		}
	}
	return h2.NewServer(h2.Limits{StreamWindow: 30_000, ConnWindow: 50_000}, nil, &ears{
		request: func(s *h2.Stream, r *message.Request, end bool) {
			s.User = new(echoing)
			res := message.Response{Status: 200, Length: r.Length, Fields: message.Fields{
				{Name: "x-method", Value: r.Method}, {Name: "x-path", Value: r.Path}, {Name: "x-authority", Value: r.Authority},
			}}
			for _, f := range r.Fields {
				if strings.HasPrefix(f.Name, "x-echo") {
					res.Fields = append(res.Fields, f)
				}
			}
			_ = s.Respond(&message.Response{Status: 103, Length: message.NoBody, Fields: message.Fields{{Name: "link", Value: "</a>"}}}, false)
			if err := s.Respond(&res, end); err != nil {
				s.Reset(h2.InternalError)
			}
		},
		data: func(s *h2.Stream, p []byte, end bool) {
			e := s.User.(*echoing)
			e.rest, e.ended = append(e.rest, p...), end
			more(s)
		},
		trailers: func(s *h2.Stream, f message.Fields) {
			e := s.User.(*echoing)
			e.ended, e.trailers = true, append(message.Fields{}, f...)
			more(s)
		},
		writable: more,
	})
}

// Go's client and our server.
func TestGoClient(t *testing.T) {
	defer goleak.VerifyNone(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { _ = drive(conn, echo()) })
		}
	})
	transport := &http.Transport{Protocols: h2c(), DisableCompression: true}
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	var all sync.WaitGroup
	for i := range 60 {
		all.Go(func() {
			size := i * i * 100
			body := bytes.Repeat([]byte{byte(i)}, size)
			req, err := http.NewRequestWithContext(context.Background(), "PUT", fmt.Sprintf("http://%s/p?%d", l.Addr(), i), bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("X-Echo-A", strings.Repeat("a", i*100))
			if i%2 == 0 && size > 0 {
				req.ContentLength = -1
				req.Trailer = http.Header{"X-Sum": nil}
				// Go sends a request again on another connection when it finds the first one full.
				req.GetBody = func() (io.ReadCloser, error) {
					return io.NopCloser(&hooked{Reader: bytes.NewReader(body), end: func() { req.Trailer.Set("X-Sum", "yes") }}), nil
				}
				req.Body, _ = req.GetBody()
			}
			res, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || !bytes.Equal(got, body) || res.Header.Get("X-Echo-A") != req.Header.Get("X-Echo-A") || res.Header.Get("X-Path") != fmt.Sprintf("/p?%d", i) {
				t.Errorf("%d: %d bytes of %d, %v, %v", i, len(got), size, err, res.Header)
			}
			if i%2 == 0 && size > 0 && res.Trailer.Get("X-Sum") != "yes" {
				t.Errorf("%d: trailers %v", i, res.Trailer)
			}
		})
	}
	all.Wait()
	transport.CloseIdleConnections()
	l.Close()
	serving.Wait()
}

// hooked calls end when its reader has ended.
type hooked struct {
	io.Reader
	end func()
}

func (h *hooked) Read(p []byte) (int, error) {
	n, err := h.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		h.end()
	}
	return n, err
}

// Our client and Go's server.
func TestGoServer(t *testing.T) {
	defer goleak.VerifyNone(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Protocols: h2c(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		w.Header().Set("X-Path", r.URL.RequestURI())
		w.Header().Set("X-Echo", r.Header.Get("X-Echo"))
		w.WriteHeader(http.StatusEarlyHints)
		sum := sha256.New()
		_, _ = io.Copy(io.MultiWriter(w, sum), r.Body)
		w.Header().Set("X-Sum", fmt.Sprintf("%x", sum.Sum(nil)))
	})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })

	type call struct {
		body, got, rest []byte
		status          int
		early           bool
		path, sum, echo string
	}
	const calls = 60
	ended, next := 0, 0
	var c *h2.Conn
	all := make([]*call, calls)
	start := func() {
		for next < calls && c.CanOpen() {
			k := &call{body: bytes.Repeat([]byte{byte(next)}, next*next*100)}
			k.rest = k.body
			s, err := c.Request(&message.Request{
				Method: "POST", Authority: "a.test", Path: fmt.Sprintf("/q?%d", next), Length: int64(len(k.body)), Trailers: true,
				Fields: message.Fields{{Name: "X-Echo", Value: strings.Repeat("e", next*100)}},
			}, len(k.body) == 0)
			if err != nil {
				t.Error(err)
				return
			}
			s.User = k
			all[next] = k
			next++
			if len(k.body) > 0 {
				k.rest = k.rest[s.Write(k.rest, true):]
			}
		}
		if ended == calls {
			c.Shutdown()
		}
	}
	c = h2.NewClient(h2.Limits{StreamWindow: 20_000, ConnWindow: 70_000}, nil, &ears{
		response: func(s *h2.Stream, r *message.Response, _ bool) {
			k := s.User.(*call)
			if r.Informational() {
				k.early = true
				return
			}
			k.status = r.Status
			k.path, _ = r.Fields.Get("x-path")
			k.echo, _ = r.Fields.Get("x-echo")
		},
		data: func(s *h2.Stream, p []byte, _ bool) {
			k := s.User.(*call)
			k.got = append(k.got, p...)
			s.Consumed(len(p))
		},
		trailers: func(s *h2.Stream, f message.Fields) { s.User.(*call).sum, _ = f.Get("x-sum") },
		writable: func(s *h2.Stream) {
			k := s.User.(*call)
			k.rest = k.rest[s.Write(k.rest, true):]
		},
		closed: func(_ *h2.Stream, why h2.Cause) {
			if ended++; why.By != h2.Complete {
				t.Errorf("closed: %v", why)
			}
			start()
		},
	})
	start()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := drive(conn, c); err != nil {
		t.Error(err)
	}
	for i, k := range all {
		if k == nil || k.status != 200 || !k.early || !bytes.Equal(k.got, k.body) || k.sum != fmt.Sprintf("%x", sha256.Sum256(k.body)) ||
			k.path != fmt.Sprintf("/q?%d", i) || len(k.echo) != i*100 {
			t.Errorf("%d: %+v", i, k)
		}
	}
	_ = server.Close()
	serving.Wait()
}
