//go:build !unix

package status

import (
	"io/fs"
	"syscall"
)

func restrict(syscall.RawConn) error { return nil }

func ownerOf(fs.FileInfo) (uid int, ok bool) { return 0, false }
