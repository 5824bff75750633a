package proxy

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

const bufferSize = 32 << 10

// buffers holds arrays rather than slices, so that handing one back does not allocate.
type buffers struct{ pool sync.Pool }

// Get and Put are those of httputil.BufferPool.
func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return p[:]
	}
	return make([]byte, bufferSize)
}

func (b *buffers) Put(p []byte) { b.pool.Put((*[bufferSize]byte)(p)) }

var (
	errTruncated = errors.New("the connection ended without the peer saying so")
	errIdle      = errors.New("nothing moved for too long")
	errOneWay    = errors.New("one direction ended and the other end cannot be told")
)

// join moves bytes both ways between an attested connection and a plain one until both directions have ended, and closes
// both. The end of one direction is passed on while the other goes on. Anything but a proper end is passed on as a reset:
// whoever is at the other end must not take half of a message for the whole.
func join(l *link, plain net.Conn, idle time.Duration, pool *buffers, logger *slog.Logger) {
	clock := idleClock{start: time.Now()}
	ends := make(chan error, 2)
	go func() { ends <- pour(plain, l, pool, &clock) }()
	go func() { ends <- pour(l, plain, pool, &clock) }()
	var expired <-chan time.Time
	if idle > 0 {
		timer := time.NewTimer(idle)
		defer timer.Stop()
		expired = timer.C
	}
	var broken error
	for pending := 2; pending > 0; {
		var err error
		select {
		case err = <-ends:
			pending--
		case <-expired:
			if left := idle - clock.quiet(); left > 0 {
				expired = time.After(left)
				continue
			}
			err, expired = errIdle, nil
		}
		if err != nil && broken == nil {
			broken = err
			l.reset()
			reset(plain)
		}
	}
	if broken != nil {
		var coded *attest.Error
		if errors.As(broken, &coded) {
			logger = logger.With("code", string(coded.Code), "next", coded.Remedy())
		}
		logger.Info("connection broken", "error", broken.Error())
	}
	_ = l.Close()
	_ = plain.Close()
}

// pour copies src to dst up to the end of src, and passes that on.
func pour(dst io.Writer, src io.Reader, pool *buffers, clock *idleClock) (err error) {
	defer contain(&err)
	buf := pool.Get()
	defer pool.Put(buf)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			clock.touch()
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return werr
			}
			clock.touch()
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if l, ok := src.(*link); ok && l.truncated() {
		return errTruncated
	}
	if c, ok := dst.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errOneWay
}

// idleClock knows when a byte last moved.
type idleClock struct {
	start time.Time
	last  atomic.Int64
}

func (c *idleClock) touch() { c.last.Store(int64(time.Since(c.start))) }

func (c *idleClock) quiet() time.Duration { return time.Since(c.start) - time.Duration(c.last.Load()) }
