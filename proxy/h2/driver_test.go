package h2_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy/h2"
	"github.com/jurat-tls/jurat/proxy/message"
)

// drive moves bytes between a socket and a machine until either has had enough.
func drive(conn net.Conn, c *h2.Conn) error {
	defer conn.Close()
	start := time.Now()
	buf := make([]byte, 64<<10)
	for {
		for len(c.Output()) > 0 {
			n, err := conn.Write(c.Output())
			if err != nil {
				c.Abort(h2.NoError)
				return err
			}
			c.Sent(n)
		}
		if c.Done() {
			if tcp, ok := conn.(*net.TCPConn); ok {
				// What came after a GOAWAY must not make the kernel send RST, which would overtake it.
				_ = tcp.CloseWrite()
				_ = tcp.SetReadDeadline(time.Now().Add(5 * time.Second))
				_, _ = io.Copy(io.Discard, tcp)
			}
			return c.Err()
		}
		n, err := conn.Read(buf)
		if err != nil {
			c.Abort(h2.NoError)
			return err
		}
		_ = c.Feed(time.Since(start), buf[:n])
	}
}

// listen serves each connection with a machine that make makes.
func listen(t testing.TB, create func() *h2.Conn) *net.TCPAddr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = drive(conn, create()) }()
		}
	}()
	return l.Addr().(*net.TCPAddr)
}

// sender gives a body to a stream as it takes it.
type sender struct {
	rest     []byte
	trailers message.Fields
}

// send answers a stream with a body of its own.
func send(s *h2.Stream, r *message.Response, body []byte, trailers message.Fields) {
	w := &sender{body, trailers}
	s.User = w
	if err := s.Respond(r, len(body) == 0 && len(trailers) == 0); err != nil {
		s.Reset(h2.InternalError)
		return
	}
	if len(body) > 0 || len(trailers) > 0 {
		w.more(s)
	}
}

func (w *sender) more(s *h2.Stream) {
	if len(w.trailers) == 0 {
		w.rest = w.rest[s.Write(w.rest, true):]
		return
	}
	w.rest = w.rest[s.Write(w.rest, false):]
	if len(w.rest) == 0 {
		_ = s.Trailers(w.trailers)
	}
}

func writeMore(s *h2.Stream) {
	if w, ok := s.User.(*sender); ok {
		w.more(s)
	}
}
