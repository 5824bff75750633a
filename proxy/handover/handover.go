//go:build unix

// Package handover passes listening sockets from a process to the one that replaces it, so that a restart refuses no
// connection: those that wait in the kernel's queue are the successor's.
//
// The two meet at a unix socket that only their user can open. The predecessor sends the sockets; the successor starts, and says
// that it is ready; the predecessor then accepts no more, and drains. Where the successor dies before that, nothing has changed.
// No key is passed: the successor attests by itself.
package handover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The most sockets that one message passes (SCM_MAX_FD of Linux), and the longest message about them.
const (
	maxSockets = 253
	maxMessage = 64 << 10
)

// patience is how long either side waits for the other one's next word, other than the successor's start.
const patience = 10 * time.Second

const ready = "ready\n"

// Inherited are the sockets that a process has taken over.
type Inherited struct {
	conn *net.UnixConn

	mu   sync.Mutex
	left map[string]net.Listener
}

// Take gets the sockets of the process that waits at path. It answers nil where none does.
func Take(ctx context.Context, path string) (*Inherited, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	conn, _ := c.(*net.UnixConn)
	i := &Inherited{conn: conn, left: map[string]net.Listener{}}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if err := i.receive(); err != nil {
		i.Close()
		return nil, fmt.Errorf("taking over from the process at %s: %w", path, err)
	}
	_ = conn.SetDeadline(time.Time{})
	return i, nil
}

func (i *Inherited) receive() error {
	if err := sameUser(i.conn); err != nil {
		return err
	}
	message, control := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4*maxSockets))
	n, m, _, _, err := i.conn.ReadMsgUnix(message, control)
	if err != nil {
		return err
	}
	files, err := filesOf(control[:m])
	defer func() {
		for _, f := range files {
			_ = f.Close() // FileListener has its own
		}
	}()
	if err != nil {
		return err
	}
	var addresses []string
	if err := json.Unmarshal(message[:n], &addresses); err != nil || len(addresses) != len(files) {
		return fmt.Errorf("%d sockets for %d addresses", len(files), len(addresses))
	}
	for k, f := range files {
		ln, err := net.FileListener(f)
		if err != nil {
			return fmt.Errorf("%s: %w", addresses[k], err)
		}
		i.left[addresses[k]] = ln
	}
	return nil
}

func filesOf(control []byte) ([]*os.File, error) {
	all, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, c := range all {
		fds, err := unix.ParseUnixRights(&c)
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "inherited"))
		}
	}
	return files, nil
}

// Listener answers the socket for an address as it was configured, once.
func (i *Inherited) Listener(address string) (net.Listener, bool) {
	if i == nil {
		return nil, false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	ln, ok := i.left[address]
	delete(i.left, address)
	return ln, ok
}

// Ready has the predecessor leave. Sockets that nobody asked for are closed.
func (i *Inherited) Ready() error {
	if i == nil {
		return nil
	}
	defer i.Close()
	_ = i.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(i.conn, ready); err != nil {
		return err
	}
	_, err := io.ReadFull(i.conn, make([]byte, len(ready))) // it has stopped
	return err
}

// Close gives up: the predecessor stays.
func (i *Inherited) Close() {
	if i == nil {
		return
	}
	_ = i.conn.Close()
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, ln := range i.left {
		if u, ok := ln.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
		}
		_ = ln.Close()
	}
	i.left = nil
}

// Place is where a successor will find this process: a socket that is not at its path yet.
type Place struct {
	path, temporary string
	ln              *net.UnixListener
}

// Prepare opens the socket for an Offer at path: whatever can go wrong goes wrong before the predecessor is told to leave.
func Prepare(path string) (*Place, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("%s is there, and no socket", path)
	}
	temporary := fmt.Sprintf("%s.%d", path, os.Getpid())
	_ = os.Remove(temporary)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	p := &Place{path, temporary, ln}
	if err := os.Chmod(temporary, 0o600); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close gives the place up, unless it was offered.
func (p *Place) Close() {
	if p != nil && p.ln != nil {
		_ = p.ln.Close()
		_ = os.Remove(p.temporary)
	}
}

// Offer waits at the place for a successor, instead of whoever waited there. sockets are the addresses, as they were configured,
// and their listeners at the time. leave is called once, when a successor has taken over: it has to stop accepting before it
// returns. The one that Offer answers ends the offer.
func (p *Place) Offer(sockets func() map[string]net.Listener, leave func()) (io.Closer, error) {
	// Under its name there is always one socket or the other: a successor that finds none would not take over.
	if err := os.Rename(p.temporary, p.path); err != nil {
		p.Close()
		return nil, err
	}
	ln, path := p.ln, p.path
	p.ln = nil
	o := &offer{ln: ln, path: path, sockets: sockets, leave: leave}
	if info, err := os.Lstat(path); err == nil {
		o.file = info
	}
	o.work.Go(o.run)
	return o, nil
}

type offer struct {
	ln      *net.UnixListener
	path    string
	file    os.FileInfo
	sockets func() map[string]net.Listener
	leave   func()
	left    bool
	work    sync.WaitGroup

	mu     sync.Mutex
	active net.Conn
	closed bool
}

// Close ends the offer.
func (o *offer) Close() error {
	o.mu.Lock()
	o.closed = true
	if o.active != nil {
		_ = o.active.Close()
	}
	o.mu.Unlock()
	err := o.ln.Close()
	o.work.Wait()
	if info, statErr := os.Lstat(o.path); statErr == nil && o.file != nil && os.SameFile(info, o.file) { // not a successor's
		_ = os.Remove(o.path)
	}
	return err
}

func (o *offer) run() {
	for !o.left {
		conn, err := o.ln.AcceptUnix()
		if err != nil {
			return
		}
		o.mu.Lock()
		o.active = conn
		closed := o.closed
		o.mu.Unlock()
		if !closed {
			o.serve(conn)
		}
		_ = conn.Close()
	}
}

// serve hands the sockets to one successor, and waits until it is ready, or has died.
func (o *offer) serve(conn *net.UnixConn) {
	if sameUser(conn) != nil {
		return
	}
	addresses := []string{}
	var fds []int
	var files []*os.File
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	for address, ln := range o.sockets() {
		l, ok := ln.(interface{ File() (*os.File, error) })
		if !ok || len(fds) == maxSockets {
			continue
		}
		f, err := l.File()
		if errors.Is(err, net.ErrClosed) {
			continue
		}
		if err != nil {
			return
		}
		files = append(files, f)
		// Fd would have the socket wait: the two share that, and accepting here would never end.
		raw, err := f.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds, addresses = append(fds, int(fd)), append(addresses, address) })
		}
		if err != nil {
			return
		}
	}
	message, err := json.Marshal(addresses)
	if err != nil || len(message) > maxMessage {
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(patience))
	if _, _, err := conn.WriteMsgUnix(message, unix.UnixRights(fds...), nil); err != nil {
		return
	}
	word := make([]byte, len(ready))
	if _, err := io.ReadFull(conn, word); err != nil || !bytes.Equal(word, []byte(ready)) {
		return
	}
	o.left = true
	o.leave()
	_ = conn.SetWriteDeadline(time.Now().Add(patience))
	_, _ = conn.Write(word)
}
