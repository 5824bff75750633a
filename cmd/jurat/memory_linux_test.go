package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestKeepMemory(t *testing.T) {
	was, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, uintptr(was), 0, 0, 0) })
	if err := keepMemory(); err != nil {
		t.Fatal(err)
	}
	is, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	var limit unix.Rlimit
	if err != nil || is != 0 || unix.Getrlimit(unix.RLIMIT_CORE, &limit) != nil || limit.Cur != 0 || limit.Max != 0 {
		t.Errorf("dumpable %d, %v, core files up to %+v", is, err, limit)
	}
}
