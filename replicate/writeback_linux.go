package replicate

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteback has the system begin to write to the disk what was written to the
// file, so that the sync in the end has less to wait for. It says nothing about
// what is durable (sync_file_range(2)), so its errors don't matter.
func startWriteback(f *os.File) {
	if c, err := f.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _ = unix.SyncFileRange(int(fd), 0, 0, unix.SYNC_FILE_RANGE_WRITE) })
	}
}
