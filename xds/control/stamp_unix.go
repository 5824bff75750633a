//go:build unix

package control

import (
	"io/fs"
	"syscall"
)

// identify answers what is of this file alone.
func identify(info fs.FileInfo) [3]int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return [3]int64{int64(st.Dev), int64(st.Ino), changedAt(st)}
	}
	return [3]int64{}
}
