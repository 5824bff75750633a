package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/h1"
	"github.com/jurat-tls/jurat/proxy/message"
)

// sample is a line of the corpus of package h1.
type sample struct{ what, outcome, name, message string }

func corpus(t testing.TB) (samples []sample) {
	t.Helper()
	text, err := os.ReadFile("h1/testdata/smuggling.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 4)
		if len(f) < 4 || line[0] == '#' {
			continue
		}
		quoted, err := strconv.QuotedPrefix(f[3])
		if err != nil {
			t.Fatal(err)
		}
		message, _ := strconv.Unquote(quoted)
		samples = append(samples, sample{f[0], strings.TrimSuffix(f[1], "*"), f[2], message})
	}
	return samples
}

// witness is a service that keeps all that each connection brings, and answers every head at once.
type witness struct {
	mu    sync.Mutex
	heard []*bytes.Buffer
}

func (w *witness) serve(c *net.TCPConn) {
	b := new(bytes.Buffer)
	w.mu.Lock()
	w.heard = append(w.heard, b)
	w.mu.Unlock()
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Read(buf)
		w.mu.Lock()
		b.Write(buf[:n])
		w.mu.Unlock()
		for range bytes.Count(buf[:n], []byte(" HTTP/1.1\r\nHost: ")) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
		if err != nil {
			return
		}
	}
}

// told is what has come since the last call.
func (w *witness) told() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var s strings.Builder
	for _, b := range w.heard {
		s.Write(b.Bytes())
		b.Reset()
	}
	return s.String()
}

// TestSmuggling sends the corpus through a proxy. What is to be refused never reaches the service, nor does what comes behind
// it; what is not reaches it with the meaning that it has, and nothing else does.
func TestSmuggling(t *testing.T) {
	const behind = "GET /behind HTTP/1.1\r\nHost: behind\r\nConnection: close\r\n\r\n"
	w := new(witness)
	in := start(t, inboundHTTP(t, shake(nil, "http/1.1"), rawOrigin(t, w.serve), proxy.Limits{}, nil))
	refused, passed := 0, 0
	for _, s := range corpus(t) {
		text, chunked := s.message, s.what == "chunked"
		switch {
		case chunked:
			text = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + text
		case s.what != "request":
			continue
		}
		if s.outcome == "more" || s.outcome == "preface" {
			continue
		}
		for _, pieces := range []bool{false, true} {
			if pieces && s.outcome == "ok" { // the service would answer before it has all
				continue
			}
			w.told()
			got := say(t, in, text+behind, pieces)
			heard := w.told()
			answers := strings.Count(got, "HTTP/1.1 ")
			switch {
			case s.outcome == "ok":
				passed++
				arrived(t, s, text, heard, got)
			case chunked: // its head was right: nothing of a body that ends may come, nor what is behind
				refused++
				if strings.Contains(heard, "/behind") || strings.Contains(heard, "\r\n0\r\n") || answers > 1 {
					t.Errorf("%s: the service was told %q, the client %q", s.name, heard, got)
				}
			default:
				refused++
				if heard != "" || answers != 1 || !strings.HasPrefix(got, "HTTP/1.1 "+s.outcome+" ") {
					t.Errorf("%s: the service was told %q, the client %q", s.name, heard, got)
				}
			}
		}
	}
	if refused < 500 || passed < 50 {
		t.Errorf("%d were to be refused, %d to be passed", refused, passed)
	}
}

// say sends text on a connection of its own, and answers all that comes back.
func say(t *testing.T, addr, text string, pieces bool) string {
	t.Helper()
	c, err := dialTLS(t.Context(), addr, "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if pieces {
		for p := range slices.Chunk([]byte(text), 1+len(text)/5) {
			_, _ = c.Write(p)
		}
	} else {
		_, _ = io.WriteString(c, text)
	}
	got, err := io.ReadAll(c)
	if timeout(err) {
		t.Errorf("%q: no end after %q", text, got)
	}
	return string(got)
}

// arrived checks that the service was told what the sample says.
func arrived(t *testing.T, s sample, text, heard, got string) {
	t.Helper()
	var want message.Request
	m, err := h1.ParseRequest([]byte(text), h1.Limits{}, &want)
	if err != nil {
		t.Fatal(s.name, err)
	}
	if want.Method == "CONNECT" {
		if heard != "" && !strings.HasPrefix(heard, "GET /behind ") {
			t.Errorf("%s: the service was told %q", s.name, heard)
		}
		return
	}
	if strings.HasPrefix(got, "HTTP/1.1 400 ") { // a host that this proxy does not pass on
		if heard != "" && !strings.HasPrefix(heard, "GET /behind ") {
			t.Errorf("%s: the service was told %q", s.name, heard)
		}
		return
	}
	r := bufio.NewReader(strings.NewReader(heard))
	for at := 0; ; at++ {
		req, err := http.ReadRequest(r)
		if err != nil {
			if at == 0 || err != io.EOF {
				t.Errorf("%s: the service was told %q: %v", s.name, heard, err)
			}
			return
		}
		body, err := io.ReadAll(req.Body)
		switch {
		case err != nil:
			t.Errorf("%s: the service was told %q: %v", s.name, heard, err)
			return
		case at == 0 && (req.Method != want.Method || req.RequestURI != want.Path || want.Authority != "" && !strings.EqualFold(req.Host, want.Authority)):
			t.Errorf("%s: the service was told %q", s.name, heard)
		case at == 0 && m.Body > 0 && string(body) != text[m.Size:m.Size+int(m.Body)]:
			t.Errorf("%s: the service was told %q", s.name, heard)
		case at == 0 && m.Body == 0 && len(body) > 0:
			t.Errorf("%s: the service was told %q", s.name, heard)
		case at == 0:
			for _, f := range want.Fields {
				if !message.Identifies(f.Name) && !slices.Contains(req.Header.Values(f.Name), f.Value) && f.Name != "Trailer" {
					t.Errorf("%s: no %s in %q", s.name, fmt.Sprint(f), heard)
				}
			}
		case !m.Persistent || at > 1 || req.RequestURI != "/behind":
			t.Errorf("%s: more than was said: %q", s.name, heard)
			return
		}
	}
}
