package collect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest"
)

const occlumDevice = "/dev/sgx"

func sources() []source { return []source{gramine{gramineDirectory}, occlum{occlumDevice}} }

// occlum asks Occlum by requests to its device (Occlum, src/libos/src/fs/dev_fs/dev_sgx).
type occlum struct{ path string }

// quoteRequest is sgxioc_gen_dcap_quote_arg_t. The addresses are integers to Go, hence the pinning.
type quoteRequest struct{ data, size, quote uint64 }

// Requests of Occlum's device: _IOR('s', 7, uint32_t) and _IOWR('s', 8, sgxioc_gen_dcap_quote_arg_t).
const (
	requestSize  = 2<<30 | 4<<16 | 's'<<8 | 7
	requestQuote = 3<<30 | 24<<16 | 's'<<8 | 8
)

func (occlum) name() string { return SourceOcclum }

func (o occlum) probe() error {
	f, err := os.Open(o.path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errNoTEE, err)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = size(f)
	// The kernel's own device of that name, a directory on newer ones, does not know the request.
	if errors.Is(err, unix.ENOTTY) {
		return fmt.Errorf("%w: %s is not Occlum's: %w", errNoTEE, o.path, err)
	}
	return err
}

func (o occlum) quote(data attest.ReportData) ([]byte, error) {
	f, err := os.Open(o.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := size(f)
	if err != nil {
		return nil, err
	}
	quote, in := make([]byte, n), data
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&quote[0])
	pin.Pin(&in)
	pin.Pin(&n)
	arg := &quoteRequest{
		data:  uint64(uintptr(unsafe.Pointer(&in))),
		size:  uint64(uintptr(unsafe.Pointer(&n))),
		quote: uint64(uintptr(unsafe.Pointer(&quote[0]))),
	}
	if err := ioctl(f, requestQuote, unsafe.Pointer(arg)); err != nil {
		return nil, err
	}
	if int(n) > len(quote) {
		return nil, fmt.Errorf("a quote of %d bytes in %d", n, len(quote))
	}
	return quote[:n], nil
}

// size is that of the next quote.
func size(f *os.File) (uint32, error) {
	n := new(uint32)
	if err := ioctl(f, requestSize, unsafe.Pointer(n)); err != nil {
		return 0, err
	}
	if *n == 0 || *n > maxQuote {
		return 0, fmt.Errorf("a quote of %d bytes, want 1 to %d", *n, maxQuote)
	}
	return *n, nil
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}
