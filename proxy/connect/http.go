package connect

import (
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/h1"
	"github.com/jurat-tls/jurat/proxy/message"
)

// limits of the head of a request, of which all but the first line is for others.
var limits = h1.Limits{Head: 16 << 10, Line: 8 << 10, Fields: 64}

// http reads the head of a CONNECT.
func (n *negotiation) http() error {
	var scan h1.Scan
	for !scan.Ready(n.buf, limits) {
		if len(n.buf) == cap(n.buf) {
			// One byte more than a head may have tells that it is too long.
			n.buf = slices.Grow(n.buf, min(len(n.buf), limits.Head+1-len(n.buf)))
		}
		if err := n.more(); err != nil {
			return err
		}
	}
	var r message.Request
	meta, err := h1.ParseRequest(n.buf, limits, &r)
	if err == h1.ErrPreface {
		return misread("HTTP/2", nil) // in which an answer of HTTP/1 would mean anything
	}
	n.protocol, n.version = HTTP, message.HTTP11
	var refused h1.Error
	if errors.As(err, &refused) {
		return fault{code: attest.CodeProxyRequest, reason: refused.Reason, status: refused.Status}
	}
	n.take(meta.Size)
	n.verb, n.version = r.Method, r.Version
	if r.Method != http.MethodConnect {
		return fault{code: attest.CodeProxyRequest, reason: "a request other than CONNECT, where the proxy only tunnels", status: http.StatusMethodNotAllowed}
	}
	if n.users != nil && !n.authorized(r.Fields) {
		return fault{code: attest.CodeProxyCredentials, reason: "no password, or another", status: http.StatusProxyAuthRequired}
	}
	host, port, err := splitTarget(r.Authority)
	if err == nil {
		host, err = Host(host)
	}
	if err == nil {
		n.target, err = target(host, port)
	}
	if err != nil {
		return fault{code: attest.CodeProxyRequest, reason: err.Error(), status: http.StatusBadRequest}
	}
	return nil
}

const authorization = "Proxy-Authorization"

// authorized reads the one field that RFC 7617 gives a user and password.
func (n *negotiation) authorized(fields message.Fields) bool {
	var values []string
	for _, f := range fields {
		if message.Same(f.Name, authorization) {
			values = append(values, f.Value)
		}
	}
	if len(values) != 1 { // of two, another proxy could believe the other
		return false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Basic") {
		return false
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimLeft(token, " "))
	if err != nil {
		return false
	}
	user, password, ok := strings.Cut(string(raw), ":")
	return ok && n.users(user, password)
}

func httpSuccess(version message.Version) ([]byte, error) {
	b, _, err := h1.AppendResponse(nil, &message.Response{Status: http.StatusOK, Reason: "Connection established", Length: message.NoBody},
		h1.Reply{Method: http.MethodConnect, Version: version})
	return b, err
}

// httpRefusal is a whole response. The connection ends with it: what a client sent behind a CONNECT that was refused must
// never be read as a request.
func httpRefusal(r *Request, why Reason, fields message.Fields, text string) ([]byte, error) {
	res := message.Response{Status: r.fault.status, Length: int64(len(text))}
	res.Fields = append(message.Fields{{Name: "Content-Type", Value: "text/plain; charset=utf-8"}, {Name: "X-Content-Type-Options", Value: "nosniff"}}, fields...)
	switch {
	case res.Status == http.StatusMethodNotAllowed:
		res.Fields = append(res.Fields, message.Field{Name: "Allow", Value: http.MethodConnect})
	case res.Status == http.StatusProxyAuthRequired:
		res.Fields = append(res.Fields, message.Field{Name: "Proxy-Authenticate", Value: `Basic realm="jurat", charset="UTF-8"`})
	case res.Status == 0 && why == Forbidden:
		res.Status = http.StatusForbidden
	case res.Status == 0:
		res.Status = http.StatusBadGateway
	}
	res.Reason = http.StatusText(res.Status)
	b, _, err := h1.AppendResponse(nil, &res, h1.Reply{Method: r.verb, Version: r.version})
	if err == nil && !res.Bodiless(r.verb) {
		b = append(b, text...)
	}
	return b, err
}
