package tdx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tsm"
)

// devicePath is the kernel's character device (Linux, include/uapi/linux/tdx-guest.h).
const devicePath = "/dev/tdx_guest"

// sources are the interfaces of a TDX guest, best first. The service comes first where the guest's image offers it.
func sources() []tsm.Source {
	return []tsm.Source{
		qgs{config: qgsConfig, module: tdxGuest{devicePath}, dial: dialHost},
		tsm.NewConfigfs(tsm.ProviderTDX, attest.MaxRaw, 0),
	}
}

// tdxGuest is the kernel's device.
type tdxGuest struct{ path string }

func (g tdxGuest) open() error {
	f, err := os.OpenFile(g.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", tsm.ErrAbsent, err)
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// reportRequest is struct tdx_report_req.
type reportRequest struct {
	data   [64]byte
	report [tdReportSize]byte
}

// getReport0 is TDX_CMD_GET_REPORT0, _IOWR('T', 1, struct tdx_report_req).
const getReport0 = 3<<30 | unsafe.Sizeof(reportRequest{})<<16 | 'T'<<8 | 1

func (g tdxGuest) report(data attest.ReportData) ([]byte, error) {
	f, err := os.OpenFile(g.path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	request := &reportRequest{data: data}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), getReport0, uintptr(unsafe.Pointer(request)))
	runtime.KeepAlive(request)
	if errno != 0 {
		return nil, os.NewSyscallError("ioctl", errno)
	}
	return request.report[:], nil
}

// dialHost connects to a port of the host.
func dialHost(ctx context.Context, port uint32) (stream, error) {
	return dial(ctx, unix.AF_VSOCK, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: port})
}

func dial(ctx context.Context, family int, to unix.Sockaddr) (stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := connect(fd, to); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	return os.NewFile(uintptr(fd), "quote generation service"), nil
}

// connect leaves the socket non-blocking, or Close would not end a Read. The kernel waits two seconds for a host that does
// not answer; a signal of the Go runtime ends that wait, hence again.
func connect(fd int, to unix.Sockaddr) error {
	for {
		err := unix.Connect(fd, to)
		if err == nil {
			return unix.SetNonblock(fd, true)
		}
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
