// Package emulate lets a program use a character device that is not there. The program runs unmodified: it opens the
// device's path and calls ioctl, and the kernel hands both calls to the test instead (seccomp user notification,
// seccomp_unotify(2)). Neither privileges nor a file under /dev are needed.
//
// A test package calls Main first thing in its TestMain, and Start in place of cmd.Start.
package emulate

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is one ioctl on an emulated device.
type Call struct {
	Request uint32 // the command
	Arg     uint64 // mostly the address of a structure
	mem     *os.File
}

// Read copies the caller's memory at address into p.
func (c Call) Read(address uint64, p []byte) error {
	_, err := c.mem.ReadAt(p, int64(address))
	return err
}

// Write copies p into the caller's memory at address.
func (c Call) Write(address uint64, p []byte) error {
	_, err := c.mem.WriteAt(p, int64(address))
	return err
}

// Handler answers an ioctl: 0, or the number of an error.
type Handler func(Call) unix.Errno

// environment tells Main to start the program that it names.
const environment = "JURAT_EMULATE_EXEC"

// Main returns, unless Start began this process: then it becomes the program that Start was given.
func Main() {
	program := os.Getenv(environment)
	if program == "" {
		return
	}
	fmt.Fprintln(os.Stderr, "emulate:", become(program))
	os.Exit(125)
}

// become filters this thread, hands the listener to the test and executes program, which inherits the filter.
func become(program string) error {
	runtime.LockOSThread()
	socket := int(3)
	if n := os.Getenv(environment + "_FD"); n != "" {
		if _, err := fmt.Sscan(n, &socket); err != nil {
			return err
		}
	}
	unix.CloseOnExec(socket)
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, environment) {
			env = append(env, e)
		}
	}
	listener, err := install()
	if err != nil {
		return err
	}
	unix.CloseOnExec(listener)
	if err := unix.Sendmsg(socket, []byte{0}, unix.UnixRights(listener), nil, 0); err != nil {
		return err
	}
	return unix.Exec(program, os.Args, env)
}

// install makes the kernel report openat and ioctl of this thread and of what it executes.
func install() (listener int, err error) {
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{
		{Code: load, K: 0}, // the number of the system call
		{Code: equal, K: unix.SYS_OPENAT, Jt: 2},
		{Code: equal, K: unix.SYS_IOCTL, Jt: 1},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	const flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return 0, os.NewSyscallError("seccomp", errno)
	}
	return int(fd), nil
}

// Start starts cmd so that it finds the devices, by their paths. The answer to every call comes from the device's handler,
// one call at a time. The caller then waits for cmd as usual.
func Start(cmd *exec.Cmd, devices map[string]Handler) error {
	if cmd.Err != nil {
		return cmd.Err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, environment+"="+cmd.Path, fmt.Sprintf("%s_FD=%d", environment, 3+len(cmd.ExtraFiles)))
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	cmd.Path = self
	e := &emulator{devices: map[string]device{}}
	for path, handler := range devices {
		fd, err := unix.MemfdCreate("device", unix.MFD_CLOEXEC)
		if err != nil {
			return errors.Join(err, e.Close())
		}
		e.devices[path] = device{os.NewFile(uintptr(fd), path), handler}
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, e.Close())
	}
	theirs.Close()
	if e.listener, err = receive(int(ours.Fd())); err != nil {
		_ = cmd.Process.Kill()
		return errors.Join(err, cmd.Wait(), e.Close())
	}
	go e.run()
	return nil
}

func receive(socket int) (*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, make([]byte, 1), oob, 0)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("no listener: this kernel or sandbox does not let a process filter its own system calls (%w)", errors.Join(err, io.ErrUnexpectedEOF))
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), "listener"), nil
}

type device struct {
	file    *os.File // what stands behind the descriptor that the program gets
	handler Handler
}

type emulator struct {
	listener *os.File
	devices  map[string]device
	once     sync.Once
}

func (e *emulator) Close() (err error) {
	e.once.Do(func() {
		for _, d := range e.devices {
			err = errors.Join(err, d.file.Close())
		}
		if e.listener != nil {
			err = errors.Join(err, e.listener.Close())
		}
	})
	return err
}

// notification is struct seccomp_notif.
type notification struct {
	id         uint64
	pid, flags uint32
	number     int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// addition is struct seccomp_notif_addfd.
type addition struct {
	id                  uint64
	flags               uint32
	source, at, fdFlags uint32
}

const (
	continueCall = 1                                              // SECCOMP_USER_NOTIF_FLAG_CONTINUE
	addFD        = 1<<30 | unsafe.Sizeof(addition{})<<16 | 0x2103 // SECCOMP_IOCTL_NOTIF_ADDFD
)

// run answers until the last filtered process has ended.
func (e *emulator) run() {
	defer e.Close()
	fd := int(e.listener.Fd())
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil || poll[0].Revents&unix.POLLIN == 0 {
			return
		}
		var n notification
		if control(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)) != 0 {
			continue // the caller has gone
		}
		if answer := e.answer(fd, &n); answer != nil {
			answer.id = n.id
			_ = control(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(answer))
		}
	}
}

// answer is nil where the kernel has had it already.
func (e *emulator) answer(listener int, n *notification) *response {
	mem, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", n.pid), os.O_RDWR, 0)
	if err != nil {
		return failed(n, err)
	}
	defer mem.Close()
	switch n.number {
	case unix.SYS_OPENAT:
		d, ok := e.devices[text(mem, n.args[1])]
		if !ok {
			break
		}
		add := &addition{id: n.id, flags: unix.SECCOMP_ADDFD_FLAG_SEND, source: uint32(d.file.Fd()), fdFlags: uint32(n.args[2]) & unix.O_CLOEXEC}
		if errno := control(listener, addFD, unsafe.Pointer(add)); errno != 0 {
			return &response{errno: -int32(errno)}
		}
		return nil
	case unix.SYS_IOCTL:
		d, err := e.find(n.pid, int32(n.args[0]))
		switch {
		case err != nil:
			return failed(n, err)
		case d.handler != nil:
			return &response{errno: -int32(d.handler(Call{Request: uint32(n.args[1]), Arg: n.args[2], mem: mem}))}
		}
	}
	return &response{flags: continueCall}
}

// failed answers a call of which nothing can be found out. The kernel would say something about it that is not true of the device.
func failed(n *notification, err error) *response {
	fmt.Fprintf(os.Stderr, "emulate: call %d of %d: %v\n", n.number, n.pid, err)
	return &response{errno: -int32(unix.EIO)}
}

// find tells which device the descriptor fd of process pid is, if any.
func (e *emulator) find(pid uint32, fd int32) (device, error) {
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	if err != nil {
		return device{}, err
	}
	for _, d := range e.devices {
		ours, err := d.file.Stat()
		if err != nil {
			return device{}, err
		}
		if os.SameFile(ours, theirs) {
			return d, nil
		}
	}
	return device{}, nil
}

// text reads a path out of a process; empty when it is not one of ours anyway.
func text(mem *os.File, address uint64) string {
	var path []byte
	for one := make([]byte, 1); len(path) < 256; path = append(path, one[0]) {
		if _, err := mem.ReadAt(one, int64(address)+int64(len(path))); err != nil {
			return ""
		}
		if one[0] == 0 {
			return string(path)
		}
	}
	return ""
}

func control(fd int, request uintptr, arg unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	return errno
}
