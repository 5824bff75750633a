package main

import (
	"os/exec"
	"runtime"
	"syscall"
)

// endsWithUs has the kernel end a command, not yet started, when this process is killed. The goroutine has to stay until the command has
// ended: what the kernel watches is its thread.
func endsWithUs(cmd *exec.Cmd) {
	runtime.LockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
