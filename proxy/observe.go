package proxy

import (
	"net"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/accesslog"
	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/trace"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// Observer is told of what has come to its end. The zero Observer hears of nothing.
type Observer struct {
	// Log is given a record of every request, of every raw connection and of every one that was refused. It is called on event
	// loops, and must not wait; the record is its own until it returns.
	Log func(*accesslog.Record)
	// Tracer decides which requests are traced; nil for none.
	Tracer *trace.Tracer
}

// Observe has o hear of what the server carries, as the listener of that name. It is called before Serve.
func (s *Server) Observe(o Observer, listener string) {
	s.observer, s.name = o, listener
	if s.http != nil {
		s.http.observer, s.http.name = o, listener
	}
}

// account is what is told of an exchange in the end.
type account struct {
	open                    bool
	start, first            time.Time
	received, sent          uint64
	status                  int
	code                    attest.Code
	flags                   accesslog.Flags
	method, authority, path string // as they came
	version                 message.Version
	endpoint                string
	cluster                 string
	tries                   int
	upstream                *attest.Result
	span, try               trace.Span
}

// account begins the account of a request.
func (x *exchange) account() {
	x.seq++
	now := x.worker.loop.Now()
	r := &x.req
	x.told = account{open: true, start: now, method: r.Method, authority: r.Authority, path: r.Path, version: r.Version}
	if t := x.worker.side.observer.Tracer; t != nil {
		x.told.span = t.Start(now, r.Fields)
		x.told.span.Request(r, x.scheme(), r.Version)
		x.told.span.Peer(addrString(x.link.conn.RemoteAddr()))
		x.told.span.Attested(x.link.conn.Result())
	}
}

// asks notes that an endpoint is asked.
func (x *exchange) asks() {
	t := &x.told
	t.endpoint, t.cluster = x.endpoint.Identity().Address, x.cluster.balance.Name()
	t.upstream = nil
	if t.span.Recording() {
		t.try = t.span.Child(x.worker.loop.Now(), t.tries)
		x.req.Fields = t.try.Inject(x.req.Fields)
		t.try.Request(&x.req, x.cluster.scheme(), x.req.Version)
		t.try.Cluster(t.cluster)
		t.try.Peer(t.endpoint)
	}
	t.tries++
}

// tryEnded ends the span of a try.
func (x *exchange) tryEnded() {
	t := &x.told
	if !t.try.Recording() {
		return
	}
	switch x.outcome {
	case upstream.Timeout, upstream.Reset, upstream.ConnectFailure:
		t.try.Fail(attest.CodeBackendFailed)
	}
	t.try.Attested(t.upstream)
	t.try.End(x.worker.loop.Now())
}

// reportOf is report for the request of that number, if there is no other one by now.
func (x *exchange) reportOf(seq uint64) {
	if x.seq == seq {
		x.report()
	}
}

// report tells of an exchange that is over, once.
func (x *exchange) report() {
	t := &x.told
	if !t.open {
		return
	}
	t.open = false
	w := x.worker
	now := w.loop.Now()
	var first time.Duration
	if !t.first.IsZero() {
		first = max(t.first.Sub(t.start), 1) // 0 is for none, and the loop's clock stands still while it answers by itself
	}
	w.tally.Observe(t.status, now.Sub(t.start), first, t.received, t.sent)
	if t.span.Recording() {
		if x.decision.Action() != 0 {
			t.span.Route(x.decision.Route())
		}
		t.span.Cluster(t.cluster)
		t.span.Status(t.status)
		if t.code != "" {
			t.span.Fail(t.code)
		}
		t.span.End(now)
	}
	log := w.side.observer.Log
	if log == nil {
		return
	}
	r := &w.record
	*r = accesslog.Record{
		Start: t.start, Duration: max(now.Sub(t.start), first), FirstByte: first,
		Listener: w.side.name, Client: addrString(x.link.conn.RemoteAddr()), SNI: x.link.state.ServerName, ALPN: x.link.state.NegotiatedProtocol,
		Protocol: protocolOf(t.version), Method: t.method, Authority: t.authority, Path: t.path,
		Status: t.status, Code: t.code, Flags: t.flags, Received: t.received, Sent: t.sent,
		Cluster: t.cluster, Endpoint: t.endpoint, Tries: t.tries,
		Downstream: x.link.conn.Result(), Upstream: t.upstream,
	}
	if x.decision.Action() != 0 {
		r.VirtualHost, r.Route = x.decision.VirtualHost(), x.decision.Route()
	}
	if c := t.span.Context(); c.Valid() {
		r.TraceID = c.TraceID.String()
	}
	log(r)
}

func protocolOf(v message.Version) string {
	switch v {
	case message.HTTP2:
		return "HTTP/2"
	case message.HTTP10:
		return "HTTP/1.0"
	default:
		return "HTTP/1.1"
	}
}

// refusedConnection tells of a connection that was refused before a byte moved.
func (s *Server) refusedConnection(began time.Time, client string, code attest.Code) {
	if s.observer.Log != nil {
		s.observer.Log(&accesslog.Record{Start: began, Duration: time.Since(began), Listener: s.name, Client: client, Code: code})
	}
}

// unreached tells of a raw connection for which there was none to an endpoint.
func (s *Server) unreached(began time.Time, l *link, cluster *Cluster, err error) {
	if s.observer.Log == nil {
		return
	}
	r := &accesslog.Record{
		Start: began, Duration: time.Since(began), Listener: s.name, Client: addrString(l.conn.RemoteAddr()), SNI: l.state.ServerName,
		ALPN: l.state.NegotiatedProtocol, Protocol: "TCP", Code: attest.CodeOf(err), Cluster: cluster.balance.Name(), Downstream: l.conn.Result(),
	}
	switch r.Code {
	case attest.CodeNoEndpoint:
		r.Flags = accesslog.NoHealthyUpstream
	case attest.CodeOverload:
		r.Flags = accesslog.UpstreamOverflow
	default:
		r.Flags = accesslog.UpstreamConnectionFailure
	}
	s.observer.Log(r)
}

// carried is told of a raw connection that is over.
func (s *Server) carried(l *link, began time.Time, cluster, endpoint string, peer *attest.Result) func(how ending, received, sent uint64) {
	if s.observer.Log == nil {
		return func(ending, uint64, uint64) {}
	}
	return func(how ending, received, sent uint64) {
		r := &accesslog.Record{
			Start: began, Duration: time.Since(began), Listener: s.name, Client: addrString(l.conn.RemoteAddr()), SNI: l.state.ServerName,
			ALPN: l.state.NegotiatedProtocol, Protocol: "TCP", Received: received, Sent: sent, Cluster: cluster, Endpoint: endpoint, Tries: 1,
			Downstream: l.conn.Result(), Upstream: peer,
		}
		r.Flags = how.flags(accesslog.DownstreamConnectionTermination, accesslog.UpstreamConnectionTermination)
		s.observer.Log(r)
	}
}

// flags are those of the end of a tunnel, with near and far for when one of its connections broke off.
func (e ending) flags(near, far accesslog.Flags) accesslog.Flags {
	switch e {
	case endedNear:
		return near
	case endedFar:
		return far
	case endedIdle:
		return accesslog.StreamIdleTimeout
	default:
		return 0
	}
}

// carriedOut is carried for a local client, whose connection is not the attested one. target is what it asked for, if it did.
func (s *Server) carriedOut(l *link, client net.Conn, target string) func(how ending, received, sent uint64) {
	if s.observer.Log == nil {
		return nil
	}
	began := time.Now()
	return func(how ending, received, sent uint64) {
		r := &accesslog.Record{
			Start: began, Duration: time.Since(began), Listener: s.name, Client: addrString(client.RemoteAddr()), Protocol: "TCP",
			Authority: target, Received: sent, Sent: received, Endpoint: addrString(l.conn.RemoteAddr()), Tries: 1, Upstream: l.conn.Result(),
		}
		r.Flags = how.flags(accesslog.UpstreamConnectionTermination, accesslog.DownstreamConnectionTermination)
		s.observer.Log(r)
	}
}
