package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// The same for what a service answers: read by net/http's client, and by one behind a proxy on each of the engines. A service
// whose answer can't be passed on as what it is gets 502 in its name, or a response that plainly breaks off.

// answer is a response as a client understands it.
type answer struct {
	hints  []string // the informational ones before it
	status int
	// length is that of a body that the head speaks of, where none follows.
	length           int64
	fields, trailers http.Header
	body             string
	broken           bool // it ended before its end, or was none; what there is of it says nothing
	refused          bool // the proxy says so in its own name
}

func (a answer) String() string {
	switch {
	case a.refused:
		return "refused"
	case a.broken:
		return "broken"
	}
	return fmt.Sprintf("%s%d %q, says %d, body %q, trailers %q", a.hints, a.status, a.fields, a.length, a.body, a.trailers)
}

// take reads a response. Its fields are those that are neither of the connection, of which are options, nor of the framing
// nor a proxy's own.
func (a *answer) take(r *http.Response, of []string) {
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		a.broken = true
		return
	}
	a.status, a.body, a.length = r.StatusCode, string(body), -1
	// RFC 9110 section 8.6: 204 tells none, not even to HEAD.
	if r.Request.Method == http.MethodHead && r.StatusCode != http.StatusNoContent || r.StatusCode == http.StatusNotModified {
		a.length = r.ContentLength
	}
	a.refused = r.Header["Jurat-Error"] != nil
	a.fields = kept(r.Header, of, ofConnections)
	a.trailers = kept(r.Trailer, of, onlyInHeads)
}

func (a *answer) hint(status int, h http.Header) {
	a.hints = append(a.hints, fmt.Sprintf("%d %q before ", status, kept(h, options(h), ofConnections)))
}

// readByNetHTTP is what net/http's client makes of an answer to a request.
func readByNetHTTP(ctx context.Context, method, text string) (a answer) {
	s := &script{in: strings.NewReader(text), done: make(chan struct{}), asked: make(chan struct{})}
	tr := &http.Transport{
		DisableCompression: true, DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return s, nil },
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
		a.hint(status, http.Header(h))
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, method, "http://a/first", nil)
	if err != nil {
		return answer{broken: true}
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return answer{broken: true}
	}
	m := newLoose(text)
	for hint.MatchString(m.first) {
		m = newLoose(m.body)
	}
	// net/http takes a Connection: close away with all that is beside it.
	a.take(res, options(http.Header{"Connection": m.all("Connection")}))
	return a
}

// alone reports whether nothing comes behind a response. Something that comes late may be taken for the answer to the next
// request on the connection by anyone, so it has to come at once.
func alone(method, text string) bool {
	for r := bufio.NewReader(strings.NewReader(text)); ; {
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return true
		}
		_, err = io.Copy(io.Discard, res.Body)
		if res.StatusCode >= 200 || err != nil {
			return err != nil || r.Buffered() == 0
		}
	}
}

// second is what a service answers to everything but the first request of a client.
const second = "HTTP/1.1 200 OK\r\nX-Second: yes\r\nContent-Length: 6\r\n\r\nsecond"

// mouth is a service that answers what it was told to, in pieces.
type mouth struct {
	mu     sync.Mutex
	texts  map[string]string
	pieces int
}

func (m *mouth) serve(c net.Conn) {
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	m.mu.Lock()
	text, pieces := m.texts[req.Header.Get("X-Forwarded-For")], m.pieces
	m.mu.Unlock()
	if req.URL.Path != "/first" {
		text = second
	}
	for p := range slices.Chunk([]byte(text), 1+len(text)/pieces) {
		if _, err := c.Write(p); err != nil {
			return
		}
	}
}

// differentialResponse compares what comes of answers.
type differentialResponse struct {
	sides  [2]*side
	mouths [2]*mouth
	run    int

	passed, refused, cut int
	why                  map[string]int
}

func newDifferentialResponse(t testing.TB) *differentialResponse {
	t.Helper()
	d := &differentialResponse{why: map[string]int{}}
	i := 0
	d.sides = twins(t, func(*side) string {
		d.mouths[i] = &mouth{}
		i++
		return socket(t, "service", d.mouths[i-1].serve)
	})
	return d
}

// ask asks a server on behalf of a new client, twice on one connection. The second answer has to be the second one's. An old
// client speaks HTTP/1.0, and asks once.
func ask(ctx context.Context, s *side, name, method string, old bool) (a answer, err error) {
	c, err := s.dial(ctx, name)
	if err != nil {
		return a, err
	}
	defer c.NetConn().Close()
	text := method + " /first HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	if old {
		text = method + " /first HTTP/1.0\r\nHost: a\r\n\r\n"
	}
	if _, err := io.WriteString(c, text); err != nil {
		return a, err
	}
	r := bufio.NewReader(careful{c}) // a body may last until the end, and then that has to be a proper one
	for {
		res, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return answer{broken: true}, nil
		}
		if res.StatusCode >= 200 {
			a.take(res, options(res.Header))
			break
		}
		a.hint(res.StatusCode, res.Header)
	}
	if a.broken || old {
		return a, nil
	}
	rest, err := io.ReadAll(r)
	if text := string(rest); err != nil || strings.Count(text, "HTTP/1.1 ") != 1 || !strings.HasPrefix(text, "HTTP/1.1 200 OK\r\nX-Second: yes\r\n") || !strings.HasSuffix(text, "\r\n\r\nsecond") {
		return a, fmt.Errorf("%s: behind %v comes %q, %w", s.name, a, text, err)
	}
	return a, nil
}

// compare has a service answer a request with text. The answer is where the three differ.
func (d *differentialResponse) compare(ctx context.Context, method, text string, old bool) error {
	d.run++
	name := "client-" + strconv.Itoa(d.run)
	theirs := readByNetHTTP(ctx, method, text)
	if old { // HTTP/1.0 knows neither
		theirs.hints, theirs.trailers = nil, http.Header{}
	}
	var ours [2]answer
	for i, s := range d.sides {
		m := d.mouths[i]
		m.mu.Lock()
		m.texts, m.pieces = map[string]string{name: text}, 1
		if (d.run+i)%2 == 0 && alone(method, text) {
			m.pieces = 5
		}
		m.mu.Unlock()
		limit, cancel := context.WithTimeout(ctx, late)
		defer cancel()
		var err error
		if ours[i], err = ask(limit, s, name, method, old); err != nil {
			return err
		}
	}
	a, b := ours[0].String(), ours[1].String()
	switch {
	case a != b:
		return fmt.Errorf("the engines differ: %s and %s", a, b)
	case ours[0].broken:
		d.cut++
	case ours[0].refused:
		d.refused++
	default:
		d.passed++
		if a != theirs.String() {
			return fmt.Errorf("the client was told %s, net/http says %s", a, theirs)
		}
		return nil
	}
	if theirs.broken {
		return nil
	}
	reason := stricter(text, ofResponses)
	if d.why[reason]++; reason == "" {
		return fmt.Errorf("%s, net/http says %s", a, theirs)
	}
	return nil
}

func (d *differentialResponse) String() string {
	return fmt.Sprintf("%d runs: %d responses passed, %d refused, %d broken off; net/http takes of those: %v", d.run, d.passed, d.refused, d.cut, d.why)
}

// responses are those of the corpus, with the methods that they answer.
func responses(t testing.TB) (all [][2]string) {
	t.Helper()
	for _, s := range corpus(t) {
		what, method, _ := strings.Cut(s.what, ":")
		switch {
		case what == "response" && method == "":
			all = append(all, [2]string{http.MethodGet, s.message})
		case what == "response" && method == http.MethodHead:
			all = append(all, [2]string{method, s.message})
		case what == "chunked":
			all = append(all, [2]string{http.MethodGet, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + s.message})
		}
	}
	many := strings.Repeat("X: y\r\n", 130)
	return append(all, [2]string{http.MethodGet, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + many + "\r\n"})
}

// TestDifferentialResponses compares what becomes of the corpus, and that each reason to be stricter has its sample.
func TestDifferentialResponses(t *testing.T) {
	if *portable {
		t.Skip("both engines are in it")
	}
	d := newDifferentialResponse(t)
	for _, s := range responses(t) {
		for _, old := range []bool{false, true} {
			if err := d.compare(t.Context(), s[0], s[1], old); err != nil {
				t.Errorf("%s %q, HTTP/1.0 %v: %v", s[0], s[1], old, err)
			}
		}
	}
	t.Log(d)
	for _, r := range ofResponses {
		if d.why[r.name] == 0 {
			t.Errorf("no response is refused for %q (%s)", r.name, r.why)
		}
	}
}

// FuzzDifferentialResponses compares what becomes of anything.
func FuzzDifferentialResponses(f *testing.F) {
	for _, s := range responses(f) {
		f.Add([]byte(s[1]), s[0] == http.MethodHead, len(s[1])%4 == 0)
	}
	d := newDifferentialResponse(f)
	f.Fuzz(func(t *testing.T, text []byte, head, old bool) {
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		if len(text) > 4096 {
			return
		}
		if err := d.compare(t.Context(), method, string(text), old); err != nil {
			t.Fatalf("%s %q, HTTP/1.0 %v: %v", method, text, old, err)
		}
	})
}

// TestDifferentialResponseGrammar compares what becomes of responses that are nearly right.
func TestDifferentialResponseGrammar(t *testing.T) {
	if *portable {
		t.Skip("both engines are in it")
	}
	d := newDifferentialResponse(t)
	rapid.Check(t, d.check)
	t.Log(d)
}

// FuzzDifferentialResponseGrammar does so where the fuzzer makes the choices.
func FuzzDifferentialResponseGrammar(f *testing.F) {
	d := newDifferentialResponse(f)
	f.Fuzz(rapid.MakeFuzz(d.check))
}

func (d *differentialResponse) check(t *rapid.T) {
	method := mostly(t, http.MethodGet, http.MethodHead)
	old := rapid.Bool().Draw(t, "HTTP/1.0")
	text := rapid.Custom(anyResponse).Draw(t, "response")
	if err := d.compare(t.Context(), method, text, old); err != nil {
		t.Fatalf("%s %q, HTTP/1.0 %v: %v", method, text, old, err)
	}
}
