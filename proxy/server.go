package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/loop"
)

// Server accepts connections and carries them. NewInboundHTTP, NewInboundTCP, NewOutbound, NewForward, NewTransparent and
// NewPassthrough make one.
type Server struct {
	engine *Engine
	limits Limits
	log    *slog.Logger
	stats  *counters
	peers  peers

	observer Observer
	name     string // of the listener

	wrap      func(raw net.Conn) net.Conn // makes room for what is learnt of a client before its handshake; nil for none
	establish func(ctx context.Context, raw net.Conn) (Conn, error)
	judge     func(*attest.Result) error                       // whether an established connection may be used
	hurries   bool                                             // whether a handshake may lose its place to one that waits
	bare      bool                                             // nothing is attested: what is established does not count as such
	refused   func(raw net.Conn, err error)                    // says goodbye to raw
	carry     func(raw net.Conn, l *link, logger *slog.Logger) // runs in the connection's goroutine
	drain     func(context.Context)                            // lets requests finish; nil when there are none
	ease      func()                                           // has clients of HTTP go elsewhere; nil when there are none
	release   func()                                           // frees what is shared; nil when there is nothing
	http      *httpSide                                        // nil where it does not serve HTTP

	ctx         context.Context // ends when Shutdown begins
	cancel      context.CancelFunc
	gone        chan struct{} // closed when no more connections are taken
	connections chan struct{}
	handshakes  chan struct{}
	work        sync.WaitGroup

	mu        sync.Mutex
	trusted   []netip.Prefix // who says in a PROXY header whose connection it forwards; settled once served
	served    bool
	closing   bool
	retired   bool // no more connections, but those that were admitted may go on
	listeners map[net.Listener]struct{}
	open      map[*link]struct{}
	pending   map[*pending]struct{}
	empty     chan struct{} // closed when closing and nothing is open
}

func newServer(engine *Engine, limits Limits, logger *slog.Logger) *Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	limits = limits.withDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	return &Server{
		engine: engine, limits: limits, log: logger, stats: newCounters(len(engine.group.Loops())), peers: peers{most: limits.Peer}, ctx: ctx, cancel: cancel,
		gone:        make(chan struct{}),
		connections: make(chan struct{}, limits.Connections),
		handshakes:  make(chan struct{}, limits.Handshakes),
		listeners:   make(map[net.Listener]struct{}),
		open:        make(map[*link]struct{}),
		pending:     make(map[*pending]struct{}),
		empty:       make(chan struct{}),
	}
}

// Stats is what was counted so far.
func (s *Server) Stats() Stats { return s.stats.snapshot() }

// Serve accepts connections on ln, which it closes, until Shutdown; it then returns nil. Several listeners may be served
// at once.
func (s *Server) Serve(ln net.Listener) error {
	defer ln.Close()
	if !s.enter(ln) {
		return nil
	}
	defer s.leave(ln)
	return accept(s.gone, ln, s.log, func(raw net.Conn) bool {
		if s.Admit(raw) {
			return true
		}
		_ = raw.Close()
		return false
	})
}

// accept hands on what arrives at ln until that fails, or take answers false. It is no failure where gone is closed.
func accept(gone <-chan struct{}, ln net.Listener, log *slog.Logger, take func(net.Conn) bool) error {
	var pause time.Duration
	for {
		raw, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
		case closed(gone):
			return nil
		case exhausted(err):
			// Giving up here would turn a flood that ate the descriptors into an outage.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			log.Warn("cannot accept for now", "error", err.Error())
			select {
			case <-time.After(pause):
			case <-gone:
			}
			continue
		default:
			return err
		}
		if !take(raw) {
			return nil
		}
	}
}

// Admit takes a connection that was accepted elsewhere. It waits where the limits are reached: what exceeds them is left in
// the kernel's queue. It answers false, and leaves raw alone, once the server takes no more.
func (s *Server) Admit(raw net.Conn) bool {
	if !s.take(s.connections) {
		return false
	}
	if !s.takePlace() {
		<-s.connections
		return false
	}
	s.mu.Lock()
	if s.retired || s.closing {
		s.mu.Unlock()
		<-s.handshakes
		<-s.connections
		return false
	}
	s.work.Add(1)
	s.mu.Unlock()
	s.stats.accepted.Add(1)
	go func() {
		defer s.work.Done()
		s.handle(raw)
	}()
	return true
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func exhausted(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (s *Server) take(slots chan struct{}) bool {
	select {
	case slots <- struct{}{}:
		return true
	case <-s.gone:
		return false
	}
}

var errCrowded = errors.New("others waited for the place of a handshake that took too long")

// takePlace waits for a place among the handshakes. Where all are taken, those that have had their time in a crowd lose
// theirs: clients that connect and say nothing would otherwise keep everybody out for as long as a handshake may last.
func (s *Server) takePlace() bool {
	for {
		select {
		case s.handshakes <- struct{}{}:
			return true
		default:
		}
		timer := time.NewTimer(s.hurry())
		select {
		case s.handshakes <- struct{}{}:
			timer.Stop()
			return true
		case <-s.gone:
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}

// hurry ends the handshakes that have had their time in a crowd, and answers when the next one has.
func (s *Server) hurry() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.limits.Crowded
	for h := range s.pending {
		if left := s.limits.Crowded - time.Since(h.began); left > 0 {
			next = min(next, left)
		} else {
			h.end(errCrowded)
		}
	}
	return max(next, time.Millisecond)
}

// pending is a handshake that may be hurried.
type pending struct {
	began time.Time
	end   context.CancelCauseFunc
}

// begin makes the context of a handshake; done releases it.
func (s *Server) begin() (ctx context.Context, done func()) {
	ctx, end := context.WithCancelCause(s.ctx)
	ctx, cancel := context.WithTimeout(ctx, s.limits.Handshake)
	h := &pending{time.Now(), end}
	if s.hurries {
		s.mu.Lock()
		s.pending[h] = struct{}{}
		s.mu.Unlock()
	}
	return ctx, func() {
		s.mu.Lock()
		delete(s.pending, h)
		s.mu.Unlock()
		cancel()
		end(nil)
	}
}

func (s *Server) enter(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.retired {
		return false
	}
	s.served = true
	s.listeners[ln] = struct{}{}
	s.work.Add(1) // keeps Shutdown from waiting for nothing while the first connection is being accepted
	return true
}

func (s *Server) leave(ln net.Listener) {
	s.mu.Lock()
	delete(s.listeners, ln)
	s.mu.Unlock()
	s.work.Done()
}

// about is a logger that says which connection it is about. It costs next to nothing until something is said.
func about(log *slog.Logger, remote, via string) *slog.Logger {
	h := &lazy{Handler: log.Handler(), remote: remote}
	if via != remote {
		h.via = via
	}
	return slog.New(h)
}

// lazy is a slog.Handler whose attributes are formatted when they are needed: others do so at once, and keep the text for as long
// as the connection lives.
type lazy struct {
	slog.Handler
	remote, via string
}

func (h *lazy) with() slog.Handler {
	attrs := []slog.Attr{slog.String("remote", h.remote)}
	if h.via != "" {
		attrs = append(attrs, slog.String("via", h.via))
	}
	return h.Handler.WithAttrs(attrs)
}

func (h *lazy) Handle(ctx context.Context, r slog.Record) error { return h.with().Handle(ctx, r) }
func (h *lazy) WithAttrs(attrs []slog.Attr) slog.Handler        { return h.with().WithAttrs(attrs) }
func (h *lazy) WithGroup(name string) slog.Handler              { return h.with().WithGroup(name) }

// handle takes one accepted connection through its handshake and hands it on.
func (s *Server) handle(peer net.Conn) {
	began := time.Now()
	raw, l, err := s.shake(peer)
	<-s.handshakes
	remote, via := addrString(raw.RemoteAddr()), addrString(peer.RemoteAddr())
	logger := about(s.log, remote, via)
	if err != nil {
		if s.ctx.Err() == nil {
			code := attest.CodeOf(err)
			s.stats.refuse(code)
			s.refusedConnection(began, addrString(raw.RemoteAddr()), code)
			logger.Warn("handshake refused", "code", string(code), "error", err.Error())
		}
		s.refused(raw, err)
		<-s.connections
		return
	}
	if !s.bare {
		s.stats.established(l.conn.Result())
	}
	s.stats.active.Add(1)
	if !s.remember(l) {
		l.reset()
		loop.Reset(raw) // which is another connection where this is the client's side
		return
	}
	defer func() {
		if p := recover(); p != nil {
			logger.Error("panic in a connection", "code", string(attest.CodeInternal))
			l.reset()
			loop.Reset(raw)
		}
	}()
	s.carry(raw, l, logger)
}

// shake runs the handshake within its limits and judges the outcome. raw is peer, with the addresses of the connection that
// peer forwards where it says so.
func (s *Server) shake(peer net.Conn) (raw net.Conn, l *link, err error) {
	ctx, done := s.begin()
	defer done()
	raw = peer
	defer func() {
		if p := recover(); p != nil {
			l, err = nil, &attest.Error{Code: attest.CodeInternal, Check: "transport", Err: errPanic}
		}
	}()
	raw, err = s.introduced(ctx, peer)
	if err != nil {
		return raw, nil, withCode(ctx, err)
	}
	if s.wrap != nil {
		raw = s.wrap(raw)
	}
	leave, ok := s.peers.enter(raw.RemoteAddr())
	if !ok {
		return raw, nil, &attest.Error{Code: attest.CodePeerLimit, Check: "transport"}
	}
	defer func() {
		if l == nil {
			leave()
		}
	}()
	conn, err := s.establish(ctx, raw)
	if err == nil && conn == nil {
		err = &attest.Error{Code: attest.CodeInternal, Check: "transport", Err: errors.New("no connection")}
	}
	if err == nil {
		if err = s.judge(conn.Result()); err != nil {
			_ = conn.Close()
		}
	}
	if err != nil {
		return raw, nil, withCode(ctx, err)
	}
	l = newLink(conn, s.stats, s.forget)
	l.leave = leave
	return raw, l, nil
}

// withCode gives an error without a code that of a failed handshake.
func withCode(ctx context.Context, err error) error {
	var coded *attest.Error
	switch {
	case errors.As(err, &coded):
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.Is(context.Cause(ctx), errCrowded):
		return &attest.Error{Code: attest.CodeTimeout, Check: "transport", Err: err}
	default:
		return &attest.Error{Code: attest.CodeHandshake, Check: "transport", Err: err}
	}
}

func (s *Server) remember(l *link) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open[l] = struct{}{}
	return !s.closing
}

// forget is called once for every link, when it is closed for good.
func (s *Server) forget(l *link) {
	s.stats.active.Add(-1)
	l.leave()
	<-s.connections
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, l)
	s.checkEmpty()
}

func (s *Server) checkEmpty() {
	if !s.closing || len(s.open) > 0 {
		return
	}
	select {
	case <-s.empty:
	default:
		close(s.empty)
	}
}

// retire has no more connections admitted.
func (s *Server) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.retired {
		s.retired = true
		close(s.gone)
	}
	for ln := range s.listeners {
		_ = ln.Close()
	}
}

// Retire is a Shutdown that hurries nobody, for a server that another one has taken over from: handshakes go on, clients of
// HTTP may send one more request, and learn with its response that the connection ends. Idle ones end in a few seconds. What
// is left when ctx ends is cut off.
func (s *Server) Retire(ctx context.Context) error {
	s.retire()
	if s.ease != nil {
		s.ease()
	}
	established := make(chan struct{})
	go func() {
		s.work.Wait()
		close(established)
	}()
	select {
	case <-established:
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.closing = true
	s.checkEmpty()
	s.mu.Unlock()
	select {
	case <-s.empty:
	case <-ctx.Done():
	}
	return s.Shutdown(ctx)
}

// Shutdown stops accepting, breaks off handshakes, lets HTTP requests and raw connections finish until ctx ends, and
// then cuts off what is left. It answers ctx's error when something had to be cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.cancel() // first, so that Serve knows why its listener closes
	s.retire()
	s.mu.Lock()
	s.closing = true
	s.checkEmpty()
	s.mu.Unlock()
	if s.drain != nil {
		s.drain(ctx)
	}
	var err error
	select {
	case <-s.empty:
	case <-ctx.Done():
		err = ctx.Err()
	}
	for _, l := range s.rest() {
		l.reset()
	}
	s.settle()
	if s.release != nil {
		s.release()
	}
	return err
}

// settle waits for the goroutines and the loops, which have nothing left to wait for. A handshake that ignores its context must
// not keep the process alive.
func (s *Server) settle() {
	done := make(chan struct{})
	go func() {
		s.work.Wait()
		<-s.empty // loops are told to break off what is theirs
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
		s.log.Error("a handshake ignores its end", "code", string(attest.CodeInternal))
	}
}

func (s *Server) rest() []*link {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*link, 0, len(s.open))
	for l := range s.open {
		all = append(all, l)
	}
	return all
}

func addrString(a net.Addr) string {
	if a == nil {
		return ""
	}
	return a.String()
}
