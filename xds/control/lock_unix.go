//go:build unix

package control

import (
	"errors"
	"os"
	"syscall"
)

// lockFile locks a file as long as it is open: two processes with one history would each break the other's.
func lockFile(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errors.New("another process has it")
		}
		return nil, err
	}
	return f, nil
}
