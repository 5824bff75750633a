package proxy

import (
	"context"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/route"
)

// Local answers requests that are for the proxy itself, and never for a service, whatever routes say.
type Local interface {
	// Path is where they go: this path alone, with any query.
	Path() string
	// Answer answers one that came over conn. It is called beside the loops and may wait until ctx ends, which it does when the
	// client goes.
	Answer(ctx context.Context, conn Conn, method, query string) LocalAnswer
}

// LocalAnswer is a response of a Local.
type LocalAnswer struct {
	Status int
	Fields message.Fields
	Body   []byte
}

// AnswerLocally has l answer what is for it. It is called before s serves.
func (s *Server) AnswerLocally(l Local) {
	if s.http != nil {
		s.http.local = l
	}
}

// local answers the request where it is for the proxy itself, and reports whether it is.
func (x *exchange) local() bool {
	side := x.worker.side
	if side.local == nil {
		return false
	}
	target, err := route.Normalize(x.req.Path, false) // as a route, or the service, may read it
	at, query, _ := strings.Cut(target, "?")
	if err != nil || at != side.local.Path() {
		if !mistaken(x.req.Path, side.local.Path()) {
			return false
		}
		x.reply(http.StatusBadRequest, "", "bad request")
		return true
	}
	if x.isExtended() { // the answer would be taken for a tunnel
		x.reply(http.StatusBadRequest, "", "no tunnel to this place")
		return true
	}
	ctx, cancel := context.WithCancel(side.ctx)
	l, conn, method, seq, w := side.local, x.link.conn, x.req.Method, x.seq, x.worker
	x.asking = cancel
	if !side.spawn(func() {
		defer cancel()
		a := l.Answer(ctx, conn, method, query)
		w.loop.Do(func() {
			if x.open && x.seq == seq { // and not the request after it
				w.loop.Try(func() {
					x.say(&message.Response{Status: a.Status, Reason: http.StatusText(a.Status), Fields: a.Fields}, a.Body)
				}, x.cut)
			}
		})
	}) {
		cancel()
		x.reply(http.StatusServiceUnavailable, "", "the server is closing")
	}
	return true
}

// mistaken reports whether a service that decodes slashes, takes backslashes for them or drops parameters could take a target for a path.
func mistaken(target, meant string) bool {
	target, _, _ = strings.Cut(target, "?")
	if !strings.ContainsAny(target, `%\;`) {
		return false
	}
	raw, err := url.PathUnescape(target)
	if err != nil {
		return false
	}
	segments := strings.Split(strings.ReplaceAll(raw, `\`, "/"), "/")
	for i, s := range segments {
		segments[i], _, _ = strings.Cut(s, ";")
	}
	return path.Clean(strings.Join(segments, "/")) == meant
}
