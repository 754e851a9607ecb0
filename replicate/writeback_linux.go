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

// reserve has the system find the place for a file of that size at once: written
// piece by piece in any order, it is looked for again and again. What isn't written
// reads as zeros all the same. Some file systems can't, so errors don't matter.
func reserve(f *os.File, size int64) {
	if c, err := f.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _ = unix.Fallocate(int(fd), 0, 0, size) })
	}
}
