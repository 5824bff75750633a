package snp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest/tsm"
)

// devicePath is the kernel's character device.
const devicePath = "/dev/sev-guest"

// sources are the kernel's interfaces, best first.
func sources() []tsm.Source {
	return []tsm.Source{tsm.NewConfigfs(tsm.ProviderSNP, ReportSize, maxCertTable), device{guest: sevGuest{devicePath}}}
}

// sevGuest is the kernel's character device.
type sevGuest struct{ path string }

func (g sevGuest) open() error {
	f, err := os.OpenFile(g.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", tsm.ErrAbsent, err)
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// keyDevice is where keys are to be had: configfs-tsm gives none.
func keyDevice() guestDevice { return sevGuest{devicePath} }

// guestRequest is struct snp_guest_request_ioctl. Its fields of addresses are integers to Go, hence the pinning.
type guestRequest struct {
	version            uint8
	_                  [7]byte
	request, response  uint64
	firmware, vmmError uint32
}

// ioctlBase is _IOWR('S', nr, struct snp_guest_request_ioctl) for nr 0.
const ioctlBase = 3<<30 | unsafe.Sizeof(guestRequest{})<<16 | 'S'<<8

func (g sevGuest) request(command uintptr, request, response, certs []byte) (firmware, vmm uint32, err error) {
	f, err := os.OpenFile(g.path, os.O_RDWR, 0)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var pin runtime.Pinner
	defer pin.Unpin()
	address := func(b []byte) uint64 {
		pin.Pin(&b[0])
		return uint64(uintptr(unsafe.Pointer(&b[0])))
	}
	if len(certs) > 0 {
		binary.LittleEndian.PutUint64(request[reportRequestSize:], address(certs))
	}
	arg := &guestRequest{version: 1, request: address(request), response: address(response)}
	pin.Pin(arg)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), ioctlBase|command, uintptr(unsafe.Pointer(arg)))
	runtime.KeepAlive(request)
	runtime.KeepAlive(response)
	runtime.KeepAlive(certs)
	if errno != 0 {
		err = os.NewSyscallError("ioctl", errno)
	}
	return arg.firmware, arg.vmmError, err
}
