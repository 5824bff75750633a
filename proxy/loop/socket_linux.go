package loop

import (
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Accepting answers ln with connections that the loops watch from their beginning, where the system has a way to: Go's runtime,
// which would be told of each and told again that a loop has it, need not know of them. Whoever shakes hands on one uses it like
// any other net.Conn. Sockets other than those of TCP are left as they are. Close of what it answers closes ln; it is not ended by
// closing ln alone, for it has a descriptor of its own.
func (g *Group) Accepting(ln net.Listener) net.Listener {
	tcp, ok := ln.(*net.TCPListener)
	if _, polls := g.loops[0].poller.(*epoll); !ok || !polls {
		return ln
	}
	file, err := tcp.File() // a net.Listener does not let others wait
	if err != nil {
		return ln // which is closed, and says so, or has no descriptor to spare
	}
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return ln
	}
	return &acceptor{Listener: ln, group: g, file: file, raw: raw}
}

// acceptor is a listener of sockets.
type acceptor struct {
	net.Listener
	group *Group
	file  *os.File // the same socket
	raw   syscall.RawConn

	closed atomic.Bool
}

// Close implements net.Listener.
func (a *acceptor) Close() error {
	a.closed.Store(true)
	return errors.Join(a.Listener.Close(), a.file.Close())
}

// Accept implements net.Listener.
func (a *acceptor) Accept() (net.Conn, error) {
	var fd int
	var from sockaddr
	var failed error
	err := a.raw.Read(func(ln uintptr) bool {
		for {
			fd, failed = accept(int(ln), &from)
			switch failed {
			case unix.EINTR, unix.ECONNABORTED: // the client has gone before its turn came
			default:
				return failed != unix.EAGAIN
			}
		}
	})
	switch {
	case err == nil:
		err = os.NewSyscallError("accept4", failed)
	case a.closed.Load():
		err = net.ErrClosed // as others say it
	}
	if err != nil {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: a.Addr(), Err: err}
	}
	var at sockaddr
	getsockname(fd, &at)
	l := a.group.turn(&a.group.accepted)
	s := &socket{poll: l.poller.(*epoll), fd: fd, local: tcpAddr(&at), remote: tcpAddr(&from)}
	s.cond.L = &s.wait
	alive(fd)
	return s, nil
}

// alive has small writes leave at once, and an end that has gone noticed, with the times that Go's net package has.
func alive(fd int) {
	const idle, interval, count = 15, 15, 9
	set(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	set(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, idle)
	set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, interval)
	set(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, count)
}

// tcpAddr is a struct sockaddr_in or sockaddr_in6 as the net package has it: family, port, for IPv6 a flow label, address, and for
// IPv6 a scope.
func tcpAddr(raw *sockaddr) *net.TCPAddr {
	port := binary.BigEndian.Uint16(raw[2:4])
	switch binary.NativeEndian.Uint16(raw[:2]) {
	case unix.AF_INET:
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), port))
	case unix.AF_INET6:
		ip := netip.AddrFrom16([16]byte(raw[8:24]))
		if scope := binary.NativeEndian.Uint32(raw[24:28]); scope != 0 {
			ip = ip.WithZone(zone(int(scope)))
		}
		return net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, port))
	}
	return &net.TCPAddr{}
}

func zone(index int) string {
	if i, err := net.InterfaceByIndex(index); err == nil {
		return i.Name
	}
	return strconv.Itoa(index)
}

// The ways of a socket.
const (
	reading = iota
	writing
)

// socket is a connection that was accepted and that no Conn has yet. Its methods wait, as those of any net.Conn; what they wait for is
// told by the epoll of the loop that is to have it.
type socket struct {
	poll          *epoll
	local, remote net.Addr

	// mu is held in calls of the kernel, of which none waits: a descriptor that is closed meanwhile may be another's at once.
	mu     sync.Mutex
	fd     int   // -1 once it is closed, or a Conn's
	number int32 // that poll watches it under; 0 as long as nobody had to wait
	drains bool  // poll tells of room as well

	writes sync.Mutex // one Write after the other

	wait  sync.Mutex
	cond  sync.Cond
	news  [2]uint64 // how often something has happened, of each way
	late  [2]bool   // its deadline has passed
	timer [2]*time.Timer
	ended bool
}

// socketOf answers the socket that is below a transport; nil where another kind of connection is.
func socketOf(raw net.Conn) *socket {
	if w, ok := raw.(*Wire); ok {
		raw = w.Conn
	}
	s, _ := raw.(*socket)
	return s
}

// home is the loop that watches a connection already; nil where none does.
func home(raw net.Conn) *Loop {
	if s := socketOf(raw); s != nil {
		return s.poll.loop
	}
	return nil
}

// await tries f, and again whenever there is news of that way, until it answers true.
func (s *socket) await(way int, f func(fd uintptr) (done bool)) error {
	for {
		s.wait.Lock()
		ended, late, known := s.ended, s.late[way], s.news[way]
		s.wait.Unlock()
		switch {
		case ended:
			return net.ErrClosed
		case late:
			return os.ErrDeadlineExceeded
		}
		if done, err := s.try(way, f); done || err != nil {
			return err
		}
		s.wait.Lock()
		for s.news[way] == known && !s.late[way] && !s.ended {
			s.cond.Wait()
		}
		s.wait.Unlock()
	}
}

// try calls f, and sees to it that whoever waits after that is told.
func (s *socket) try(way int, f func(fd uintptr) bool) (done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return false, net.ErrClosed
	}
	if f(uintptr(s.fd)) {
		return true, nil
	}
	if s.number == 0 {
		s.drains = way == writing
		s.number, err = s.poll.greet(s, s.drains)
		return false, err
	}
	if way == writing && !s.drains {
		s.drains = true
		err = s.poll.regard(unix.EPOLL_CTL_MOD, s.fd, arrivals|unix.EPOLLOUT, s.number)
	}
	return false, err
}

// happened takes what epoll has told.
func (s *socket) happened(events uint32) {
	s.wait.Lock()
	if events&^unix.EPOLLOUT != 0 {
		s.news[reading]++
	}
	if events&^arrivals != 0 {
		s.news[writing]++
	}
	s.cond.Broadcast()
	s.wait.Unlock()
}

// end has nobody wait any more.
func (s *socket) end() {
	s.wait.Lock()
	s.ended = true
	for _, t := range s.timer {
		if t != nil {
			t.Stop()
		}
	}
	s.cond.Broadcast()
	s.wait.Unlock()
}

// part takes the descriptor out of the socket, which is closed for everybody else from now on, and out of the numbers of its epoll.
// It answers -1 where there is none any more, and whether the epoll still watches it.
func (s *socket) part() (fd int, watched bool) {
	s.mu.Lock()
	fd, s.fd = s.fd, -1
	if watched = fd >= 0 && s.number != 0; watched {
		s.poll.forget(s.number)
	}
	s.mu.Unlock()
	s.end()
	return fd, watched
}

func (s *socket) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: s.local, Addr: s.remote, Err: err}
}

// Read implements net.Conn.
func (s *socket) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	var failed error
	err = s.await(reading, func(fd uintptr) bool {
		for {
			if n, failed = recv(int(fd), p); failed != unix.EINTR {
				return failed != unix.EAGAIN
			}
		}
	})
	if err == nil {
		err = os.NewSyscallError("read", failed)
	}
	switch {
	case err != nil:
		return 0, s.fail("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn.
func (s *socket) Write(p []byte) (n int, err error) {
	s.writes.Lock()
	defer s.writes.Unlock()
	var failed error
	err = s.await(writing, func(fd uintptr) bool {
		for n < len(p) {
			var m int
			switch m, failed = send(int(fd), p[n:], false); failed {
			case nil:
				n += m
			case unix.EINTR:
			default:
				return failed != unix.EAGAIN
			}
		}
		return true
	})
	if err == nil {
		err = os.NewSyscallError("write", failed)
	}
	if err != nil {
		return n, s.fail("write", err)
	}
	return n, nil
}

// Close implements net.Conn.
func (s *socket) Close() error {
	fd, watched := s.part()
	if fd < 0 {
		return s.fail("close", net.ErrClosed)
	}
	if watched { // a descriptor that was made of this one would keep the epoll watching
		_ = s.poll.regard(unix.EPOLL_CTL_DEL, fd, 0, 0)
	}
	if err := closeFD(fd); err != nil {
		return s.fail("close", os.NewSyscallError("close", err))
	}
	return nil
}

// control calls f with the descriptor.
func (s *socket) control(op string, f func(fd int) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return s.fail(op, net.ErrClosed)
	}
	if err := f(s.fd); err != nil {
		return s.fail(op, err)
	}
	return nil
}

// CloseWrite is as that of net.TCPConn.
func (s *socket) CloseWrite() error {
	return s.control("close", func(fd int) error { return os.NewSyscallError("shutdown", shutdown(fd)) })
}

// SetLinger is as that of net.TCPConn.
func (s *socket) SetLinger(sec int) error {
	return s.control("set", func(fd int) error {
		l := unix.Linger{Onoff: 1, Linger: int32(sec)}
		if sec < 0 {
			l = unix.Linger{}
		}
		return os.NewSyscallError("setsockopt", unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &l))
	})
}

func (s *socket) LocalAddr() net.Addr  { return s.local }
func (s *socket) RemoteAddr() net.Addr { return s.remote }

// SetDeadline implements net.Conn.
func (s *socket) SetDeadline(t time.Time) error { return s.limit(t, reading, writing) }

// SetReadDeadline implements net.Conn.
func (s *socket) SetReadDeadline(t time.Time) error { return s.limit(t, reading) }

// SetWriteDeadline implements net.Conn.
func (s *socket) SetWriteDeadline(t time.Time) error { return s.limit(t, writing) }

func (s *socket) limit(t time.Time, ways ...int) error {
	s.wait.Lock()
	defer s.wait.Unlock()
	if s.ended {
		return s.fail("set", net.ErrClosed)
	}
	for _, way := range ways {
		if before := s.timer[way]; before != nil {
			before.Stop()
		}
		s.timer[way] = nil
		if s.late[way] = !t.IsZero() && !t.After(time.Now()); s.late[way] || t.IsZero() {
			continue
		}
		var timer *time.Timer
		timer = time.AfterFunc(time.Until(t), func() {
			s.wait.Lock()
			if s.timer[way] == timer { // one that was stopped too late is not the deadline any more
				s.late[way] = true
				s.cond.Broadcast()
			}
			s.wait.Unlock()
		})
		s.timer[way] = timer
	}
	s.cond.Broadcast()
	return nil
}

// SyscallConn implements syscall.Conn. What is called with the descriptor must not wait, nor use the connection.
func (s *socket) SyscallConn() (syscall.RawConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil, s.fail("raw", net.ErrClosed)
	}
	return rawSocket{s}, nil
}

type rawSocket struct{ s *socket }

func (r rawSocket) Control(f func(fd uintptr)) error {
	return r.s.control("raw-control", func(fd int) error {
		f(uintptr(fd))
		return nil
	})
}

func (r rawSocket) Read(f func(fd uintptr) bool) error  { return r.await("raw-read", reading, f) }
func (r rawSocket) Write(f func(fd uintptr) bool) error { return r.await("raw-write", writing, f) }

func (r rawSocket) await(op string, way int, f func(fd uintptr) bool) error {
	if err := r.s.await(way, f); err != nil {
		return r.s.fail(op, err)
	}
	return nil
}

// regard changes how a socket is watched that no Conn has yet.
func (p *epoll) regard(op, fd int, events uint32, number int32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return net.ErrClosed
	}
	return p.watch(op, fd, events, number, 0)
}

// desert has nobody wait for what will be told no more.
func (p *epoll) desert() {
	p.mu.Lock()
	p.over = true
	left := slices.Collect(maps.Values(p.early))
	p.mu.Unlock()
	for _, s := range left {
		s.end()
	}
}

// greet watches a socket that no Conn has yet, and answers the number that it has until then. Those of connections are positive.
func (p *epoll) greet(s *socket, room bool) (int32, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over { // its descriptor may be another's by now
		return 0, net.ErrClosed
	}
	events := uint32(arrivals)
	if room {
		events |= unix.EPOLLOUT
	}
	for {
		if p.last--; p.last == math.MinInt32 {
			p.last = -1
		}
		if p.early[p.last] == nil {
			break
		}
	}
	if err := p.watch(unix.EPOLL_CTL_ADD, s.fd, events, p.last, 0); err != nil {
		return 0, err
	}
	p.early[p.last] = s
	return p.last, nil
}

// forget takes the number back. What has been told under it concerns nobody any more.
func (p *epoll) forget(number int32) {
	p.mu.Lock()
	delete(p.early, number)
	p.mu.Unlock()
}

// greeted answers whose number it is; nil for nobody's.
func (p *epoll) greeted(number int32) *socket {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.early[number]
}

// inherit takes the descriptor of a socket over, for d, which has a slot.
func (p *epoll) inherit(s *socket, d *polled) error {
	fd, watched := s.part()
	if fd < 0 {
		return s.fail("read", net.ErrClosed)
	}
	d.fd = fd
	op := unix.EPOLL_CTL_ADD
	switch {
	case watched && s.poll == p:
		op = unix.EPOLL_CTL_MOD // which tells anew what is there
	case watched:
		_ = s.poll.regard(unix.EPOLL_CTL_DEL, fd, 0, 0)
	}
	return p.ctl(op, d, arrivals)
}
