//go:build !unix

package control

import "io/fs"

func identify(fs.FileInfo) [3]int64 { return [3]int64{} }
