package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/wellknown"
)

// answerTimeout is how long a client of the well-known document waits for the TEE.
const answerTimeout = 15 * time.Second

// wellKnown answers HTTP clients with evidence for their nonces.
type wellKnown struct {
	id    *ratls.Identity
	log   *slog.Logger
	limit *wellknown.Limit
}

func newWellKnown(id *ratls.Identity, now func() time.Time, log *slog.Logger) *wellKnown {
	return &wellKnown{id: id, log: log, limit: wellknown.NewLimit(now)}
}

// Local is what the listeners of the generation answer themselves.
func (g *generation) Local(*config.Listener) proxy.Local {
	if g.wellKnown == nil {
		return nil // and no nil pointer within
	}
	return g.wellKnown
}

// Path implements proxy.Local.
func (w *wellKnown) Path() string { return wellknown.Path }

// Answer implements proxy.Local.
func (w *wellKnown) Answer(ctx context.Context, conn proxy.Conn, method, query string) proxy.LocalAnswer {
	if method != http.MethodGet { // HEAD as well: it would cost as much, for nothing
		a := said(http.StatusMethodNotAllowed, "", "GET only", 0)
		a.Fields = append(a.Fields, message.Field{Name: "Allow", Value: http.MethodGet})
		return a
	}
	nonce, err := wellknown.Nonce(query)
	if err != nil {
		return said(http.StatusBadRequest, "", err.Error(), 0)
	}
	own, ok := conn.(*ratls.Conn)
	if !ok {
		return said(http.StatusNotFound, "", "no evidence for this connection", 0)
	}
	if wait := w.limit.Take(ratls.Origin(conn.RemoteAddr())); wait > 0 {
		return said(http.StatusTooManyRequests, attest.CodeCrowded, "too many requests", wait)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	d, err := w.id.AttestNonce(ctx, own, nonce)
	var raw []byte
	if err == nil {
		raw, err = wellknown.Marshal(d)
	}
	switch code := attest.CodeOf(err); {
	case err == nil:
		return proxy.LocalAnswer{Status: http.StatusOK, Body: raw, Fields: headers(wellknown.MediaType)}
	case errors.Is(err, context.Canceled): // nobody is there to read it
		return said(http.StatusServiceUnavailable, "", "cancelled", 0)
	case code == attest.CodeNoEvidence:
		return said(http.StatusNotFound, code, "no evidence for the key of this connection", 0)
	case code == attest.CodeCrowded:
		return said(http.StatusTooManyRequests, code, code.Title(), time.Second)
	default:
		w.log.Warn("no evidence for a nonce", "code", string(code), "error", err.Error())
		return said(http.StatusServiceUnavailable, code, "the TEE is behind", 5*time.Second)
	}
}

// headers let any page read what anybody may have, and nobody keep it: the next one has another nonce.
func headers(contentType string) message.Fields {
	return message.Fields{
		{Name: "Content-Type", Value: contentType},
		{Name: "Cache-Control", Value: "no-store"},
		{Name: "X-Content-Type-Options", Value: "nosniff"},
		{Name: "Access-Control-Allow-Origin", Value: "*"},
	}
}

// said is an answer in words; after is when to come again, 0 for never.
func said(status int, code attest.Code, text string, after time.Duration) proxy.LocalAnswer {
	f := headers("text/plain; charset=utf-8")
	if code != "" {
		f = append(f, message.Field{Name: proxy.HeaderError, Value: string(code)})
	}
	if after > 0 {
		f = append(f, message.Field{Name: "Retry-After", Value: strconv.Itoa(int((after + time.Second - 1) / time.Second))})
	}
	return proxy.LocalAnswer{Status: status, Fields: f, Body: []byte("jurat: " + text + "\n")}
}

// checkWellKnown refuses flags beside --well-known that it could not heed.
func (f *verifyFlags) checkWellKnown(args []string) error {
	switch {
	case !f.wellKnown:
		return nil
	case f.evidence != "" || len(args) != 1 || isRecord(args[0]):
		return usageError("--well-known asks a live TARGET")
	case f.save != "" || f.log.dir != "":
		return usageError("--save and --log-dir keep what a connection showed; what --well-known got is worth nothing to who did not choose the nonce")
	}
	return nil
}

// askWellKnown has the target's document judged.
func (r *relying) askWellKnown(ctx context.Context, target string) (*appraisal, error) {
	addr, err := targetAddress(target)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	ap := &appraisal{target: addr}
	ap.name, _, _ = net.SplitHostPort(addr)
	if ap.result, ap.shown, err = r.party(r.endorser).WellKnown(ctx, addr); err != nil {
		return nil, withSubject(err, addr)
	}
	return ap, nil
}
