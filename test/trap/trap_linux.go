package trap

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rule selects system calls by number, and where Arg is not negative only those whose argument of that index has the low
// 32 bits Value.
type Rule struct {
	First, Last uint32
	Arg         int
	Value       uint32
}

// Calls selects the system calls first to last.
func Calls(first, last uint32) Rule { return Rule{First: first, Last: last, Arg: -1} }

// Ioctl selects one request of ioctl, on whatever file.
func Ioctl(request uint32) Rule {
	return Rule{First: unix.SYS_IOCTL, Last: unix.SYS_IOCTL, Arg: 1, Value: request}
}

// Call is a system call that was trapped.
type Call struct {
	Number uint32
	Args   [6]uint64
}

// Offsets into struct seccomp_data (linux/seccomp.h).
const (
	dataNumber = 0
	dataArgs   = 16
)

// program is the filter: rules in order, each leading to the notification or to the next.
func program(rules []Rule) []unix.SockFilter {
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	jump := func(test uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	answer := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	var p []unix.SockFilter
	for _, r := range rules {
		rest := []unix.SockFilter{answer(unix.SECCOMP_RET_USER_NOTIF)}
		if r.Arg >= 0 {
			rest = append([]unix.SockFilter{load(dataArgs + 8*uint32(r.Arg)), jump(unix.BPF_JEQ, r.Value, 0, 1)}, rest...)
		}
		n := uint8(len(rest))
		p = append(p, load(dataNumber), jump(unix.BPF_JGE, r.First, 0, n+1), jump(unix.BPF_JGT, r.Last, n, 0))
		p = append(p, rest...)
	}
	return append(p, answer(unix.SECCOMP_RET_ALLOW))
}

// Install traps what the rules select, in every thread of this process and for the rest of its life: use it in a process
// of its own. The answer to each call, a value or an error number, comes from handle, which runs beside the caller and
// must not itself make a trapped call.
func Install(handle func(Call) (value uint64, errno syscall.Errno), rules ...Rule) error {
	listener, err := install(program(rules))
	if err != nil {
		return err
	}
	go serve(listener, handle)
	return nil
}

func install(filter []unix.SockFilter) (int, error) {
	// The permission is of the thread, and taken over by the others with the filter.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("trap: %w", err)
	}
	const flags = unix.SECCOMP_FILTER_FLAG_TSYNC | unix.SECCOMP_FILTER_FLAG_TSYNC_ESRCH | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return 0, fmt.Errorf("trap: seccomp: %w", errno)
	}
	return int(fd), nil
}

// Struct seccomp_notif and seccomp_notif_resp (linux/seccomp.h).
type notification struct {
	id           uint64
	pid, flags   uint32
	number, arch uint32
	instruction  uint64
	args         [6]uint64
}

type response struct {
	id    uint64
	value uint64
	errno int32
	flags uint32
}

func serve(listener int, handle func(Call) (uint64, syscall.Errno)) {
	for {
		var n notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 {
			if errno == unix.EINTR || errno == unix.ENOENT {
				continue // interrupted, or the caller was: it calls again
			}
			fmt.Fprintln(os.Stderr, "trap: receive:", errno)
			os.Exit(125)
		}
		go func() {
			value, errno := handle(Call{Number: n.number, Args: n.args})
			r := response{id: n.id, value: value, errno: -int32(errno)}
			if errno != 0 {
				r.value = 0
			}
			_, _, failed := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r)))
			if failed != 0 && failed != unix.ENOENT {
				fmt.Fprintln(os.Stderr, "trap: answer:", failed)
				os.Exit(125)
			}
		}()
	}
}

// Read copies n bytes from an address that a trapped call was given.
func Read(address uint64, n int) ([]byte, error) {
	b := make([]byte, n)
	if n == 0 {
		return b, nil
	}
	remote := []unix.RemoteIovec{{Base: uintptr(address), Len: n}}
	got, err := unix.ProcessVMReadv(os.Getpid(), []unix.Iovec{iovec(b)}, remote, 0)
	if err == nil && got != n {
		err = syscall.EFAULT
	}
	return b, err
}

// Write copies b to an address that a trapped call was given.
func Write(address uint64, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	remote := []unix.RemoteIovec{{Base: uintptr(address), Len: len(b)}}
	got, err := unix.ProcessVMWritev(os.Getpid(), []unix.Iovec{iovec(b)}, remote, 0)
	if err == nil && got != len(b) {
		err = syscall.EFAULT
	}
	return err
}

// WriteUint64 writes v to an address, in the order of this machine.
func WriteUint64(address, v uint64) error {
	return Write(address, binary.NativeEndian.AppendUint64(nil, v))
}

// Place copies b to memory outside of Go's heap, as a C library would allocate it, and returns its address. It is never
// freed.
func Place(b []byte) (uint64, error) {
	m, err := unix.Mmap(-1, 0, max(len(b), 1), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return 0, err
	}
	copy(m, b)
	return uint64(uintptr(unsafe.Pointer(&m[0]))), nil
}

func iovec(b []byte) unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return v
}
