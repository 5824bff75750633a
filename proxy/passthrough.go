package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	randv2 "math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/clienthello"
)

// PassthroughRoute is where TLS connections go that are not terminated here.
type PassthroughRoute struct {
	// Names are the server names that clients ask for: "pay.example"; "*.example" for all that end so, with any number of
	// labels in place of the asterisk; "*" for all others, and for clients that name none. The most specific one counts.
	Names []string
	// Protocols are of ALPN: the client has to offer one of them. None asks for nothing. Where several routes have a name,
	// the first one counts that has a protocol of the client.
	Protocols []string
	To        *Cluster
}

// NewPassthrough joins TLS connections with the services that their clients ask for in the ClientHello, and passes on all of
// their bytes. TLS is between the client and the service: nothing is decrypted here, nothing is attested here, and nobody is
// appraised. Evidence has to come from the service itself. Whoever can connect here chooses among the services of routes; the
// name proves nothing, and neither does a name that is hidden in an encrypted hello, which is not seen.
//
// The hello has to come within the Header and Handshake of limits. A client that asks for what no route has gets the alert
// that says so. That a connection is passed on from somewhere the services learn by Backend.WithProxyProtocol only.
func NewPassthrough(engine *Engine, routes []PassthroughRoute, logger *slog.Logger, limits Limits) (*Server, error) {
	table, err := newPassTable(routes)
	if err != nil {
		return nil, err
	}
	s := newServer(engine, limits, logger)
	s.hurries, s.bare = true, true
	s.establish = func(ctx context.Context, raw net.Conn) (Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, s.limits.Header)
		defer cancel()
		stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
		hello, first, err := clienthello.Read(raw)
		stop()
		if err == nil {
			err = ctx.Err() // raw is closed, or about to be
		}
		if err != nil {
			return nil, withCode(ctx, err)
		}
		to, err := table.find(hello)
		if err != nil {
			return nil, err
		}
		return &bare{Conn: raw, name: hello.ServerName, first: first, to: to}, nil
	}
	s.judge = func(*attest.Result) error { return nil }
	s.refused = func(raw net.Conn, err error) {
		var a alert
		if errors.As(err, &a) {
			a.send(raw)
		}
		_ = raw.Close()
	}
	s.carry = func(_ net.Conn, l *link, logger *slog.Logger) {
		b := l.conn.(*bare)
		began := time.Now()
		service, done, err := b.to.raw(withOnward(s.ctx, l.onward), l, b.first, randv2.Uint64)
		if err != nil {
			s.unreached(began, l, b.to, err)
			logger.Error("service unreachable", "code", string(attest.CodeOf(err)), "error", err.Error())
			l.reset()
			return
		}
		s.stats.in.Add(uint64(len(b.first)))
		b.first = nil
		s.joined(l, service, b.to, began, done, logger)
	}
	return s, nil
}

// passTable finds routes by the most specific name.
type passTable struct {
	exact, suffix map[string][]*PassthroughRoute // suffixes are without their asterisk and its dot
	rest          []*PassthroughRoute
}

func newPassTable(routes []PassthroughRoute) (*passTable, error) {
	if len(routes) == 0 {
		return nil, &attest.Error{Code: attest.CodeConfigMissing, Check: "passthrough", Want: "a server name and its service"}
	}
	t := &passTable{exact: map[string][]*PassthroughRoute{}, suffix: map[string][]*PassthroughRoute{}}
	for i, r := range routes {
		at := fmt.Sprintf("passthrough[%d]", i)
		bad := func(field, got, want string) error {
			return &attest.Error{Code: attest.CodeConfigValue, Check: "passthrough", Subject: at + field, Got: got, Want: want}
		}
		if r.To == nil {
			return nil, bad(".cluster", "none", "a cluster")
		}
		r.Names, r.Protocols = slices.Clone(r.Names), slices.Clone(r.Protocols)
		for _, p := range r.Protocols {
			if p == "" || len(p) > 255 {
				return nil, bad(".protocols", fmt.Sprintf("%.100q", p), "1 to 255 bytes")
			}
		}
		if len(r.Names) == 0 {
			return nil, bad(".server_names", "none", "a server name, or *")
		}
		for j, n := range r.Names {
			field := fmt.Sprintf(".server_names[%d]", j)
			list, put := t.rest, func(l []*PassthroughRoute) { t.rest = l }
			if n != "*" {
				into := t.exact
				suffix, wild := strings.CutPrefix(n, "*.")
				if wild {
					into = t.suffix
				}
				name, ok := clienthello.HostName(suffix)
				if !ok {
					return nil, bad(field, fmt.Sprintf("%.300q", n), "pay.example, *.example or *")
				}
				list, put = into[name], func(l []*PassthroughRoute) { into[name] = l }
			}
			if slices.ContainsFunc(list, func(other *PassthroughRoute) bool { return other.shadows(&r) }) {
				return nil, bad(field, strconv.Quote(n), "a name and protocols that no route before has")
			}
			put(append(list, &r))
		}
	}
	return t, nil
}

// shadows reports whether r, which comes first, takes some of what later is for.
func (r *PassthroughRoute) shadows(later *PassthroughRoute) bool {
	return len(r.Protocols) == 0 || slices.ContainsFunc(later.Protocols, func(p string) bool { return slices.Contains(r.Protocols, p) })
}

// find answers the service for a hello, or an *attest.Error with the alert for the client. A client whose protocols nobody
// with its name speaks is not given to a less specific name: that is another service.
func (t *passTable) find(hello clienthello.Hello) (*Cluster, error) {
	list := t.exact[hello.ServerName]
	for name := hello.ServerName; list == nil; {
		_, rest, more := strings.Cut(name, ".")
		if !more {
			list = t.rest
			break
		}
		list, name = t.suffix[rest], rest
	}
	if len(list) == 0 {
		return nil, &attest.Error{Code: attest.CodeUnknownName, Check: "transport.name", Got: "server name " + strconv.Quote(hello.ServerName), Err: alertName}
	}
	for _, r := range list {
		if len(r.Protocols) == 0 || slices.ContainsFunc(hello.Protocols, func(p string) bool { return slices.Contains(r.Protocols, p) }) {
			return r.To, nil
		}
	}
	return nil, &attest.Error{
		Code: attest.CodeUnknownName, Check: "transport.name", Err: alertProtocol,
		Got: fmt.Sprintf("server name %q with protocols %.100q", hello.ServerName, strings.Join(hello.Protocols, ",")),
	}
}

// alert is what a client is told in the place of a ServerHello (RFC 8446 section 6).
type alert byte

const (
	alertName     alert = 112 // unrecognized_name
	alertProtocol alert = 120 // no_application_protocol
)

func (a alert) Error() string {
	if a == alertName {
		return "alert unrecognized_name"
	}
	return "alert no_application_protocol"
}

func (a alert) send(raw net.Conn) {
	_ = raw.SetDeadline(time.Now().Add(apologyTime))
	if _, err := raw.Write([]byte{21, 3, 3, 0, 2, 2, byte(a)}); err != nil {
		return
	}
	// Closing while the client is still sending would reset the connection, and the alert with it.
	if c, ok := raw.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, raw, apologyBytes)
}

// bare is a connection whose TLS goes through: of it, only the hello is known.
type bare struct {
	net.Conn // the transport
	name     string
	to       *Cluster
	first    []byte // what was read of it, the hello
}

// CloseWrite is for Conn: the tunnel ends directions by itself.
func (b *bare) CloseWrite() error { return errors.ErrUnsupported }

// ConnectionState holds what the client asked for.
func (b *bare) ConnectionState() tls.ConnectionState { return tls.ConnectionState{ServerName: b.name} }

func (*bare) unprotected() {}

func (b *bare) NetConn() net.Conn { return b.Conn }

// Result is none: nobody was asked for anything.
func (b *bare) Result() *attest.Result { return nil }
