package main

import (
	"errors"

	"golang.org/x/sys/unix"
)

// keepMemory has the kernel write the memory of this process, in which private keys are, to no disk: there is no core dump, and who has
// no right to all processes can't look into it.
func keepMemory() error {
	return errors.Join(unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}), unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
}
