//go:build !linux

package admin

import "syscall"

// early can't be done here: between the name and its mode there is a moment.
func early(string, string, syscall.RawConn) error { return nil }
