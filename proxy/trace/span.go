package trace

import (
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/message"
)

// Span is one that may be under way. Its zero value, and any that is not recorded, does nothing.
type Span struct {
	context Context
	record  *Record
}

// live reports whether there is something to write to: a Record that has ended belongs to the Sink. It and the methods below are
// inlined, so that they cost next to nothing where nothing is recorded, which is most of the time.
func (s *Span) live() bool { return s.record != nil && !s.record.ended }

// Recording reports whether what is said of the span is kept.
func (s *Span) Recording() bool { return s.live() }

// Context is what a log may name: of the span where it is recorded, of the request's traceparent where it is not, and zero where
// there is neither.
func (s *Span) Context() Context { return s.context }

// Inject answers the fields with the span as the parent of whoever gets them. It reuses their memory. Of a span that is not
// recorded they are as they were.
func (s *Span) Inject(fields message.Fields) message.Fields {
	if s.record == nil {
		return fields
	}
	return s.record.inject(fields)
}

func (r *Record) inject(fields message.Fields) message.Fields {
	fields = append(fields.Remove(ours), message.Field{Name: parentName, Value: r.Context.String()})
	if r.State != "" {
		fields = append(fields, message.Field{Name: stateName, Value: r.State})
	}
	return fields
}

func ours(name string) bool { return message.Same(name, parentName) || message.Same(name, stateName) }

// Child begins the span of a try to have a service answer. resend counts the tries before it.
func (s *Span) Child(now time.Time, resend int) Span {
	if !s.live() {
		return Span{context: s.context}
	}
	return s.record.child(now, resend)
}

func (r *Record) child(now time.Time, resend int) Span {
	r.paid.take(now, true)
	child := r.tracer.begin(now, r.Context, Client, r.paid)
	child.record.State, child.record.Resend = r.State, resend
	return child
}

// Bounds on what is kept of a request. Strangers choose how long it is, and it stays in memory until a collector has it.
const (
	maxMethod = 32
	maxPath   = 1024
	maxHost   = 255
	maxText   = 255
)

// text is a copy of the beginning of s: s may be a part of a whole head.
func text(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.Clone(strings.ToValidUTF8(s, "\uFFFD")) // others would make a whole batch of spans unreadable
}

// Request says what is asked for, over which scheme and version of HTTP. The query is left out.
func (s *Span) Request(r *message.Request, scheme string, version message.Version) {
	if s.live() {
		s.record.request(r, scheme, version)
	}
}

func (r *Record) request(q *message.Request, scheme string, version message.Version) {
	r.Method, r.OriginalMethod = text(q.Method, maxMethod), ""
	if !r.tracer.methods[q.Method] {
		r.Method, r.OriginalMethod = otherMethod, r.Method
	}
	path, _, _ := strings.Cut(q.Path, "?")
	r.Scheme, r.Path, r.Version = scheme, text(path, maxPath), version
	r.Host, r.Port = split(q.Authority)
}

// Route says which route was taken. Its name must not depend on what a client sends.
func (s *Span) Route(name string) {
	if s.live() {
		s.record.Route = text(name, maxText)
	}
}

// Cluster says which one the request goes to.
func (s *Span) Cluster(name string) {
	if s.live() {
		s.record.Cluster = text(name, maxText)
	}
}

// Peer says who is at the other end of the connection: "192.0.2.1:443", "[2001:db8::1]:443" or "unix:/path".
func (s *Span) Peer(address string) {
	if s.live() {
		s.record.peer(address)
	}
}

func (r *Record) peer(address string) {
	if path, unix := strings.CutPrefix(address, "unix:"); unix {
		r.PeerAddress, r.PeerPort = text(path, maxText), 0
		return
	}
	r.PeerAddress, r.PeerPort = split(address)
}

// Attested says what the peer has proved, or why it is refused. nil is a peer that was not asked.
func (s *Span) Attested(result *attest.Result) {
	if s.live() && result != nil {
		s.record.attested(result)
	}
}

func (r *Record) attested(result *attest.Result) {
	a := &Attestation{Verdict: result.Verdict(), Binding: result.Level(), Policy: text(result.PolicyID(), maxText)}
	if c := result.Claims(); c != nil {
		a.TEE, a.Vendor, a.Generation, a.Simulated = text(c.TEE, maxText), text(c.Vendor, maxText), text(c.Generation, maxText), c.Simulated
	}
	if digest := result.EvidenceDigest(); digest != "" {
		a.Evidence = "sha256:" + digest
	}
	r.Attestation = a
	if err := result.Err(); err != nil {
		r.Code = attest.CodeOf(err)
	}
}

// Status is of the response, 100 to 999.
func (s *Span) Status(status int) {
	if s.live() {
		s.record.Status = status
	}
}

// Fail says that the span ended in a failure of this kind, whatever the response was.
func (s *Span) Fail(code attest.Code) {
	if s.live() {
		s.record.Code = code
	}
}

// ClientGone says that the client did not wait for the end.
func (s *Span) ClientGone() {
	if s.live() {
		s.record.ClientGone = true
	}
}

// End hands the span to the Sink. Nothing that is said of it afterwards counts.
func (s *Span) End(now time.Time) {
	if s.live() {
		s.record.end(now)
	}
}

func (r *Record) end(now time.Time) {
	r.ended, r.End = true, now
	r.tracer.sink.Take(r)
}

// split takes an authority or an address apart. The port is 0 where there is none.
func split(address string) (host string, port uint16) {
	address = address[strings.LastIndexByte(address, '@')+1:] // which may stand behind a password
	name, number := address, ""
	if i := strings.LastIndexByte(address, ':'); i >= 0 {
		name, number = address[:i], address[i+1:]
	}
	if inside, ok := strings.CutPrefix(name, "["); ok && strings.HasSuffix(inside, "]") {
		name = inside[:len(inside)-1]
	} else if strings.Contains(name, ":") { // an address of IPv6 on its own
		name, number = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]"), ""
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil && number != "" {
		return text(address, maxHost), 0
	}
	return text(name, maxHost), uint16(n)
}
