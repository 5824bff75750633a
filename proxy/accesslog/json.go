package accesslog

import (
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// AppendJSON appends r as one object of JSON, with a newline. The names are a contract: every object has all of them, in the
// same order; further ones may be added. Times are in UTC, durations in seconds.
func AppendJSON(b []byte, r *Record) []byte {
	l := line{b: b}
	l.raw(`{"start":"`)
	l.stamp(r.Start)
	l.raw(`","duration":`)
	l.seconds(r.Duration)
	l.raw(`,"first_byte":`)
	if r.FirstByte > 0 {
		l.seconds(r.FirstByte)
	} else {
		l.raw("null")
	}
	l.raw(`,"listener":`)
	l.json(r.Listener)
	l.raw(`,"client":`)
	l.json(r.Client)
	l.raw(`,"sni":`)
	l.json(r.SNI)
	l.raw(`,"alpn":`)
	l.json(r.ALPN)
	l.raw(`,"protocol":`)
	l.json(r.Protocol)
	l.raw(`,"method":`)
	l.json(r.Method)
	l.raw(`,"authority":`)
	l.json(r.authority())
	l.raw(`,"path":`)
	l.json(r.path())
	l.raw(`,"status":`)
	l.number(uint64(max(r.Status, 0)))
	l.raw(`,"code":`)
	l.json(string(r.Code))
	l.raw(`,"flags":[`)
	l.b = r.Flags.append(l.b, `"`, "")
	l.raw(`],"received":`)
	l.number(r.Received)
	l.raw(`,"sent":`)
	l.number(r.Sent)
	l.raw(`,"virtual_host":`)
	l.json(r.VirtualHost)
	l.raw(`,"route":`)
	l.json(r.Route)
	l.raw(`,"cluster":`)
	l.json(r.Cluster)
	l.raw(`,"endpoint":`)
	l.json(r.Endpoint)
	l.raw(`,"tries":`)
	l.number(uint64(max(r.Tries, 0)))
	l.raw(`,"trace_id":`)
	l.json(r.trace())
	l.raw(`,"downstream":`)
	l.peerJSON(r.Downstream, r.Start)
	l.raw(`,"upstream":`)
	l.peerJSON(r.Upstream, r.Start)
	l.raw(`,"cut":`)
	l.bool(l.cut)
	l.raw("}\n")
	return l.b
}

// stamp writes the time as RFC 3339 has it, with microseconds.
func (l *line) stamp(t time.Time) {
	t = t.UTC()
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	l.digits(uint64(year), 4)
	l.raw("-")
	l.digits(uint64(month), 2)
	l.raw("-")
	l.digits(uint64(day), 2)
	l.raw("T")
	l.digits(uint64(hour), 2)
	l.raw(":")
	l.digits(uint64(minute), 2)
	l.raw(":")
	l.digits(uint64(second), 2)
	l.raw(".")
	l.digits(uint64(t.Nanosecond()/1000), 6)
	l.raw("Z")
}

func (l *line) bool(yes bool) {
	if yes {
		l.raw("true")
	} else {
		l.raw("false")
	}
}

func (l *line) peerJSON(r *attest.Result, at time.Time) {
	if r == nil {
		l.raw("null")
		return
	}
	vendor, tee, generation, simulated := "", "", "", false
	if c := r.Claims(); c != nil {
		vendor, tee, generation, simulated = c.Vendor, c.TEE, c.Generation, c.Simulated
	}
	l.raw(`{"verdict":`)
	l.json(r.Verdict().String())
	l.raw(`,"code":`)
	l.json(string(r.Code()))
	l.raw(`,"binding":`)
	l.json(string(r.Level()))
	l.raw(`,"vendor":`)
	l.json(vendor)
	l.raw(`,"tee":`)
	l.json(tee)
	l.raw(`,"generation":`)
	l.json(generation)
	l.raw(`,"simulated":`)
	l.bool(simulated)
	l.raw(`,"reconnected":`)
	l.bool(r.Reconnected())
	l.raw(`,"evidence_age":`)
	if made := r.EvidenceTime(); made.IsZero() {
		l.raw("null")
	} else {
		l.seconds(at.Sub(made))
	}
	l.raw(`,"policy":`)
	l.json(r.PolicyID())
	l.raw(`,"evidence_sha256":"`)
	l.b = r.AppendEvidenceDigest(l.b)
	l.raw(`"}`)
}
