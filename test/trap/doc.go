// Package trap answers system calls of the running process in the kernel's place, so that unmodified code, third-party
// libraries included, can be tested over a device that is not there.
package trap
