package sidecar

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Where SQLite's locks are: https://sqlite.org/walformat.html#wal_locks, and
// SHARED_FIRST, SHARED_SIZE in os.h.
const (
	sharedFirst = 0x40000002
	sharedSize  = 510
	writeByte   = 120
	ckptByte    = 121
	slotByte    = 123 // of read slot 0
	dmsByte     = 128
)

// lock tries to take a lock (unix.F_RDLCK, F_WRLCK), or to change one that is held,
// without waiting; false if somebody else has one that conflicts. Locks are those of
// the open file description: other opens of the file, in this process too, are
// somebody else, and closing these takes nothing away.
func lock(f *os.File, kind int16, start, n int64) (bool, error) {
	lk := unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: start, Len: n}
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lk)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
			return false, nil
		case errors.Is(err, unix.EINTR):
			continue
		}
		return false, fmt.Errorf("sidecar: lock %s: %w", f.Name(), err)
	}
}

func unlock(f *os.File, start, n int64) {
	_, _ = lock(f, unix.F_UNLCK, start, n) // of a range it can't fail
}

// locked reports whether anybody else has a lock on the range.
func locked(f *os.File, start, n int64) bool {
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: start, Len: n}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk)
	return err == nil && lk.Type != unix.F_UNLCK
}
