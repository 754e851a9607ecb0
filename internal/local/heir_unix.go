//go:build unix

package local

import (
	"io/fs"
	"os"
	"syscall"
)

// heir says whose the directory beside a database is to be: -1 leaves it ours. like is
// that directory, or the one in which it is made. See inherit.
func heir(like fs.FileInfo, made bool) (uid, gid int, ok bool) {
	st, isStat := like.Sys().(*syscall.Stat_t)
	if !isStat {
		return -1, -1, true
	}
	return inherit(os.Geteuid(), int(st.Uid), int(st.Gid), like.Mode().Perm(), made)
}
