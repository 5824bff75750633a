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
	gate   *gate // that of others too, where they share a port

	observer Observer
	name     string // of the listener

	wrap      func(raw net.Conn) net.Conn // makes room for what is learnt of a client before its handshake; nil for none
	establish func(ctx context.Context, raw net.Conn) (Conn, error)
	judge     func(*attest.Result) error                       // whether an established connection may be used
	outward   bool                                             // established connections are to peers, and clients are plain
	hurries   bool                                             // whether a handshake may lose its place to one that waits
	bare      bool                                             // nothing is attested: what is established does not count as such
	refused   func(raw net.Conn, err error)                    // says goodbye to raw
	carry     func(raw net.Conn, l *link, logger *slog.Logger) // runs in the connection's goroutine
	drain     func(context.Context)                            // lets requests finish; nil when there are none
	ease      func()                                           // has clients of HTTP go elsewhere; nil when there are none
	release   func()                                           // frees what is shared; nil when there is nothing
	http      *httpSide                                        // nil where it does not serve HTTP
	sorter    *sorter                                          // gives connections to other servers; nil where it serves them itself

	ctx    context.Context // ends when Shutdown begins
	cancel context.CancelFunc
	gone   chan struct{} // closed when no more connections are taken
	crew   *crew         // shakes hands
	work   sync.WaitGroup

	mu        sync.Mutex
	trusted   []netip.Prefix // who says in a PROXY header whose connection it forwards; settled once served
	served    bool
	closing   bool
	retired   bool // no more connections, but those that were admitted may go on
	listeners map[net.Listener]struct{}
	open      map[*link]struct{}
	empty     chan struct{} // closed when closing and nothing is open
}

func newServer(engine *Engine, limits Limits, logger *slog.Logger) *Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	limits = limits.withDefaults()
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan struct{})
	return &Server{
		engine: engine, limits: limits, log: logger, stats: newCounters(len(engine.group.Loops())), gate: newGate(limits), ctx: ctx, cancel: cancel,
		gone:      gone,
		crew:      newCrew(gone),
		listeners: make(map[net.Listener]struct{}),
		open:      make(map[*link]struct{}),
		empty:     make(chan struct{}),
	}
}

// Stats is what was counted so far.
func (s *Server) Stats() Stats { return s.stats.snapshot() }

// count has s, which serves nobody yet, count with c.
func (s *Server) count(c *counters) {
	s.stats = c
	if s.http == nil {
		return
	}
	s.http.stats = c
	for i, w := range s.http.workers {
		w.tally = c.tally.Shard(i)
	}
}

// Serve accepts connections on ln, which it closes, until Shutdown; it then returns nil. It may go on where somebody else closes ln.
// Several listeners may be served at once.
func (s *Server) Serve(ln net.Listener) error {
	ln = s.engine.group.Accepting(ln)
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
	if !s.gate.enter(s.gone) {
		return false
	}
	if !s.join() {
		s.gate.shaken()
		s.gate.left()
		return false
	}
	s.crew.do(func() {
		a := &arrival{peer: raw, raw: raw, began: time.Now()}
		if s.sorter != nil {
			s.sort(a)
			return
		}
		defer s.work.Done()
		s.handle(a)
	})
	return true
}

// join counts one more connection among the work of s, and answers false where it takes no more.
func (s *Server) join() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.retired || s.closing {
		return false
	}
	s.work.Add(1)
	s.stats.accepted.Add(1)
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

// begin makes the context of what is done for a connection before it is established; done releases it.
func (s *Server) begin(a *arrival) (ctx context.Context, done func()) {
	return s.gate.begin(s.ctx, a.began, s.limits.Handshake, s.hurries)
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

// arrival is a connection that is let in.
type arrival struct {
	peer       net.Conn       // as it came
	raw        net.Conn       // the same, with what is known of it
	began      time.Time      // when it was accepted
	introduced bool           // it is known whose it is, and counted for whoever that is
	leave      func()         // takes that back
	onward     netip.AddrPort // where it was going before it was brought here
}

// ErrDone is the error of a Handshake that was all that a client came for: nobody was refused.
var ErrDone = errors.New("nothing was wanted but a handshake")

// handle takes a connection through its handshake and hands it on.
func (s *Server) handle(a *arrival) {
	l, err := s.shake(a)
	s.gate.shaken()
	if errors.Is(err, ErrDone) {
		_ = a.raw.Close()
		s.gate.left()
		return
	}
	if err != nil {
		s.refuse(a, err)
		s.gate.left()
		return
	}
	logger := s.logger(a)
	if !s.bare {
		s.stats.established(l.conn.Result())
	}
	s.stats.active.Add(1)
	if !s.remember(l) {
		l.reset()
		loop.Reset(a.raw) // which is another connection where this is the client's side
		return
	}
	l.heed()
	defer func() {
		if p := recover(); p != nil {
			logger.Error("panic in a connection", "code", string(attest.CodeInternal))
			l.reset()
			loop.Reset(a.raw)
		}
	}()
	s.carry(a.raw, l, logger)
}

// logger says whose connection it is.
func (s *Server) logger(a *arrival) *slog.Logger {
	h := &lazy{Handler: s.log.Handler(), remote: addrString(a.raw.RemoteAddr())}
	if via := addrString(a.peer.RemoteAddr()); via != h.remote {
		h.via = via
	}
	return slog.New(h)
}

// refuse ends a connection that was not established, and tells of it, unless the server is what ends.
func (s *Server) refuse(a *arrival, err error) {
	if s.ctx.Err() == nil {
		code := attest.CodeOf(err)
		s.stats.refuse(code)
		s.refusedConnection(a.began, addrString(a.raw.RemoteAddr()), code)
		s.logger(a).Warn("handshake refused", "code", string(code), "error", err.Error())
	}
	s.refused(a.raw, err)
}

// shake runs the handshake within its limits and judges the outcome.
func (s *Server) shake(a *arrival) (l *link, err error) {
	ctx, done := s.begin(a)
	defer done()
	defer func() {
		if p := recover(); p != nil {
			l, err = nil, &attest.Error{Code: attest.CodeInternal, Check: "transport", Err: errPanic}
		}
		if l == nil && a.leave != nil {
			a.leave()
		}
	}()
	if err := s.introduce(ctx, a); err != nil {
		return nil, err
	}
	if s.wrap != nil {
		a.raw = s.wrap(a.raw)
	}
	conn, err := s.establish(withOnward(ctx, a.onward), a.raw)
	if err == nil && conn == nil {
		err = &attest.Error{Code: attest.CodeInternal, Check: "transport", Err: errors.New("no connection")}
	}
	if err == nil {
		if err = s.judge(conn.Result()); err != nil {
			_ = conn.Close()
		}
	}
	if errors.Is(err, ErrDone) {
		return nil, err
	}
	if err != nil {
		return nil, withCode(ctx, err)
	}
	l = newLink(conn, s.stats, s.forget)
	if s.outward { // what is read from a peer is what a client is sent
		l.read, l.written = l.written, l.read
	}
	l.leave, l.onward = a.leave, a.onward
	return l, nil
}

// introduce finds out whose connection it is, and counts it for whoever that is.
func (s *Server) introduce(ctx context.Context, a *arrival) (err error) {
	if a.introduced {
		return nil
	}
	if a.raw, err = s.introduced(ctx, a.peer); err != nil {
		return withCode(ctx, err)
	}
	leave, ok := s.gate.peers.enter(a.raw.RemoteAddr())
	if !ok {
		return &attest.Error{Code: attest.CodePeerLimit, Check: "transport"}
	}
	a.introduced, a.leave = true, leave
	return nil
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
	s.gate.left()
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

// turnAway has clients go elsewhere, those of HTTP with their next response.
func (s *Server) turnAway() {
	s.retire()
	if s.ease != nil {
		s.ease()
	}
}

// Retire is a Shutdown that hurries nobody, for a server that another one has taken over from: handshakes go on, clients of
// HTTP may send one more request, and learn with its response that the connection ends. Idle ones end in a few seconds. What
// is left when ctx ends is cut off.
func (s *Server) Retire(ctx context.Context) error {
	s.turnAway()
	established := make(chan struct{})
	go func() {
		s.work.Wait()
		close(established)
	}()
	select {
	case <-established:
	case <-ctx.Done():
	}
	err := s.sorted(func(to *Server) error { return to.Retire(ctx) }) // now that no connection is on its way there
	s.mu.Lock()
	s.closing = true
	s.checkEmpty()
	s.mu.Unlock()
	select {
	case <-s.empty:
	case <-ctx.Done():
	}
	if end := s.Shutdown(ctx); err == nil {
		err = end
	}
	return err
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
	err := s.sorted(func(to *Server) error { return to.Shutdown(ctx) })
	select {
	case <-s.empty:
	case <-ctx.Done():
		if err == nil {
			err = ctx.Err()
		}
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
