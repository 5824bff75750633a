package nitro

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest/tsm"
)

// devicePath is the kernel's character device (drivers/misc/nsm.c).
const devicePath = "/dev/nsm"

// sources are the kernel's interfaces.
func sources() []tsm.Source { return []tsm.Source{device{nsm{devicePath}}} }

// nsm is the kernel's character device.
type nsm struct{ path string }

func (n nsm) open() (*os.File, error) {
	f, err := os.OpenFile(n.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", tsm.ErrAbsent, err)
	}
	return f, err
}

func (n nsm) probe() error {
	f, err := n.open()
	if err != nil {
		return err
	}
	return f.Close()
}

// rawMessage is struct nsm_raw (include/uapi/linux/nsm.h): two vectors of address and length.
type rawMessage struct {
	request, requestSize, response, responseSize uint64
}

// requestRaw is NSM_IOCTL_RAW, _IOWR(0x0A, 0, struct nsm_raw).
const requestRaw = 3<<30 | unsafe.Sizeof(rawMessage{})<<16 | 0x0a<<8

func (n nsm) ask(request []byte) ([]byte, error) {
	f, err := n.open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	response := make([]byte, maxResponse)
	message := &rawMessage{requestSize: uint64(len(request)), responseSize: maxResponse}
	// The addresses are integers to Go, hence the pinning.
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&request[0])
	pin.Pin(&response[0])
	pin.Pin(message)
	message.request = uint64(uintptr(unsafe.Pointer(&request[0])))
	message.response = uint64(uintptr(unsafe.Pointer(&response[0])))
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), requestRaw, uintptr(unsafe.Pointer(message)))
	runtime.KeepAlive(request)
	if errno != 0 {
		return nil, os.NewSyscallError("ioctl", errno)
	}
	if message.responseSize > maxResponse {
		return nil, fmt.Errorf("an answer of %d bytes", message.responseSize)
	}
	return response[:message.responseSize], nil
}
