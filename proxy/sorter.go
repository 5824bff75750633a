package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/chain"
	"github.com/jurat-tls/jurat/proxy/clienthello"
	"github.com/jurat-tls/jurat/proxy/transparent"
)

// sorter gives the connections of a port to the servers that they are for.
type sorter struct {
	mode   transparent.Mode // how connections come here that were meant for others; "" where none does
	detect bool             // HTTP in plain has protocols too
	way    atomic.Pointer[ways]
}

// ways are the servers of a port.
type ways struct {
	table   *chain.Table
	servers []*Server // by the matches of the table
	rest    *Server   // for what none of them is for; nil where that is refused
}

// newSorter is a server that has others serve, which are to have its gate. It has none yet.
func newSorter(engine *Engine, mode transparent.Mode, detect bool, logger *slog.Logger, limits Limits) *Server {
	s := newServer(engine, limits, logger)
	s.hurries, s.bare = true, true
	s.sorter = &sorter{mode: mode, detect: detect}
	s.refused = func(raw net.Conn, _ error) { _ = raw.Close() }
	s.ease = func() {
		for _, to := range s.sorter.way.Load().all() {
			if to.ease != nil {
				to.ease()
			}
		}
	}
	return s
}

func (w *ways) all() []*Server {
	all := append([]*Server(nil), w.servers...)
	if w.rest != nil {
		all = append(all, w.rest)
	}
	return all
}

// sorted does something to the servers behind s, all at once, and answers what went wrong.
func (s *Server) sorted(f func(*Server) error) error {
	if s.sorter == nil {
		return nil
	}
	all := s.sorter.way.Load().all()
	errs := make([]error, len(all))
	var wait sync.WaitGroup
	for i, to := range all {
		wait.Go(func() { errs[i] = f(to) })
	}
	wait.Wait()
	return cmp.Or(errs...)
}

// sort hands a connection to the server that it is for.
func (s *Server) sort(a *arrival) {
	to, err := s.choose(a)
	if err != nil {
		if a.leave != nil {
			a.leave()
		}
		s.gate.shaken()
		s.refuse(a, err)
		s.gate.left()
		s.work.Done()
		return
	}
	s.work.Done()
	defer to.work.Done()
	to.handle(a)
}

var errLeft = errors.New("the server takes no more connections")

// choose finds the server of a connection, which has joined its work then. Nothing is taken of what the client says.
func (s *Server) choose(a *arrival) (to *Server, err error) {
	ctx, done := s.begin(a)
	defer done()
	defer func() {
		if p := recover(); p != nil {
			to, err = nil, &attest.Error{Code: attest.CodeInternal, Check: "transport", Err: errPanic}
		}
	}()
	if err := s.introduce(ctx, a); err != nil {
		return nil, err
	}
	c := chain.Conn{Destination: addrPortOf(a.raw.LocalAddr()), Source: addrPortOf(a.raw.RemoteAddr()), Peer: addrPortOf(a.peer.RemoteAddr()).Addr()}
	if s.sorter.mode != "" {
		if a.onward, err = transparent.Destination(s.sorter.mode, a.peer); err != nil {
			return nil, err
		}
		c.Destination = a.onward
	}
	var heard, detected bool
	for {
		way := s.sorter.way.Load()
		if !heard && way.table.NeedsHello(c.Destination) {
			if err := s.hearHello(ctx, a, &c); err != nil {
				return nil, withCode(ctx, err)
			}
			heard = true
		}
		if heard && !c.TLS && s.sorter.detect && !detected && way.table.NeedsProtocols(c) {
			if err := s.hearHTTP(ctx, a, &c); err != nil {
				return nil, withCode(ctx, err)
			}
			detected = true
		}
		to := way.rest
		if i, ok := way.table.Find(c); ok {
			to = way.servers[i]
		}
		switch {
		case to == nil:
			return nil, &attest.Error{Code: attest.CodeNoChain, Check: "transport.chain", Got: describe(&c)}
		case to.join():
			return to, nil
		case s.sorter.way.Load() == way: // it was not replaced: this is the end
			return nil, errLeft
		}
	}
}

// hear shows judge what a connection begins with, until that is clear or takes too long.
func (s *Server) hear(ctx context.Context, a *arrival, judge func(p []byte) (clear bool)) error {
	ctx, cancel := context.WithTimeout(ctx, s.limits.Header)
	defer cancel()
	raw := a.raw
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	heard, err := look(raw, judge)
	stop()
	if ctx.Err() != nil { // raw is closed, or about to be
		return withCode(ctx, ctx.Err())
	}
	a.raw = heard
	return err
}

// hearHello finds out whether a connection begins with a ClientHello, and what that says.
func (s *Server) hearHello(ctx context.Context, a *arrival, c *chain.Conn) error {
	var scanner clienthello.Scanner
	var hello clienthello.Hello
	var unsound error
	err := s.hear(ctx, a, func(p []byte) bool {
		if c.TLS = clienthello.Begins(p); !c.TLS {
			return true
		}
		hello, unsound = scanner.Parse(p)
		return !errors.Is(unsound, clienthello.ErrMore)
	})
	if err == nil && c.TLS {
		c.ServerName, c.Protocols, err = hello.ServerName, hello.Protocols, unsound // which a service that is less strict might take
	}
	return err
}

// hearHTTP finds out which HTTP a connection begins with that is not TLS.
func (s *Server) hearHTTP(ctx context.Context, a *arrival, c *chain.Conn) error {
	var name string
	err := s.hear(ctx, a, func(p []byte) (clear bool) {
		name, clear = chain.DetectHTTP(p)
		return clear
	})
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF): // before that was clear: it is none
		return nil
	case err == nil && name != "":
		c.Protocols = []string{name}
	}
	return err
}

// readAhead is look for what bytes can't be looked at of without taking them: the connection that it answers gives them again.
func readAhead(raw net.Conn, judge func(p []byte) bool) (net.Conn, error) {
	p := make([]byte, 0, 2<<10)
	for idle := 0; idle < 100; idle++ {
		if len(p) == cap(p) {
			p = append(make([]byte, 0, maxLook), p...)
		}
		n, err := raw.Read(p[len(p):cap(p)])
		if p = p[:len(p)+n]; n > 0 {
			idle = 0
		}
		switch clear := n > 0 && judge(p); {
		case clear:
			return &rewound{Conn: raw, first: p}, nil
		case len(p) == maxLook:
			return raw, errLook
		case errors.Is(err, io.EOF) && len(p) > 0:
			return &rewound{Conn: raw, first: p}, io.ErrUnexpectedEOF
		case err != nil:
			return raw, err
		}
	}
	return raw, io.ErrNoProgress
}

// maxLook is what is looked at of a connection.
const maxLook = clienthello.MaxSize

var errLook = errors.New("nothing is clear after all that is looked at")

// rewound is a connection of which something was read already. It has no descriptor to those who would read from that.
type rewound struct {
	net.Conn
	first []byte
}

// Read implements net.Conn.
func (r *rewound) Read(p []byte) (int, error) {
	if len(r.first) == 0 {
		return r.Conn.Read(p)
	}
	n := copy(p, r.first)
	if r.first = r.first[n:]; len(r.first) == 0 {
		r.first = nil
	}
	return n, nil
}

// CloseWrite ends our direction, where the connection can.
func (r *rewound) CloseWrite() error {
	if w, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}

// SetLinger lets the connection be reset.
func (r *rewound) SetLinger(sec int) error {
	if t, ok := r.Conn.(interface{ SetLinger(int) error }); ok {
		return t.SetLinger(sec)
	}
	return errors.ErrUnsupported
}

// describe says what a connection is that nothing is for.
func describe(c *chain.Conn) string {
	text := "a connection"
	if c.Destination.IsValid() {
		text += " to " + c.Destination.String()
	}
	if c.TLS {
		text += fmt.Sprintf(" for %q with protocols %.100q", c.ServerName, strings.Join(c.Protocols, ","))
	}
	return text
}

// addrPortOf is the address of a TCP socket; zero for others.
func addrPortOf(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

type onwardKey struct{}

// withOnward has connections that are made go to where one was going, where that is what their cluster is.
func withOnward(ctx context.Context, to netip.AddrPort) context.Context {
	if !to.IsValid() {
		return ctx
	}
	return context.WithValue(ctx, onwardKey{}, to)
}

func onward(ctx context.Context) netip.AddrPort {
	to, _ := ctx.Value(onwardKey{}).(netip.AddrPort)
	return to
}
