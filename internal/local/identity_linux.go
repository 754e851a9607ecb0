package local

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Identity tells a file from others: it stays while the file is written to, and
// changes when another one takes its name. "" if there is no file. Inodes are used
// again, so the time of birth is part of it where the file system has one. The
// device is not, then: its number can be another one after each start.
func Identity(path string) string {
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_INO|unix.STATX_BTIME, &st) != nil {
		return ""
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		return fmt.Sprintf("%x:%x.%x", st.Ino, st.Btime.Sec, st.Btime.Nsec)
	}
	return fmt.Sprintf("%x:%x", uint64(st.Dev_major)<<32|uint64(st.Dev_minor), st.Ino)
}
