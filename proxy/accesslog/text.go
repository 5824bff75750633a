package accesslog

import (
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// AppendText appends r as one line for people, with the newline. It begins with the fields of the Common Log Format, for the
// tools that read that; the others follow as name=value, always all of them and in the same order. "-" is an absent value.
func AppendText(b []byte, r *Record) []byte {
	l := line{b: b}
	l.word(r.host())
	l.raw(" - - [")
	l.date(r.Start)
	l.raw(`] "`)
	l.word(r.Method)
	l.raw(" ")
	l.word(r.path())
	l.raw(" ")
	l.word(r.Protocol)
	l.raw(`" `)
	if r.Status > 0 {
		l.number(uint64(r.Status))
	} else {
		l.raw("-")
	}
	l.raw(" ")
	l.number(r.Sent)
	l.raw(" received=")
	l.number(r.Received)
	l.raw(" duration=")
	l.seconds(r.Duration)
	l.raw(" first_byte=")
	if r.FirstByte > 0 {
		l.seconds(r.FirstByte)
	} else {
		l.raw("-")
	}
	l.raw(" code=")
	l.word(string(r.Code))
	l.raw(" flags=")
	l.b = r.Flags.append(l.b, "", "-")
	l.raw(" client=")
	l.quoted(r.Client)
	l.raw(" listener=")
	l.quoted(r.Listener)
	l.raw(" sni=")
	l.quoted(r.SNI)
	l.raw(" alpn=")
	l.quoted(r.ALPN)
	l.raw(" authority=")
	l.quoted(r.authority())
	l.raw(" virtual_host=")
	l.quoted(r.VirtualHost)
	l.raw(" route=")
	l.quoted(r.Route)
	l.raw(" cluster=")
	l.quoted(r.Cluster)
	l.raw(" endpoint=")
	l.quoted(r.Endpoint)
	l.raw(" tries=")
	l.number(uint64(max(r.Tries, 0)))
	l.raw(" trace_id=")
	l.word(r.trace())
	l.raw(" downstream=")
	l.peer(r.Downstream, r.Start)
	l.raw(" upstream=")
	l.peer(r.Upstream, r.Start)
	l.raw("\n")
	return l.b
}

var months = [...]string{"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"}

// date writes the time as the Common Log Format does, always in UTC.
func (l *line) date(t time.Time) {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	l.digits(uint64(day), 2)
	l.raw("/")
	l.raw(months[month-1])
	l.raw("/")
	l.digits(uint64(year), 4)
	for _, n := range [...]int{hour, minute, second} {
		l.raw(":")
		l.digits(uint64(n), 2)
	}
	l.raw(" +0000")
}

// peer writes what a peer proved: eleven words in quotes, or "-" for a peer that was not asked.
func (l *line) peer(r *attest.Result, at time.Time) {
	if r == nil {
		l.raw("-")
		return
	}
	l.raw(`"`)
	l.raw(r.Verdict().String())
	l.raw(" ")
	l.word(string(r.Code()))
	l.raw(" ")
	l.word(string(r.Level()))
	l.raw(" ")
	if c := r.Claims(); c != nil {
		l.word(c.Vendor)
		l.raw(" ")
		l.word(c.TEE)
		l.raw(" ")
		l.word(c.Generation)
		if c.Simulated {
			l.raw(" SIMULATED")
		} else {
			l.raw(" hardware")
		}
	} else {
		l.raw("- - - -")
	}
	var buffer [64]byte
	digest := r.AppendEvidenceDigest(buffer[:0])
	switch {
	case r.Reconnected():
		l.raw(" reconnect ")
	case len(digest) == 0:
		l.raw(" - ")
	default:
		l.raw(" evidence ")
	}
	if made := r.EvidenceTime(); made.IsZero() {
		l.raw("-")
	} else {
		l.seconds(at.Sub(made))
	}
	l.raw(" ")
	l.word(r.PolicyID())
	l.raw(" ")
	if len(digest) == 0 {
		l.raw("-")
	}
	l.b = append(l.b, digest...)
	l.raw(`"`)
}
