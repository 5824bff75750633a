//go:build !linux

package pebble

import "syscall"

func attributes() *syscall.SysProcAttr { return nil }
