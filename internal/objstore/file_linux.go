package objstore

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// linkNew gives a file its final name unless that is taken. Where the file
// system has no hard links (vfat, some FUSE and SMB mounts), a rename that
// refuses to replace does the same; nothing else is atomic both for readers and
// among writers.
func linkNew(from, to string) error {
	err := os.Link(from, to)
	if err == nil || !noLinks(err) {
		return err
	}
	return renameNew(from, to)
}

func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) {
		return fmt.Errorf("the file system has neither hard links nor renames that don't replace, "+
			"so two writers could not be told apart: %w", ErrUnsupported)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
