//go:build unix && !darwin && !freebsd && !netbsd

package capture

import (
	"fmt"
	"os"
	"syscall"
)

// fingerprint of a file: if it is the same, nobody wrote to the file in between,
// as far as the file system's clock can tell.
func fingerprint(path string) string {
	fi, err := os.Stat(path)
	if err != nil {
		return ""
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Sprint(fi.Size(), ":", fi.ModTime().UnixNano())
	}
	return fmt.Sprint(st.Ino, ":", fi.Size(), ":", fi.ModTime().UnixNano(), ":", st.Ctim.Nano())
}
