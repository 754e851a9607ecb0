package local

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"runtime"
)

// FS is through what a Dir changes files. Tests put one in its place that forgets
// what was not synced.
type FS interface {
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Rename(from, to string) error
	SyncDir(name string) error
}

// File is a file of a Dir.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Name() string
	Stat() (fs.FileInfo, error)
	Sync() error
	Truncate(size int64) error
}

// OS is the FS of the system.
type OS struct{}

// OpenFile is os.OpenFile.
func (OS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err // not a File that has a nil in it
	}
	return f, nil
}

// Rename is os.Rename.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// SyncDir makes the names in a directory durable.
func (OS) SyncDir(name string) error {
	if runtime.GOOS == "windows" { // directories can't be synced there
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
