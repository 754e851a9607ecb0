//go:build unix

package capture

import (
	"io"
	"os"
	"syscall"

	"github.com/outwash/outwash/internal/wal"
)

// Companions makes the log and the WAL-index of a database in WAL mode, if they are
// missing, as SQLite's C library would: with the database's mode, and its owner where
// root makes them (findCreateFileMode and robustFchown in os_unix.c). The driver makes
// them as any file; then programs of another user couldn't write the database any more.
// What fails is for SQLite to say.
func Companions(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return
	}
	var b [100]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return
	}
	if h, ok := wal.ParseDatabaseHeader(b[:]); !ok || !h.WAL {
		return // an empty log would put it into WAL mode
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		n, err := os.OpenFile(path+suffix, os.O_RDWR|os.O_CREATE|os.O_EXCL, fi.Mode().Perm())
		if err != nil {
			continue // it is there
		}
		_ = n.Chmod(fi.Mode().Perm())
		if st, ok := fi.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
			_ = n.Chown(int(st.Uid), int(st.Gid))
		}
		n.Close()
	}
}
