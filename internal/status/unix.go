//go:build unix

package status

import (
	"io/fs"
	"syscall"
)

// restrict sets the permissions that a socket's file will have. Not all systems can,
// which is no error.
func restrict(conn syscall.RawConn) error {
	return conn.Control(func(fd uintptr) {
		_ = syscall.Fchmod(int(fd), 0o600)
	})
}

func ownerOf(fi fs.FileInfo) (uid int, ok bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}
