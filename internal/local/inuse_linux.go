package local

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// InUse tells whether anybody has a lock of SQLite's on a database: ErrInUse with the
// process, where the system knows it. In WAL mode each connection that has read has
// one until it is closed, in other modes only while it reads or writes: nil is no proof
// that nobody has the file open. What can't be asked is nil, too.
func InUse(database string) error {
	f, err := os.Open(database)
	if err != nil {
		return nil
	}
	// With locks of the open file description closing it takes nobody's away.
	defer f.Close()
	// PENDING_BYTE, RESERVED_BYTE and the SHARED bytes: https://sqlite.org/src/file/src/os.h
	lk := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: 0x40000000, Len: 512}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lk); err != nil || lk.Type == unix.F_UNLCK {
		return nil
	}
	if lk.Pid > 0 { // -1: of an open file description, or another machine's
		return fmt.Errorf("%w (pid %d)", ErrInUse, lk.Pid)
	}
	return ErrInUse
}
