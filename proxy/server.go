package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/loop"
)

// Server accepts connections and carries them. NewInboundHTTP, NewInboundTCP and NewOutbound make one.
type Server struct {
	engine *Engine
	limits Limits
	log    *slog.Logger
	stats  counters

	establish func(ctx context.Context, raw net.Conn) (Conn, error)
	judge     func(*attest.Result) error                       // whether an established connection may be used
	hurries   bool                                             // whether a handshake may lose its place to one that waits
	refused   func(raw net.Conn, err error)                    // says goodbye to raw
	carry     func(raw net.Conn, l *link, logger *slog.Logger) // runs in the connection's goroutine
	drain     func(context.Context)                            // lets requests finish; nil when there are none
	release   func()                                           // frees what is shared; nil when there is nothing

	ctx         context.Context // ends when Shutdown begins
	cancel      context.CancelFunc
	connections chan struct{}
	handshakes  chan struct{}
	work        sync.WaitGroup

	mu        sync.Mutex
	closing   bool
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
		engine: engine, limits: limits, log: logger, ctx: ctx, cancel: cancel,
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
	var pause time.Duration
	for {
		raw, err := ln.Accept()
		switch {
		case err == nil:
			pause = 0
		case s.ctx.Err() != nil:
			return nil
		case exhausted(err):
			// Giving up here would turn a flood that ate the descriptors into an outage.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("cannot accept for now", "error", err.Error())
			select {
			case <-time.After(pause):
			case <-s.ctx.Done():
			}
			continue
		default:
			return err
		}
		s.stats.accepted.Add(1)
		// Waiting here, instead of behind a goroutine each, leaves what exceeds the limits in the kernel's queue.
		if !s.take(s.connections) {
			_ = raw.Close()
			return nil
		}
		if !s.takePlace() {
			<-s.connections
			_ = raw.Close()
			return nil
		}
		s.work.Go(func() { s.handle(raw) })
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
	case <-s.ctx.Done():
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
		case <-s.ctx.Done():
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
	if s.closing {
		return false
	}
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

// handle takes one accepted connection through its handshake and hands it on.
func (s *Server) handle(raw net.Conn) {
	logger := s.log.With("remote", addrString(raw.RemoteAddr()))
	l, err := s.shake(raw)
	<-s.handshakes
	if err != nil {
		if s.ctx.Err() == nil {
			code := attest.CodeOf(err)
			s.stats.refuse(code)
			logger.Warn("handshake refused", "code", string(code), "error", err.Error())
		}
		s.refused(raw, err)
		<-s.connections
		return
	}
	s.stats.established(l.conn.Result())
	s.stats.active.Add(1)
	if !s.remember(l) {
		l.reset()
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

// shake runs the handshake within its limits and judges the outcome.
func (s *Server) shake(raw net.Conn) (l *link, err error) {
	ctx, done := s.begin()
	defer done()
	defer func() {
		if p := recover(); p != nil {
			l, err = nil, &attest.Error{Code: attest.CodeInternal, Check: "transport", Err: errPanic}
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
		return nil, withCode(ctx, err)
	}
	return newLink(conn, &s.stats, s.forget), nil
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

// Shutdown stops accepting, breaks off handshakes, lets HTTP requests and raw connections finish until ctx ends, and
// then cuts off what is left. It answers ctx's error when something had to be cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.cancel() // first, so that Serve knows why its listener closes
	s.mu.Lock()
	s.closing = true
	for ln := range s.listeners {
		_ = ln.Close()
	}
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
		<-s.empty
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
