package proxy

import (
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

var errIdle = errors.New("nothing moved for too long")

// join moves bytes both ways between an attested connection and a plain one until both directions have ended, and closes
// both. The end of one direction is passed on while the other goes on. Anything but a proper end is passed on as a reset:
// whoever is at the other end must not take half of a message for the whole. It answers at once; done, which may be nil, is told
// of the end.
func join(e *Engine, l *link, other net.Conn, idle time.Duration, logger *slog.Logger, done func(how ending, received, sent uint64)) {
	joinBehind(e, l, other, nil, idle, logger, done)
}

// joinBehind is join where some of what the other connection has to say was read already: ahead is passed on before the rest.
func joinBehind(e *Engine, l *link, other net.Conn, ahead []byte, idle time.Duration, logger *slog.Logger, done func(how ending, received, sent uint64)) {
	t := &tunnel{loop: e.group.For(l.conn.NetConn(), other), idle: idle, log: logger, done: done}
	t.loop.Prepare(l.conn.NetConn())
	if far, ok := other.(*link); ok {
		t.loop.Prepare(far.conn.NetConn())
	}
	drop := func() {
		l.reset()
		resetConn(other)
		t.finished(endedHere)
	}
	if !t.loop.Do(func() { t.loop.Try(func() { t.open(l, other, ahead) }, drop) }) {
		drop()
	}
}

// ending is how a tunnel came to its end.
type ending uint8

const (
	endedHere ending = iota // it did not begin, or this side broke it off
	endedWhole
	endedNear // the near connection broke off
	endedFar  // the far one did
	endedIdle
)

// outcome is what the end says about an endpoint at the far end: a client that breaks off must not get it ejected.
func (e ending) outcome() upstream.Outcome {
	switch e {
	case endedWhole:
		return upstream.Success
	case endedFar:
		return upstream.Reset
	default:
		return upstream.NoVerdict
	}
}

// tunnel is two connections that were joined.
type tunnel struct {
	loop  *loop.Loop
	ways  [2]way
	idle  time.Duration
	timer loop.Timer
	log   *slog.Logger
	done  func(how ending, received, sent uint64) // nil where nobody cares
}

// finished tells of the end, once.
func (t *tunnel) finished(how ending) {
	t.loop.Remove(&t.timer)
	if t.done != nil {
		t.done(how, t.ways[0].moved, t.ways[1].moved)
		t.done = nil
	}
}

// way is one direction of a tunnel.
type way struct {
	*tunnel
	from, to *loop.Conn
	ended    bool
	moved    uint64 // bytes
}

func (t *tunnel) open(l *link, other net.Conn, ahead []byte) {
	near, err := l.open(t.loop)
	if err != nil {
		resetConn(other)
		t.finished(endedHere)
		t.broke(err)
		return
	}
	var far *loop.Conn
	if attested, ok := other.(*link); ok {
		far, err = attested.open(t.loop)
	} else {
		far, err = t.loop.Open(other, nil, nil)
	}
	if err != nil {
		near.Abort()
		resetConn(other)
		t.finished(endedHere)
		t.broke(err)
		return
	}
	t.join(near, far)
	if len(ahead) > 0 {
		t.ways[1].Data(ahead)
	}
}

func (t *tunnel) join(near, far *loop.Conn) {
	t.ways[0] = way{tunnel: t, from: near, to: far}
	t.ways[1] = way{tunnel: t, from: far, to: near}
	near.SetHandler(&t.ways[0])
	far.SetHandler(&t.ways[1])
	t.timer.Bind(near)
	t.touch()
}

// touch puts off the end of a tunnel in which something moves.
func (t *tunnel) touch() {
	if t.idle > 0 {
		t.loop.Set(&t.timer, t.loop.Now().Add(t.idle), t.expire)
	}
}

// expire ends a tunnel in which nothing moves. What waits for an end that does not read has not moved either.
func (t *tunnel) expire() { t.cut(endedIdle, errIdle) }

// cut breaks both connections off.
func (t *tunnel) cut(how ending, err error) {
	t.finished(how)
	for i := range t.ways {
		t.ways[i].from.Abort()
	}
	t.broke(err)
}

func (t *tunnel) broke(err error) {
	logger := t.log
	var coded *attest.Error
	if errors.As(err, &coded) {
		logger = logger.With("code", string(coded.Code), "next", coded.Remedy())
	}
	logger.Info("connection broken", "error", err.Error())
}

// Data passes on what arrives.
func (w *way) Data(p []byte) {
	w.touch()
	w.moved += uint64(len(p))
	if !w.to.Write(p) {
		w.from.Pause()
	}
}

// Drained goes on with the other direction, which is the one that fills this connection.
func (w *way) Drained() {
	w.touch()
	w.to.Resume()
}

// End passes on the end of this direction.
func (w *way) End(err error) {
	switch {
	case err != nil && w.ended:
		// It said all that it had to say, which a reset would take away again from who has not read it yet.
		w.finished(endedWhole)
		w.to.Linger()
		w.broke(err)
		return
	case err != nil:
		w.cut(w.brokenBy(err), err)
		return
	}
	w.ended = true
	w.to.CloseWrite()
	if w.ways[0].ended && w.ways[1].ended {
		w.finished(endedWhole)
		w.from.Close()
		w.to.Close()
	}
}

// brokenBy tells who broke off what came from w.
func (w *way) brokenBy(err error) ending {
	switch {
	case errors.Is(err, loop.ErrReset):
		return endedHere
	case w == &w.ways[0]:
		return endedNear
	default:
		return endedFar
	}
}
