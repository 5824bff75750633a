package loop

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// waiter is the poller of a loop that has nothing but goroutines to wait for.
type waiter struct {
	woken chan struct{}
	timer *time.Timer
}

func newWaiter() *waiter {
	return &waiter{woken: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
}

func (w *waiter) wait(until time.Time) {
	var due <-chan time.Time
	if !until.IsZero() {
		w.timer.Reset(time.Until(until))
		due = w.timer.C
	}
	select {
	case <-w.woken:
	case <-due:
	}
}

func (w *waiter) wake() {
	select {
	case w.woken <- struct{}{}:
	default:
	}
}

func (w *waiter) close() { w.timer.Stop() }

// blocking drives a connection whose reads and writes wait, by a goroutine for each.
type blocking struct {
	conn   *Conn
	raw    net.Conn
	stream io.ReadWriter // raw, or what stands above it
	upper  Upper

	mu     sync.Mutex
	cond   sync.Cond
	read   bool     // the reader may go on
	jobs   []func() // of the writer
	gone   bool
	works  bool      // the writer is at a job
	broke  error     // what a job has come to
	took   time.Time // when a write last came back
	busy   int       // bytes that the writer has; of the loop
	failed error
	parted bool // goodbye was said
}

func newBlocking(c *Conn, raw net.Conn, upper Upper) *blocking {
	d := &blocking{conn: c, raw: raw, stream: raw, upper: upper, read: true}
	if upper != nil {
		d.stream = upper
	}
	d.cond.L = &d.mu
	go d.reader()
	go d.writer()
	return d
}

// reader has one read under way, and waits until the loop has taken what it brought.
func (d *blocking) reader() {
	buf := make([]byte, 32<<10)
	taken := make(chan struct{})
	for d.mayRead() {
		n, err := d.tryRead(buf)
		if errors.Is(err, io.EOF) {
			err = d.settled(err)
		}
		ok := d.conn.loop.Do(func() {
			defer func() { taken <- struct{}{} }()
			defer d.conn.rescue()
			d.conn.deliver(buf[:n])
			switch {
			case err == nil || d.conn.dead:
			case !errors.Is(err, io.EOF):
				d.conn.finish(err)
			case d.truncated():
				d.conn.finish(ErrTruncated)
			default:
				d.conn.finish(nil)
			}
		})
		if !ok {
			return
		}
		<-taken
		if err != nil {
			return
		}
	}
}

// settled is how the connection has ended, where a read says that it ended properly. When the other end resets it, a write
// under way may take the error, and the read behind it finds a plain end.
func (d *blocking) settled(eof error) error {
	over := false
	timer := time.AfterFunc(settling, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		over = true
		d.cond.Broadcast()
	})
	defer timer.Stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.works && !d.gone && !over {
		d.cond.Wait()
	}
	if d.broke != nil {
		return d.broke
	}
	return eof
}

// settling is how long a write may take to learn of a reset that has come already.
const settling = time.Second

func (d *blocking) tryRead(buf []byte) (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			n, err = 0, errPanic
		}
	}()
	return d.stream.Read(buf)
}

func (d *blocking) truncated() bool {
	w, ok := d.raw.(*Wire)
	return ok && d.upper != nil && w.Truncated()
}

func (d *blocking) mayRead() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.read && !d.gone {
		d.cond.Wait()
	}
	return !d.gone
}

// writer does what waits, in order.
func (d *blocking) writer() {
	for {
		d.mu.Lock()
		for len(d.jobs) == 0 && !d.gone {
			d.cond.Wait()
		}
		if len(d.jobs) == 0 {
			d.mu.Unlock()
			return
		}
		job := d.jobs[0]
		d.jobs = d.jobs[1:]
		d.works = true
		d.mu.Unlock()
		job()
		d.mu.Lock()
		d.works = false
		d.mu.Unlock()
	}
}

// do has the writer run job, which counts as size bytes until it is done.
func (d *blocking) do(size int, job func() error) {
	d.busy += size
	d.mu.Lock()
	defer d.mu.Unlock()
	d.jobs = append(d.jobs, func() {
		err := d.try(job)
		d.mu.Lock()
		d.works, d.broke = false, errors.Join(d.broke, err)
		d.cond.Broadcast()
		d.mu.Unlock()
		d.conn.loop.Do(func() {
			defer d.conn.rescue()
			d.busy -= size
			if err != nil && d.failed == nil {
				d.failed = err
			}
			d.conn.send()
		})
	})
	d.cond.Broadcast()
}

func (d *blocking) try(job func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errPanic
		}
	}()
	return job()
}

func (d *blocking) write(p []byte) (int, error) {
	if d.failed != nil || d.busy > 0 {
		return 0, d.failed
	}
	p = append([]byte(nil), p...)
	d.do(len(p), func() error {
		for rest := p; len(rest) > 0; { // in pieces, to see whether it moves
			n, err := d.stream.Write(rest[:min(len(rest), piece)])
			if err != nil {
				return err
			}
			rest = rest[n:]
			d.mu.Lock()
			d.took = time.Now()
			d.mu.Unlock()
		}
		return nil
	})
	return len(p), nil
}

// piece is what is written at once: a record of TLS.
const piece = 16 << 10

func (d *blocking) moved() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.took
}

func (d *blocking) flush() (int, error) { return d.busy, d.failed }

func (d *blocking) watch(read bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.read = read
	d.cond.Broadcast()
}

var errOneWay = errors.New("one direction ended and the other end cannot be told")

func (d *blocking) closeWrite() error {
	end := d.stream
	if d.parted { // the transport's turn
		end = d.raw
		if w, ok := d.raw.(*Wire); ok {
			end = w.Conn
		}
	}
	half, ok := end.(interface{ CloseWrite() error })
	if !ok {
		return errOneWay
	}
	d.do(1, half.CloseWrite)
	return nil
}

func (d *blocking) goodbye() {
	if d.upper != nil {
		d.parted = true
		d.do(1, func() error { // closing it would close the transport, in which the other end's last words may be waiting
			_ = d.upper.CloseWrite()
			return nil
		})
	}
}

func (d *blocking) close(abort bool) {
	if abort {
		Reset(d.raw)
	} else {
		_ = d.raw.Close()
	}
	if d.upper != nil {
		d.mu.Lock()
		d.jobs = append(d.jobs, func() { _ = d.try(d.upper.Close) }) // it may wait for its own lock
		d.mu.Unlock()
	}
	d.mu.Lock()
	d.gone = true
	d.cond.Broadcast()
	d.mu.Unlock()
}
