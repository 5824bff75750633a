//go:build unix

package evlog

import (
	"errors"
	"os"
	"syscall"
)

// lock takes the lock of the whole file, which ends with the process at the latest.
func lock(f *os.File) error {
	err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK})
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
		return errLocked
	}
	return err
}
