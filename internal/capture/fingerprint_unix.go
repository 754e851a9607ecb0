//go:build unix && !darwin && !freebsd && !netbsd

package capture

import (
	"fmt"
	"io/fs"
	"syscall"
)

// fileNumber is what else the system knows: the inode, and when it changed.
func fileNumber(fi fs.FileInfo) string {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("%d:%d", st.Ino, st.Ctim.Nano())
	}
	return ""
}
