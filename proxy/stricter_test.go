package proxy_test

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// loose is a message as the most lenient of servers takes it apart: every line ends in LF.
type loose struct {
	first   string   // the first line
	words   []string // of that
	lines   []string // of fields, without what ends them
	ends    []string // of all lines: what ends them
	fields  []looseField
	body    string   // what follows the head
	chunks  []string // lines that say how large a chunk is
	trailer []looseField
}

// looseField is a line taken apart at its first colon.
type looseField struct{ name, value string }

func newLoose(text string) *loose {
	m := &loose{}
	m.first, text, _ = m.line(text)
	m.words = strings.Split(m.first, " ")
	m.fields, m.body = m.section(text)
	if slices.ContainsFunc(m.all("Transfer-Encoding"), func(v string) bool { return strings.Contains(strings.ToLower(v), "chunked") }) {
		m.chunked(m.body)
	}
	return m
}

func (m *loose) line(text string) (line, rest string, ok bool) {
	line, rest, ok = strings.Cut(text, "\n")
	if !ok {
		return line, "", false
	}
	end := "\n"
	if strings.HasSuffix(line, "\r") {
		line, end = line[:len(line)-1], "\r\n"
	}
	m.ends = append(m.ends, end)
	return line, rest, true
}

func (m *loose) section(text string) (fields []looseField, rest string) {
	for text != "" {
		var line string
		if line, text, _ = m.line(text); line == "" {
			break
		}
		m.lines = append(m.lines, line)
		name, value, _ := strings.Cut(line, ":")
		fields = append(fields, looseField{name, value})
	}
	return fields, text
}

func (m *loose) chunked(body string) {
	for body != "" {
		var line string
		line, body, _ = m.line(body)
		m.chunks = append(m.chunks, line)
		digits := strings.TrimLeft(line, " \t")
		if i := strings.IndexFunc(digits, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) }); i >= 0 {
			digits = digits[:i]
		}
		n, err := strconv.ParseUint(digits, 16, 64)
		switch {
		case err != nil:
			return
		case n == 0:
			m.trailer, _ = m.section(body)
			return
		case n >= uint64(len(body)):
			return
		}
		_, body, _ = m.line(body[n:])
	}
}

// all are the values of a field, with the whitespace around them.
func (m *loose) all(name string) (values []string) {
	for _, f := range m.fields {
		if strings.EqualFold(strings.TrimSpace(f.name), name) {
			values = append(values, f.value)
		}
	}
	return values
}

// elements are those of a field that is a list.
func (m *loose) elements(name string) (elements []string) {
	for _, v := range m.all(name) {
		for e := range strings.SplitSeq(v, ",") {
			elements = append(elements, strings.TrimSpace(e))
		}
	}
	return elements
}

var (
	token      = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	hostName   = regexp.MustCompile(`^([0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)
	plainURL   = regexp.MustCompile(`^(?i:https?)://([^/?]*)([/?].*)?$`)
	visible    = regexp.MustCompile(`^[!-~]*$`)
	sizeLine   = regexp.MustCompile(`^[0-9A-Fa-f]{1,16}(;[\t -~]*)?$`)
	statusLine = regexp.MustCompile(`^HTTP/1\.[01] [1-9][0-9]{2}( [\t -~\x{80}-\x{10ffff}]*)?$`)
	hint       = regexp.MustCompile(`^HTTP/1\.[01] 1[0-9][0-9]`)
	nothing    = regexp.MustCompile(`^HTTP/1\.[01] (1[0-9][0-9]|204)`)
	number     = regexp.MustCompile(`^ *(0|[1-9][0-9]{0,17}) *$`)
)

func isHost(s string) bool {
	if !hostName.MatchString(s) {
		return false
	}
	if s[0] == '[' {
		if ip, err := netip.ParseAddr(s[1:strings.IndexByte(s, ']')]); err != nil || !ip.Is6() {
			return false
		}
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 || s[len(s)-1] == ']' {
		return true
	}
	port, err := strconv.Atoi(s[i+1:])
	return err == nil && port <= 65535
}

// frames are fields that say where a message ends, or are of its connection.
var frames = strings.Fields("connection content-length expect host http2-settings keep-alive proxy-connection te trailer transfer-encoding upgrade")

// ofTheMessage are fields without which a message means something else.
var ofTheMessage = strings.Fields(`authorization cache-control content-encoding content-length content-range content-type cookie date expect host
	location range set-cookie transfer-encoding www-authenticate`)

func (m *loose) version() string { return m.words[len(m.words)-1] }

func (m *loose) target() string {
	if len(m.words) < 2 {
		return ""
	}
	return m.words[1]
}

// reason is one for which we refuse what net/http takes.
type reason struct {
	name, why string
	is        func(m *loose) bool
}

// ofAll are reasons to refuse requests and responses.
var ofAll = []reason{
	{"bare LF", "RFC 9112 section 2.2 lets a recipient take it for the end of a line; one that does not sees other fields", func(m *loose) bool {
		return slices.Contains(m.ends, "\n")
	}},
	{"folded line", "RFC 9112 section 5.2 has a server refuse it; unfolded by one reader only, it hides a field", func(m *loose) bool {
		return slices.ContainsFunc(m.lines, func(l string) bool { return l[0] == ' ' || l[0] == '\t' })
	}},
	{"name of a field", "RFC 9112 section 5.1: whitespace before the colon makes another field of it to some", func(m *loose) bool {
		return slices.ContainsFunc(append(m.fields, m.trailer...), func(f looseField) bool { return !token.MatchString(f.name) })
	}},
	{"two lengths", "RFC 9112 section 6.3 has a proxy that can't be sure close; each of two servers may believe the other field", func(m *loose) bool {
		return len(m.all("Transfer-Encoding")) > 0 && len(m.all("Content-Length")) > 0
	}},
	{"length twice", "RFC 9110 section 8.6 allows to refuse it; what is the same to one reader is a list to another", func(m *loose) bool {
		return len(m.all("Content-Length")) > 1
	}},
	{"spelling of a length", "a leading zero is octal to some, and a number that overflows a small one; no tab has a place beside it", func(m *loose) bool {
		return slices.ContainsFunc(m.all("Content-Length"), func(v string) bool { return !number.MatchString(v) })
	}},
	{"tab beside what frames", "allowed, and only ever seen to hide the field from one of two readers", func(m *loose) bool {
		return strings.Contains(strings.Join(append(m.all("Transfer-Encoding"), m.all("Host")...), ""), "\t")
	}},
	{"coding in HTTP/1.0", "RFC 9112 section 6.1: a reader of 1.0 in front took what follows for another message", func(m *loose) bool {
		return (m.version() == "HTTP/1.0" || m.words[0] == "HTTP/1.0") && len(m.all("Transfer-Encoding")) > 0
	}},
	{"option of Connection", "RFC 9110 section 7.6.1: one that is no token, too many, or one that takes a field of the message away", func(m *loose) bool {
		options := m.elements("Connection")
		return len(options) > 16 || slices.ContainsFunc(options, func(o string) bool {
			return o != "" && (!token.MatchString(o) || slices.Contains(ofTheMessage, strings.ToLower(o)))
		})
	}},
	{"announced trailer", "RFC 9110 section 6.5.1: a trailer that frames would be read by who merges it into the head", func(m *loose) bool {
		return slices.ContainsFunc(m.elements("Trailer"), func(name string) bool {
			return name != "" && (!token.MatchString(name) || slices.Contains(frames, strings.ToLower(name)))
		})
	}},
	{"trailer that frames", "the same, where it comes unannounced", func(m *loose) bool {
		return slices.ContainsFunc(m.trailer, func(f looseField) bool { return slices.Contains(frames, strings.ToLower(f.name)) })
	}},
	{"chunk's line", "RFC 9112 section 7.1: whitespace, controls, or a size that overflows is read as another size by some", func(m *loose) bool {
		return slices.ContainsFunc(m.chunks, func(l string) bool { return !sizeLine.MatchString(l) || len(l) >= 16 && l[0] > '7' })
	}},
	{"too many fields", "memory", func(m *loose) bool { return len(m.fields) > 128 || len(m.trailer) > 128 }},
}

// ofRequests are reasons to refuse requests.
var ofRequests = slices.Concat([]reason{
	{"line before", "RFC 9112 section 2.2 would overlook it; only a client that miscounts bodies sends one, and what else it miscounts nobody knows", func(m *loose) bool {
		return m.first == "" || m.first[0] == '\r'
	}},
}, ofAll, []reason{
	{"version", "RFC 9112 section 2.3: of a version that does not exist nobody knows the rules", func(m *loose) bool {
		return m.version() != "HTTP/1.1" && m.version() != "HTTP/1.0"
	}},
	{"CONNECT", "there are no tunnels through this proxy", func(m *loose) bool { return m.words[0] == "CONNECT" }},
	{"PRI", "RFC 9113 section 3.4: to a service that speaks HTTP/2 it opens that", func(m *loose) bool { return m.words[0] == "PRI" }},
	{"characters of a target", "RFC 3986: what is not visible ASCII is not in one, and a fragment is never sent", func(m *loose) bool {
		return !visible.MatchString(m.target()) || strings.Contains(m.target(), "#")
	}},
	{"form of a target", "RFC 9112 section 3.2 knows a path, a URL, and * of OPTIONS; URLs of other schemes are nothing for a server of HTTP", func(m *loose) bool {
		t := m.target()
		return !strings.HasPrefix(t, "/") && !plainURL.MatchString(t) && (t != "*" || m.words[0] != "OPTIONS")
	}},
	{"host", "RFC 9110 section 7.2: a name or address, and a port; with more in it two servers see two hosts", func(m *loose) bool {
		hosts := m.all("Host")
		if u := plainURL.FindStringSubmatch(m.target()); u != nil {
			hosts = append(hosts, u[1])
		}
		return slices.ContainsFunc(hosts, func(h string) bool { return !isHost(strings.Trim(h, " ")) })
	}},
	{"target and Host differ", "RFC 9112 section 3.2.2 lets the target win; a server that reads Host sees another site", func(m *loose) bool {
		u, hosts := plainURL.FindStringSubmatch(m.target()), m.all("Host")
		return u != nil && len(hosts) == 1 && !strings.EqualFold(strings.TrimSpace(hosts[0]), u[1])
	}},
	{"expectation", "RFC 9110 section 10.1.1 has 417 for one that is not known; net/http looks for the one it knows anywhere in it", func(m *loose) bool {
		e := m.all("Expect")
		return len(e) > 1 || len(e) == 1 && !strings.EqualFold(strings.TrimSpace(e[0]), "100-continue")
	}},
})

// ofResponses are reasons to refuse responses.
var ofResponses = slices.Concat(ofAll, []reason{
	{"status line", "RFC 9112 section 4: one of HTTP/1.1 or 1.0, of three digits from 100 on, and no control character", func(m *loose) bool {
		return !statusLine.MatchString(m.first)
	}},
	{"body of nothing", "RFC 9112 section 6.1: 1xx and 204 have none; who believes the fields takes the next message for one", func(m *loose) bool {
		lengths := m.all("Content-Length")
		return nothing.MatchString(m.first) && (len(m.all("Transfer-Encoding")) > 0 || len(lengths) > 0 && strings.TrimSpace(lengths[0]) != "0")
	}},
	{"another protocol", "RFC 9110 section 15.2.2: nobody has asked for it", func(m *loose) bool {
		return len(m.words) > 1 && m.words[1] == "101"
	}},
})

// stricter answers why a message is refused that net/http takes, by what is in the text alone; nothing if there is no reason.
func stricter(text string, reasons []reason) string {
	m := newLoose(text)
	for _, r := range reasons {
		if r.is(m) {
			return r.name
		}
	}
	if hint.MatchString(m.first) { // and the response behind it
		return stricter(m.body, reasons)
	}
	return ""
}
