package loop

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// epoll waits for many descriptors at once. It waits in the poller of Go's runtime, which has epoll's own descriptor, so that
// waiting takes no thread and waking no handover.
//
// Of connections it is told of changes only (EPOLLET): the kernel need not look a second time at each that it has reported, and is
// never told of a pause. What is there already, and was not read to its end, is remembered here.
type epoll struct {
	loop  *Loop
	fd    int      // os.File.Fd would take it out of the runtime's poller
	file  *os.File // the same
	conn  syscall.RawConn
	event int // descriptor by which others wake the loop
	armed time.Time

	slots  []slot // by the number that the kernel gives back; 0 is the wake-up
	unused []int32
	unread []*polled // are to be read on with, in the next round
	spare  []*polled
	round  []unix.EpollEvent
	came   []arrival // in this round, and is to be looked at
	filled int       // of the loop's buffer, with what came
	ready  int
	failed error
	try    func(fd uintptr) bool

	mu    sync.Mutex
	early map[int32]*socket // what no connection has yet, by its number, which is negative
	last  int32
	over  bool
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
	p := &epoll{loop: l, fd: fd, file: os.NewFile(uintptr(fd), "epoll"), event: event, slots: make([]slot, 1), round: make([]unix.EpollEvent, 256), early: make(map[int32]*socket)}
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
	if unread := p.unread; len(unread) > 0 {
		p.unread, p.spare = p.spare[:0], unread
		p.loop.now = time.Now()
		for i, d := range unread {
			d.resume()
			unread[i] = nil
		}
		_ = p.try(uintptr(p.fd))
		p.dispatch()
		return
	}
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
	p.dispatch()
}

// arrival is what an event has brought to a connection.
type arrival struct {
	driver *polled
	events uint32
	read   bool   // from the kernel: what follows is what it said
	got    []byte // in the loop's buffer
	err    error
}

// dispatch gives the connections what epoll has told last. It reads them all before it looks at what came, so that the kernel's part
// and ours are each done while the processor has it at hand.
func (p *epoll) dispatch() {
	if p.ready <= 0 {
		return
	}
	p.loop.now = time.Now()
	for _, e := range p.round[:p.ready] {
		switch {
		case e.Fd == 0:
			unsignal(p.event)
			continue
		case e.Fd < 0:
			if s := p.greeted(e.Fd); s != nil {
				s.happened(e.Events)
			}
			continue
		}
		// A descriptor that was closed in this round may be that of another connection by now.
		if s := p.slots[e.Fd]; s.driver != nil && s.generation == e.Pad {
			p.gather(s.driver, e.Events)
		}
	}
	p.deliver()
}

// gather reads what an event has told of. Little room is no reason to read little: what came is looked at before.
func (p *epoll) gather(d *polled, events uint32) {
	if d.note(events); d.more && d.reads && len(p.loop.in)-p.filled < len(p.loop.in)/2 {
		if p.deliver(); d.gone {
			return
		}
	}
	a := arrival{driver: d, events: events, read: d.more && d.reads}
	if a.read {
		a.got, a.err = d.recv(p.loop.in[p.filled:])
		p.filled += len(a.got)
	}
	p.came = append(p.came, a)
}

// deliver gives the connections what came. One that another has ended meanwhile gets nothing; one that another has paused does, as
// always with what was read already.
func (p *epoll) deliver() {
	for i, a := range p.came {
		a.driver.happened(a)
		p.came[i] = arrival{}
	}
	p.came, p.filled = p.came[:0], 0
}

func (p *epoll) wake() {
	signal(p.event)
}

func (p *epoll) close() {
	p.desert()
	_ = p.file.Close()
	_ = unix.Close(p.event)
}

// place gives a connection its slot.
func (p *epoll) place(d *polled) {
	if n := len(p.unused); n > 0 {
		d.slot, p.unused = p.unused[n-1], p.unused[:n-1]
	} else {
		d.slot = int32(len(p.slots))
		p.slots = append(p.slots, slot{})
	}
	p.slots[d.slot].driver = d
}

// arrivals are the events of what arrives: bytes, urgent ones, the end.
const arrivals = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP

func (p *epoll) ctl(op int, d *polled, events uint32) error {
	return p.watch(op, d.fd, events, d.slot, p.slots[d.slot].generation)
}

func (p *epoll) watch(op, fd int, events uint32, number, generation int32) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.fd, op, fd, &unix.EpollEvent{Events: events | unix.EPOLLET, Fd: number, Pad: generation}))
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
	reads   bool   // is to be read
	more    bool   // there may be something to read, of which epoll has told
	pieces  bool   // a read may end before what is there: at an urgent byte, or behind a descriptor that was passed
	ends    bool   // the other end sends no more than what is there
	leaves  bool   // whoever has paused wants to know that
	queued  bool   // in the next round
	left    []byte // on the way out, above the kernel and below TLS
	sent    int    // of left
	took    time.Time
	failed  error // of what was sent in the middle of a write
	blocked bool  // the kernel takes no more for now
	drains  bool  // epoll tells when there is room again
	goes    bool  // what upper does after its stream has ended needs more of what arrives
	closed  bool  // upper was
	gone    bool
}

// adopt takes over the descriptor of a connection.
func (p *epoll) adopt(c *Conn, raw net.Conn, wire *Wire, upper Upper) (driver, error) {
	d := &polled{poll: p, conn: c, wire: wire, upper: upper, fd: -1, reads: true}
	p.place(d)
	var err error
	if s := socketOf(raw); s != nil {
		err = p.inherit(s, d)
	} else {
		err = p.duplicate(raw, d)
	}
	if err != nil {
		if d.fd >= 0 {
			_ = closeFD(d.fd)
		}
		p.remove(d)
		return nil, err
	}
	if wire != nil {
		if u, ok := upper.(interface{ Polled() bool }); ok {
			d.goes = u.Polled()
		}
		wire.adopt(d)
		p.loop.Do(func() { d.begin(); d.look() })
	}
	return d, nil
}

// duplicate has d drive a descriptor of its own: that of raw is one that Go's runtime watches.
func (p *epoll) duplicate(raw net.Conn, d *polled) error {
	rc, err := raw.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := rc.Control(func(fd uintptr) { d.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return err
	}
	if failed != nil {
		return os.NewSyscallError("dup", failed)
	}
	domain, _ := unix.GetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	d.pieces = domain != unix.AF_INET && domain != unix.AF_INET6
	if err := p.ctl(unix.EPOLL_CTL_ADD, d, arrivals); err != nil {
		return err
	}
	_ = raw.Close() // which need not be told of what arrives
	return nil
}

// note remembers what an event says of what has arrived.
func (d *polled) note(events uint32) {
	d.more = d.more || events&^unix.EPOLLOUT != 0
	d.pieces = d.pieces || events&unix.EPOLLPRI != 0
	d.ends = d.ends || events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
}

// happened takes what an event has brought.
func (d *polled) happened(a arrival) {
	if d.gone {
		return
	}
	c := d.conn
	defer c.rescue()
	writable := d.blocked && a.events&unix.EPOLLOUT != 0
	if writable {
		d.blocked = false
	}
	// What has arrived goes first: it may be the last words of an end that takes no more.
	if a.read {
		d.take(a.got, a.err)
	}
	if writable && !c.dead {
		c.send()
	}
	d.abandon()
}

// begin looks at what was there before the first event: what TLS has taken off the wire during the handshake is in no descriptor any
// more.
func (d *polled) begin() {
	if d.gone {
		return
	}
	defer d.conn.rescue()
	d.pass(nil)
	d.abandon()
}

// abandon looks at a connection that has ended and is not read to its end: it may have been broken off, and whoever has paused may
// want to know that the other end has gone.
func (d *polled) abandon() {
	c := d.conn
	if !d.ends || d.reads || c.dead {
		return
	}
	if l, ok := c.handler.(Leaver); ok && d.leaves {
		d.leaves = false
		if l.Left(); c.dead {
			return
		}
	}
	if n, _ := unix.GetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_ERROR); n != 0 {
		c.finish(os.NewSyscallError("read", syscall.Errno(n)))
	}
}

// queue has the next round begin with resume.
func (d *polled) queue() {
	if !d.queued {
		d.queued = true
		d.poll.unread = append(d.poll.unread, d)
	}
}

// resume goes on with what epoll has told of already.
func (d *polled) resume() {
	d.queued = false
	if d.gone {
		return
	}
	defer d.conn.rescue()
	if d.more && d.reads {
		d.take(d.recv(d.poll.loop.in))
	}
	d.abandon()
}

// recv reads what has arrived, once: others have a turn before what is left. An end is an io.EOF.
func (d *polled) recv(p []byte) ([]byte, error) {
	n, err := recv(d.fd, p)
	// Less than it could have been was everything, of TCP: epoll tells of what comes after it. But an end that it has told of is
	// not among it, and whoever sends an urgent byte could leave what follows it unread.
	d.more = err == unix.EINTR || n == len(p) || n > 0 && (d.ends || d.pieces)
	switch {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, io.EOF
	default:
		return p[:n], nil
	}
}

// take takes what recv has answered.
func (d *polled) take(got []byte, err error) {
	if d.more {
		d.queue()
	}
	switch {
	case err == nil:
		d.pass(got)
	case err == unix.EAGAIN, err == unix.EINTR:
	case err != io.EOF:
		d.conn.finish(os.NewSyscallError("read", err))
	case d.upper == nil:
		d.watch(false)
		d.conn.finish(nil)
	default:
		d.watch(false)
		d.wire.dry = true
		d.pass(nil)
	}
}

// pass gives the connection what has arrived.
func (d *polled) pass(got []byte) {
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
		return d.push(p, false)
	}
	if left, err := d.flush(); err != nil || left > 0 {
		return 0, err
	}
	if d.conn.closes || d.conn.ending { // what is said after it leaves with it
		d.wire.cork(&d.conn.loop.shelf)
	} else {
		d.wire.open(len(p))
	}
	n, err := d.upper.Write(p)
	d.wire.uncork(&d.conn.loop.shelf)
	return n, err
}

// straight is push for what TLS is writing. An error is that of the next flush.
func (d *polled) straight(p []byte, more bool) int {
	n, err := d.push(p, more)
	d.failed = err
	return n
}

// push gives bytes to the kernel, which may wait with them where more is about to follow.
func (d *polled) push(p []byte, more bool) (int, error) {
	if d.blocked {
		return 0, nil
	}
	for {
		n, err := send(d.fd, p, more)
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
		if !d.drains {
			d.drains = true
			return n, d.poll.ctl(unix.EPOLL_CTL_MOD, d, arrivals|unix.EPOLLOUT)
		}
		return n, nil
	}
}

func (d *polled) flush() (int, error) {
	if d.wire == nil || d.failed != nil {
		return 0, d.failed
	}
	for {
		if d.sent == len(d.left) {
			if d.left != nil {
				d.conn.loop.shelf.put(d.left)
				d.left, d.sent = nil, 0
			}
			if d.left = d.wire.take(); d.left == nil {
				return 0, nil
			}
		}
		n, err := d.push(d.left[d.sent:], false)
		if d.sent += n; err != nil || d.sent < len(d.left) {
			return len(d.left) - d.sent, err
		}
	}
}

func (d *polled) moved() time.Time { return d.took }

func (d *polled) watch(read bool) {
	d.reads = read
	_, leaver := d.conn.handler.(Leaver)
	d.leaves = !read && leaver && d.conn.paused
	if d.more && read {
		d.queue()
	}
}

func (d *polled) closeWrite() error {
	if d.upper != nil && !d.closed {
		d.wire.cork(&d.conn.loop.shelf)
		err := d.upper.CloseWrite()
		d.wire.uncork(&d.conn.loop.shelf)
		if err == nil {
			_, err = d.flush()
		}
		return err
	}
	err := shutdown(d.fd)
	if errors.Is(err, unix.ENOTCONN) {
		err = nil // the other end has gone, which its reader learns
	}
	return os.NewSyscallError("shutdown", err)
}

func (d *polled) goodbye() {
	if d.upper != nil {
		d.wire.cork(&d.conn.loop.shelf)
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
		d.conn.loop.shelf.put(d.left)
		d.left = nil
	}
	if d.wire != nil {
		if b := d.wire.take(); b != nil {
			d.conn.loop.shelf.put(b)
		}
	}
	if abort {
		_ = unix.SetsockoptLinger(d.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	_ = closeFD(d.fd)
	d.poll.remove(d)
}
