package loop

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// epoll waits for many descriptors at once. It waits in the poller of Go's runtime, which has epoll's own descriptor, so that
// waiting takes no thread and waking no handover.
type epoll struct {
	loop  *Loop
	fd    int      // os.File.Fd would take it out of the runtime's poller
	file  *os.File // the same
	conn  syscall.RawConn
	event int // descriptor by which others wake the loop
	armed time.Time

	slots  []slot // by the number that the kernel gives back; 0 is the wake-up
	unused []int32
	queue  []*polled // want to be watched otherwise
	round  []unix.EpollEvent
	ready  int
	failed error
	try    func(fd uintptr) bool
}

// slot is a place for a connection. Its generation tells those that have had it apart.
type slot struct {
	driver     *polled
	generation int32
}

func newEpoll(l *Loop) (poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	event, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err == nil {
		err = errors.Join(unix.SetNonblock(fd, true), unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, event, &unix.EpollEvent{Events: unix.EPOLLIN}))
	}
	p := &epoll{loop: l, fd: fd, file: os.NewFile(uintptr(fd), "epoll"), event: event, slots: make([]slot, 1), round: make([]unix.EpollEvent, 256)}
	if err == nil {
		p.conn, err = p.file.SyscallConn()
	}
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("epoll", err), p.file.Close(), unix.Close(event))
	}
	p.try = func(fd uintptr) bool {
		p.ready, p.failed = poll(int(fd), p.round)
		return p.ready != 0
	}
	return p, nil
}

func (p *epoll) wait(until time.Time) {
	for i, d := range p.queue {
		d.settle()
		p.queue[i] = nil
	}
	p.queue = p.queue[:0]
	// A deadline that is too early costs one round, one that is set anew with every change costs more.
	if !until.IsZero() && (p.armed.IsZero() || until.Before(p.armed)) {
		p.armed = until
		_ = p.file.SetReadDeadline(until)
	}
	p.ready = 0
	if err := p.conn.Read(p.try); err != nil { // the deadline has passed
		p.armed = time.Time{}
		_ = p.file.SetReadDeadline(time.Time{})
		_ = p.try(uintptr(p.fd))
	}
	if p.ready <= 0 {
		return
	}
	p.loop.now = time.Now()
	for _, e := range p.round[:p.ready] {
		if e.Fd == 0 {
			var b [8]byte
			_, _ = read(p.event, b[:])
			continue
		}
		// A descriptor that was closed in this round may be that of another connection by now.
		if s := p.slots[e.Fd]; s.driver != nil && s.generation == e.Pad {
			s.driver.happened(e.Events)
		}
	}
}

func (p *epoll) wake() {
	_, _ = write(p.event, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (p *epoll) close() {
	_ = p.file.Close()
	_ = unix.Close(p.event)
}

func (p *epoll) add(d *polled) error {
	if n := len(p.unused); n > 0 {
		d.slot, p.unused = p.unused[n-1], p.unused[:n-1]
	} else {
		d.slot = int32(len(p.slots))
		p.slots = append(p.slots, slot{})
	}
	p.slots[d.slot].driver = d
	return p.ctl(unix.EPOLL_CTL_ADD, d)
}

func (p *epoll) ctl(op int, d *polled) error {
	d.told = d.events
	return unix.EpollCtl(p.fd, op, d.fd, &unix.EpollEvent{Events: d.events, Fd: d.slot, Pad: p.slots[d.slot].generation})
}

func (p *epoll) remove(d *polled) {
	p.slots[d.slot] = slot{generation: p.slots[d.slot].generation + 1}
	p.unused = append(p.unused, d.slot)
}

// polled drives a connection whose descriptor epoll watches.
type polled struct {
	poll    *epoll
	conn    *Conn
	wire    *Wire // nil without TLS
	upper   Upper // likewise
	fd      int
	slot    int32
	events  uint32 // to be watched for
	told    uint32 // that epoll watches for
	queued  bool   // the two differ
	left    []byte // on the way out, above the kernel and below TLS
	sent    int    // of left
	took    time.Time
	blocked bool // the kernel takes no more for now
	absent  bool // not with epoll any more: an end that can't be masked would be reported for ever
	goes    bool // what upper does after its stream has ended needs more of what arrives
	closed  bool // upper was
	gone    bool
}

// adopt takes over the descriptor of a connection.
func (p *epoll) adopt(c *Conn, raw net.Conn, wire *Wire, upper Upper) (driver, error) {
	rc, err := raw.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	d := &polled{poll: p, conn: c, wire: wire, upper: upper, fd: -1, events: unix.EPOLLIN}
	var failed error
	if err := rc.Control(func(fd uintptr) { d.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if failed != nil {
		return nil, os.NewSyscallError("dup", failed)
	}
	if err := p.add(d); err != nil {
		_ = unix.Close(d.fd)
		p.remove(d)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	_ = raw.Close() // Go's runtime need not be told of what arrives
	if wire != nil {
		if u, ok := upper.(interface{ Polled() bool }); ok {
			d.goes = u.Polled()
		}
		wire.adopt(d)
		// What TLS has taken off the wire during the handshake is in no descriptor any more.
		p.loop.Do(func() { d.happened(0); d.look() })
	}
	return d, nil
}

// happened takes an event. It is also called without one, to look at what is there already.
func (d *polled) happened(events uint32) {
	if d.gone {
		return
	}
	c := d.conn
	defer c.rescue()
	writable := events&unix.EPOLLOUT != 0
	if writable {
		d.blocked = false
		d.watchAs(d.events &^ unix.EPOLLOUT)
	}
	// What has arrived goes first: it may be the last words of an end that takes no more.
	if events == 0 || events != unix.EPOLLOUT && d.events&unix.EPOLLIN != 0 {
		d.read(events != 0)
	}
	if writable && !c.dead {
		c.send()
	}
	if c.dead {
		return
	}
	if events&d.events&unix.EPOLLRDHUP != 0 {
		d.watchAs(d.events &^ unix.EPOLLRDHUP)
		if l, ok := c.handler.(Leaver); ok && c.paused {
			l.Left()
		}
		if c.dead {
			return
		}
	}
	// Whoever reads comes to the end by reading. Others would be told of it for ever.
	if events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 && d.events&unix.EPOLLIN == 0 && !d.absent {
		d.absent = true
		_ = d.poll.ctl(unix.EPOLL_CTL_DEL, d)
		if n, _ := unix.GetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_ERROR); n != 0 {
			c.finish(os.NewSyscallError("read", syscall.Errno(n)))
		}
	}
}

// read takes what has arrived, once. What is left is reported again.
func (d *polled) read(kernel bool) {
	l := d.conn.loop
	var got []byte
	if kernel {
		n, err := read(d.fd, l.in)
		switch {
		case err == unix.EAGAIN, err == unix.EINTR:
			return
		case err != nil:
			d.conn.finish(os.NewSyscallError("read", err))
			return
		case n == 0 && d.upper == nil:
			d.watch(false)
			d.conn.finish(nil)
			return
		case n == 0:
			d.watch(false)
			d.wire.dry = true
		default:
			got = l.in[:n]
		}
	}
	if d.upper == nil {
		d.conn.deliver(got)
		return
	}
	d.wire.in = got
	d.pull()
	d.wire.in = nil
}

// pull delivers what upper makes of what is on the wire.
func (d *polled) pull() {
	c, p := d.conn, d.conn.loop.plain
	for !c.dead {
		filled := 0
		var err error
		for err == nil && filled < len(p) {
			var n int
			n, err = d.upper.Read(p[filled:])
			filled += n
		}
		c.deliver(p[:filled])
		switch {
		case err == nil:
			continue
		case c.dead:
		case err == errAgain:
		case !errors.Is(err, io.EOF):
			c.finish(err)
		case d.wire.Truncated() && !(c.ended && d.goes):
			c.finish(ErrTruncated)
		default:
			c.finish(nil)
			if !d.goes {
				d.watch(false)
			}
		}
		return
	}
}

// look does what was written to the wire behind the loop's back.
func (d *polled) look() {
	if d.gone {
		return
	}
	shut, cut := d.wire.heard()
	c := d.conn
	defer c.rescue()
	c.send()
	if !shut || c.dead || c.closes {
		return
	}
	if cut {
		c.finish(ErrReset)
		return
	}
	if _, err := d.upper.Read(nil); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errAgain) {
		c.finish(err)
		return
	}
	c.finish(net.ErrClosed)
}

func (d *polled) write(p []byte) (int, error) {
	if d.upper == nil {
		return d.push(p)
	}
	if left, err := d.flush(); err != nil || left > 0 {
		return 0, err
	}
	d.wire.cork()
	n, err := d.upper.Write(p)
	d.wire.uncork()
	return n, err
}

// push gives bytes to the kernel.
func (d *polled) push(p []byte) (int, error) {
	if d.blocked {
		return 0, nil
	}
	for {
		n, err := write(d.fd, p)
		switch {
		case err == nil && n == len(p):
			d.took = d.conn.loop.now
			return n, nil
		case err == nil:
			d.took = d.conn.loop.now
			// The next try would find the kernel full, nearly always.
		case err == unix.EAGAIN:
			n = 0
		case err == unix.EINTR:
			continue
		default:
			return 0, os.NewSyscallError("write", err)
		}
		d.blocked = true
		d.watchAs(d.events | unix.EPOLLOUT)
		return n, nil
	}
}

func (d *polled) flush() (int, error) {
	if d.wire == nil {
		return 0, nil
	}
	for {
		if d.sent == len(d.left) {
			if d.left != nil {
				put(d.left)
				d.left, d.sent = nil, 0
			}
			if d.left = d.wire.take(); d.left == nil {
				return 0, nil
			}
		}
		n, err := d.push(d.left[d.sent:])
		if d.sent += n; err != nil || d.sent < len(d.left) {
			return len(d.left) - d.sent, err
		}
	}
}

func (d *polled) moved() time.Time { return d.took }

func (d *polled) watch(read bool) {
	events := d.events &^ (unix.EPOLLIN | unix.EPOLLRDHUP)
	if read {
		events |= unix.EPOLLIN
	} else if _, ok := d.conn.handler.(Leaver); ok && d.conn.paused {
		events |= unix.EPOLLRDHUP
	}
	d.watchAs(events)
}

// watchAs has epoll told before the loop waits again. Most of those that are to be watched for less are closed by then, or are to be
// watched as before.
func (d *polled) watchAs(events uint32) {
	d.events = events
	if !d.queued && events != d.told {
		d.queued = true
		d.poll.queue = append(d.poll.queue, d)
	}
}

func (d *polled) settle() {
	d.queued = false
	switch {
	case d.gone || d.events == d.told:
	case !d.absent:
		_ = d.poll.ctl(unix.EPOLL_CTL_MOD, d)
	case d.events&unix.EPOLLIN != 0:
		// What arrived before the end may still be there to be read.
		if err := d.poll.ctl(unix.EPOLL_CTL_ADD, d); err != nil {
			c := d.conn
			c.loop.Do(func() { c.guard(func() { c.finish(os.NewSyscallError("epoll_ctl", err)) }) })
			return
		}
		d.absent = false
	}
}

func (d *polled) closeWrite() error {
	if d.upper != nil && !d.closed {
		d.wire.cork()
		err := d.upper.CloseWrite()
		d.wire.uncork()
		if err == nil {
			_, err = d.flush()
		}
		return err
	}
	err := unix.Shutdown(d.fd, unix.SHUT_WR)
	if errors.Is(err, unix.ENOTCONN) {
		err = nil // the other end has gone, which its reader learns
	}
	return os.NewSyscallError("shutdown", err)
}

func (d *polled) goodbye() {
	if d.upper != nil {
		d.wire.cork()
		_ = d.upper.Close()
		d.closed = true
	}
}

func (d *polled) close(abort bool) {
	d.gone = true
	if d.upper != nil && !d.closed {
		d.wire.mu.Lock()
		abort = abort && (d.wire.cut || !d.wire.shut) // who has closed it has said why, which a reset would undo
		d.wire.shut, d.wire.corked = true, true
		d.wire.mu.Unlock()
		_ = d.upper.Close()
	}
	if d.left != nil {
		put(d.left)
		d.left = nil
	}
	if d.wire != nil {
		if b := d.wire.take(); b != nil {
			put(b)
		}
	}
	if abort {
		_ = unix.SetsockoptLinger(d.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	_ = unix.Close(d.fd)
	d.poll.remove(d)
}
