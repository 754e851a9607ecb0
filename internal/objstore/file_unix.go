//go:build unix

package objstore

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// noLinks tells a file system without hard links from a link that failed. EPERM
// is what Linux says of vfat.
func noLinks(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EOPNOTSUPP) ||
		errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EMLINK)
}

func etagOf(st fs.FileInfo) string {
	var ino uint64
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		ino = uint64(sys.Ino)
	}
	return fmt.Sprintf("%x-%x-%x", ino, st.Size(), st.ModTime().UnixNano())
}
