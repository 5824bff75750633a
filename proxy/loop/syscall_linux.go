package loop

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below never wait, so Go's scheduler need not be told of them: telling it costs more than the bookkeeping, for it
// makes the runtime's monitor look at this thread every 20 µs.

// recv is read(2) for a socket, and send write(2): the kernel looks at less on its way.
func recv(fd int, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
	return result(n, errno)
}

func send(fd int, p []byte, more bool) (int, error) {
	flags := uintptr(unix.MSG_NOSIGNAL)
	if more {
		flags |= unix.MSG_MORE
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
	return result(n, errno)
}

// poll is epoll_wait for what has happened already.
func poll(fd int, events []unix.EpollEvent) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	return result(n, errno)
}

// sockaddr is room for an address of IP, as the kernel writes it.
type sockaddr [unix.SizeofSockaddrInet6]byte

// accept is accept4(2) for a descriptor that never waits.
func accept(ln int, from *sockaddr) (int, error) {
	size := uint32(len(from))
	n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(ln), uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return result(n, errno)
}

// getsockname leaves an address of no family where there is none: one connection of which that is so is not the end of a listener.
func getsockname(fd int, at *sockaddr) {
	size := uint32(len(at))
	_, _, _ = unix.RawSyscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(at)), uintptr(unsafe.Pointer(&size)))
}

// set sets an option of a socket that no kernel refuses.
func set(fd, level, option int, value int32) {
	_, _, _ = unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option), uintptr(unsafe.Pointer(&value)), unsafe.Sizeof(value), 0)
}

func shutdown(fd int) error {
	return failure(unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0))
}

// closeFD is close(2) of what does not linger: it never waits either.
func closeFD(fd int) error {
	return failure(unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0))
}

// signal adds one to an eventfd, and unsignal takes what was added.
func signal(fd int) {
	one := uint64(1)
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
}

func unsignal(fd int) {
	var n uint64
	_, _, _ = unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&n)), unsafe.Sizeof(n))
}

func failure(_, _ uintptr, errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}

func result(n uintptr, errno unix.Errno) (int, error) {
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
