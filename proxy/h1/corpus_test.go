package h1_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/h1"
	"github.com/jurat-tls/jurat/proxy/message"
)

var update = flag.Bool("update", false, "rewrite the stars and the meanings of testdata/smuggling.txt")

const corpusFile = "testdata/smuggling.txt"

// sample is one line of the corpus.
type sample struct {
	what, method, outcome, name, message, meaning string
	star                                          bool
}

func (s sample) String() string {
	what, outcome := s.what, s.outcome
	if s.what == "response" && s.method != "GET" {
		what += ":" + s.method
	}
	if s.star {
		outcome += "*"
	}
	line := fmt.Sprintf("%s %s %s %s", what, outcome, s.name, strconv.QuoteToASCII(s.message))
	if strings.ContainsRune(s.message, '\ufffd') || !isASCII(s.message) {
		line = fmt.Sprintf("%s %s %s %s", what, outcome, s.name, quoteBytes(s.message))
	}
	if s.outcome == "ok" {
		line += " " + strconv.Quote(s.meaning)
	}
	return line
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r > 0x7e }) }

func quoteBytes(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		if s[i] < 0x80 {
			q := strconv.Quote(s[i : i+1])
			b.WriteString(q[1 : len(q)-1])
		} else {
			fmt.Fprintf(&b, `\x%02x`, s[i])
		}
	}
	b.WriteByte('"')
	return b.String()
}

func parseSample(t testing.TB, line string) sample {
	t.Helper()
	f := strings.SplitN(line, " ", 4)
	if len(f) != 4 {
		t.Fatalf("not a sample: %s", line)
	}
	s := sample{method: "GET", name: f[2]}
	s.what, s.method, _ = strings.Cut(f[0], ":")
	if s.method == "" {
		s.method = "GET"
	}
	s.outcome, s.star = strings.CutSuffix(f[1], "*")
	quoted, err := strconv.QuotedPrefix(f[3])
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	s.message, _ = strconv.Unquote(quoted)
	if rest := strings.TrimSpace(f[3][len(quoted):]); rest != "" {
		if s.meaning, err = strconv.Unquote(rest); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return s
}

// corpus answers the samples, and the file's lines with nil for those that are none.
func corpus(t testing.TB) (samples []sample) {
	t.Helper()
	text, err := os.ReadFile(corpusFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && line[0] != '#' {
			samples = append(samples, parseSample(t, line))
		}
	}
	return samples
}

// read answers the outcome of a sample and, where it is ok, the meaning.
func (s sample) read() (outcome, meaning string) {
	b := []byte(s.message)
	var err error
	switch s.what {
	case "request":
		var r message.Request
		var m h1.Meta
		if m, err = h1.ParseRequest(b, h1.Limits{}, &r); err == nil {
			meaning = requestMeaning(&r, m)
		}
	case "response":
		var r message.Response
		var m h1.Meta
		if m, err = h1.ParseResponse(b, h1.Limits{}, s.method, &r); err == nil {
			meaning = responseMeaning(&r, m)
		}
	case "chunked":
		got := feed(h1.Chunked, b, len(b))
		if err = got.err; err == nil && !got.done {
			err = h1.ErrMore
		}
		meaning = fmt.Sprintf("%q, %d bytes left%s", got.body, len(b)-got.n, fieldsMeaning(got.trailers))
	}
	var refused h1.Error
	switch {
	case err == nil:
		return "ok", meaning
	case errors.Is(err, h1.ErrMore):
		return "more", ""
	case errors.Is(err, h1.ErrPreface):
		return "preface", ""
	case errors.As(err, &refused):
		return strconv.Itoa(refused.Status), ""
	default:
		return err.Error(), ""
	}
}

func requestMeaning(r *message.Request, m h1.Meta) string {
	s := fmt.Sprintf("%s %s//%s%s%s", r.Method, r.Scheme, r.Authority, r.Path, metaMeaning(m, r.Length))
	if r.Version == message.HTTP10 {
		s += ", 1.0"
	}
	if r.Upgrade != "" {
		s += ", upgrade to " + r.Upgrade
	}
	if r.Expect {
		s += ", expect"
	}
	if r.Trailers {
		s += ", understands trailers"
	}
	return s + fieldsMeaning(r.Fields)
}

func responseMeaning(r *message.Response, m h1.Meta) string {
	s := fmt.Sprintf("%d %q%s", r.Status, r.Reason, metaMeaning(m, r.Length))
	if r.Upgrade != "" {
		s += ", upgrade to " + r.Upgrade
	}
	return s + fieldsMeaning(r.Fields)
}

func metaMeaning(m h1.Meta, length int64) string {
	body := fmt.Sprintf(", %d bytes follow", m.Body)
	switch {
	case m.Body == h1.Chunked:
		body = ", chunks follow"
	case m.Body == h1.UntilClose:
		body = ", a body until the end follows"
	case m.Body == 0 && length == message.NoBody:
		body = ""
	case m.Body != length:
		body += fmt.Sprintf(" (says %d)", length)
	}
	if !m.Persistent {
		body += ", last"
	}
	return body
}

func fieldsMeaning(f message.Fields) (s string) {
	for _, f := range f {
		s += fmt.Sprintf(" | %s: %s", f.Name, f.Value)
	}
	return s
}

// Every sample comes to what the corpus says, in pieces too, and net/http takes what the star says it does.
func TestSmuggling(t *testing.T) {
	var text bytes.Buffer
	names := map[string]bool{}
	refused, lenient := 0, 0
	for _, s := range corpus(t) {
		if names[s.name] {
			t.Errorf("%s: a name twice", s.name)
		}
		names[s.name] = true
		outcome, meaning := s.read()
		star := s.readByNetHTTP()
		if outcome != s.outcome {
			t.Errorf("%s: %s instead of %s: %q", s.name, outcome, s.outcome, s.message)
		}
		if !*update && (meaning != s.meaning || star != s.star && outcome != "ok" && outcome != "more") {
			t.Errorf("%s: %q instead of %q, net/http takes it: %v", s.name, meaning, s.meaning, star)
		}
		if outcome == "ok" && !star && s.method != "CONNECT" { // it reads into tunnels
			t.Errorf("%s: net/http refuses it", s.name)
		}
		if outcome != "ok" && outcome != "more" {
			refused++
			if star {
				lenient++
			}
			s.star = star
		}
		s.meaning = meaning
		fmt.Fprintln(&text, s)
		s.inPieces(t)
	}
	if refused < 100 {
		t.Errorf("only %d refusals", refused)
	}
	t.Logf("%d refusals, of %d of which net/http makes something", refused, lenient)
	if *update {
		rewrite(t, text.String())
	}
}

func rewrite(t *testing.T, samples string) {
	old, err := os.ReadFile(corpusFile)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(old)) {
		if line != "\n" && line[0] != '#' {
			line, samples, _ = strings.Cut(samples, "\n")
			line += "\n"
		}
		out.WriteString(line)
	}
	if err := os.WriteFile(corpusFile, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// inPieces checks that a message that comes in pieces comes to the same, and that Scan says when it does.
func (s sample) inPieces(t testing.TB) {
	t.Helper()
	if s.what == "chunked" {
		inPieces(t, h1.Chunked, []byte(s.message))
		return
	}
	request := s.what == "request"
	headInPieces(t, []byte(s.message), h1.Limits{}, func(b []byte, l h1.Limits) (string, error) {
		if request {
			var r message.Request
			m, err := h1.ParseRequest(b, l, &r)
			return requestMeaning(&r, m), err
		}
		var r message.Response
		m, err := h1.ParseResponse(b, l, s.method, &r)
		return responseMeaning(&r, m), err
	})
}

func headInPieces(t testing.TB, b []byte, l h1.Limits, parse func([]byte, h1.Limits) (string, error)) {
	t.Helper()
	want, wantErr := parse(b, l)
	var scan h1.Scan
	decided := false
	for n := range len(b) + 1 {
		got, err := parse(b[:n], l)
		if ready := scan.Ready(b[:n], l); ready != !errors.Is(err, h1.ErrMore) {
			t.Fatalf("after %d bytes of %q: ready %v, %v", n, b, ready, err)
		}
		switch {
		case errors.Is(err, h1.ErrMore):
			if decided {
				t.Fatalf("after %d bytes of %q there is more to come again", n, b)
			}
			continue
		case !decided:
			scan = h1.Scan{}
		}
		decided = true
		scan = h1.Scan{}
		if got != want || !errors.Is(err, wantErr) {
			t.Fatalf("after %d bytes of %q: %s, %v; in one piece %s, %v", n, b, got, err, want, wantErr)
		}
	}
	if !decided && !errors.Is(wantErr, h1.ErrMore) {
		t.Fatalf("%q: undecided in pieces, in one %v", b, wantErr)
	}
}
