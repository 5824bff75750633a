package trap

import (
	"bytes"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestTrap(t *testing.T) {
	if !Again(t, nil) {
		return
	}
	const request = 0x80047307
	handle := func(c Call) (uint64, syscall.Errno) {
		switch c.Number {
		case unix.SYS_IOCTL:
			if err := Write(c.Args[2], []byte{7, 0, 0, 0}); err != nil {
				return 0, unix.EFAULT
			}
			return 0, 0
		case 1000:
			in, err := Read(c.Args[0], int(c.Args[1]))
			if err != nil {
				return 0, unix.EFAULT
			}
			at, err := Place(append(in, "!"...))
			if err != nil || WriteUint64(c.Args[2], at) != nil {
				return 0, unix.EFAULT
			}
			return uint64(len(in) + 1), 0
		}
		return 0, unix.EPERM
	}
	if err := Install(handle, Calls(1000, 1003), Ioctl(request)); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		var out *byte
		in := []byte("hello")
		n, _, errno := syscall.Syscall(1000, uintptr(unsafe.Pointer(&in[0])), uintptr(len(in)), uintptr(unsafe.Pointer(&out)))
		if errno != 0 || n != 6 || !bytes.Equal(unsafe.Slice(out, n), []byte("hello!")) {
			t.Fatal(n, errno)
		}
	}
	if _, _, errno := syscall.Syscall(1000, 16, 4, 0); errno != unix.EFAULT {
		t.Error("a bad address:", errno)
	}
	for number, want := range map[uintptr]syscall.Errno{999: unix.ENOSYS, 1001: unix.EPERM, 1003: unix.EPERM, 1004: unix.ENOSYS} {
		if _, _, errno := syscall.Syscall(number, 0, 0, 0); errno != want {
			t.Errorf("call %d: %v, want %v", number, errno, want)
		}
	}
	if got, err := unix.IoctlGetInt(0, request); err != nil || got != 7 {
		t.Error(got, err)
	}
	if _, err := unix.IoctlGetInt(-1, request+1); err != unix.EBADF {
		t.Error(err)
	}
}
