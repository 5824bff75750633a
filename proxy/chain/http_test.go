package chain_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/chain"
)

func TestDetectHTTP(t *testing.T) {
	long := strings.Repeat("a", 16<<10)
	for text, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: x\r\n": "http/1.1", "GET / HTTP/1.0\r\n": "http/1.0", "M-SEARCH * HTTP/1.1\n": "http/1.1",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": "h2c", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nmore": "h2c", "PRI * HTTP/1.1\r\n": "http/1.1",
		"": "?", "G": "?", "GET": "?", "GET ": "?", "GET / HTTP/1.1": "?", "PRI * HTTP/2.0\r\n\r\nSM": "?", "GET /" + long[:16<<10-6]: "?",
		"PRI * HTTP/2.0\r\n\r\nSX": "", "GET / HTTP/2.0\r\n": "", "GET /\r\n": "", "GET HTTP/1.1\r\n": "", "GET\r\n": "", "get / HTTP/1.1\r\n": "", " / HTTP/1.1\r\n": "",
		"\x16\x03": "", "\x00": "", "\n": "", "GET\x00": "", "EHLO mail.example\r\n": "", long: "", "GET /" + long[:16<<10-5]: "",
		strings.Repeat("A", 32): "?", strings.Repeat("A", 33): "",
	} {
		name, clear := chain.DetectHTTP([]byte(text))
		if !clear {
			name += "?"
		}
		if name != want {
			t.Errorf("%.40q: %q, want %q", text, name, want)
		}
	}
}

var request = regexp.MustCompile(`^[A-Z-]{1,32} (?:[^\n]* )?HTTP/1\.[01]\r?\n`)

// FuzzDetectHTTP: what is clear once is so whatever follows, and nothing is clear too late.
func FuzzDetectHTTP(f *testing.F) {
	for _, s := range []string{"GET / HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST /a HTTP/1.0\n", "\x80\x00"} {
		f.Add([]byte(s), []byte("more\n"))
	}
	f.Fuzz(func(t *testing.T, p, more []byte) {
		name, clear := chain.DetectHTTP(p)
		if name != "" && !clear || !clear && len(p) >= 16<<10 {
			t.Fatalf("%q and not clear", name)
		}
		if again, _ := chain.DetectHTTP(append(p, more...)); clear && again != name {
			t.Fatalf("%q, and then %q", name, again)
		}
		if strings.HasPrefix(name, "http/1.") && !request.Match(p) {
			t.Fatalf("%q", name)
		}
	})
}
