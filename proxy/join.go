package proxy

import (
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/loop"
)

var errIdle = errors.New("nothing moved for too long")

// join moves bytes both ways between an attested connection and a plain one until both directions have ended, and closes
// both. The end of one direction is passed on while the other goes on. Anything but a proper end is passed on as a reset:
// whoever is at the other end must not take half of a message for the whole. It answers at once.
func join(e *Engine, l *link, plain net.Conn, idle time.Duration, logger *slog.Logger) {
	t := &tunnel{loop: e.group.Pick(), idle: idle, log: logger}
	t.loop.Prepare(l.conn.NetConn())
	drop := func() {
		l.reset()
		loop.Reset(plain)
	}
	if !t.loop.Do(func() { t.loop.Try(func() { t.open(l, plain) }, drop) }) {
		drop()
	}
}

// tunnel is two connections that were joined.
type tunnel struct {
	loop  *loop.Loop
	ways  [2]way
	idle  time.Duration
	timer loop.Timer
	log   *slog.Logger
}

// way is one direction of a tunnel.
type way struct {
	*tunnel
	from, to *loop.Conn
	ended    bool
}

func (t *tunnel) open(l *link, plain net.Conn) {
	near, err := l.open(t.loop)
	if err != nil {
		loop.Reset(plain)
		t.broke(err)
		return
	}
	far, err := t.loop.Open(plain, nil, nil)
	if err != nil {
		near.Abort()
		loop.Reset(plain)
		t.broke(err)
		return
	}
	t.join(near, far)
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
func (t *tunnel) expire() { t.cut(errIdle) }

// cut breaks both connections off.
func (t *tunnel) cut(err error) {
	t.loop.Remove(&t.timer)
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
		w.loop.Remove(&w.timer)
		w.to.Linger()
		w.broke(err)
		return
	case err != nil:
		w.cut(err)
		return
	}
	w.ended = true
	w.to.CloseWrite()
	if w.ways[0].ended && w.ways[1].ended {
		w.loop.Remove(&w.timer)
		w.from.Close()
		w.to.Close()
	}
}
