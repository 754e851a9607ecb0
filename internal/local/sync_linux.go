package local

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// syncData makes a file's content and size durable. Its times needn't be: they alone
// would cost a commit of the file system's journal, which others wait for.
func syncData(f *os.File) error {
	for {
		err := syscall.Fdatasync(int(f.Fd()))
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, syscall.EINTR):
			return &fs.PathError{Op: "sync", Path: f.Name(), Err: err}
		}
	}
}
