package proxy

import (
	"slices"
	"time"

	"github.com/jurat-tls/jurat/proxy/h2"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/message"
)

// sender writes a body to a stream of HTTP/2, and holds what that does not take yet. Who fills it stops when it holds
// something.
type sender struct {
	s        *h2.Stream // nil once it has ended
	out      []byte
	last     bool // nothing comes behind out
	trailers message.Fields
	took     time.Time // when the stream last took something
}

// send takes p, and reports whether nothing of it has to wait.
func (d *sender) send(now time.Time, p []byte, last bool) bool {
	switch {
	case d.s == nil:
		return true
	case len(d.out) > 0:
		d.out, d.last = append(d.out, p...), last
		return false
	}
	n := d.s.Write(p, last)
	if d.took = now; n == len(p) || d.s == nil {
		return true
	}
	d.out, d.last = append(d.out, p[n:]...), last
	return false
}

// end takes the end of the body, with trailers if there are any, and reports whether it has not to wait.
func (d *sender) end(trailers message.Fields) bool {
	switch {
	case d.s == nil:
		return true
	case len(d.out) > 0:
		d.last, d.trailers = true, slices.Clone(trailers)
		return false
	}
	if d.s.Trailers(trailers) != nil && d.s != nil { // those that can't be said don't keep the body from ending
		d.s.Write(nil, true)
	}
	return true
}

// again goes on with what had to wait. It reports whether nothing does any more, and whether that was the end.
func (d *sender) again(now time.Time) (all, end bool) {
	if d.s == nil || len(d.out) == 0 {
		return d.s != nil, false
	}
	n := d.s.Write(d.out, d.last && len(d.trailers) == 0)
	if d.s == nil {
		return false, false
	}
	if n > 0 {
		d.took = now
	}
	if n < len(d.out) {
		d.out = d.out[:copy(d.out, d.out[n:])]
		return false, false
	}
	d.out = nil
	if d.last && len(d.trailers) > 0 {
		return d.end(d.trailers), true
	}
	return true, d.last
}

// moved is when the peer last took something of the body. What waits for room in the connection moves with that.
func (d *sender) moved(conn *loop.Conn) time.Time {
	if d.s == nil || d.s.Shut() {
		return d.took
	}
	return later(d.took, conn.Moved())
}
