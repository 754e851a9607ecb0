//go:build unix && !linux

package local

import (
	"fmt"
	"os"
	"syscall"
)

// Identity tells a file from others: it stays while the file is written to, and
// changes when another one takes its name. "" if there is no file.
func Identity(path string) string {
	fi, err := os.Stat(path)
	if err != nil {
		return ""
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("%x:%x", st.Dev, st.Ino)
	}
	return ""
}
