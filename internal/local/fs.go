package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// FS is through what a Dir changes files. Tests put one in its place that forgets
// what was not synced.
type FS interface {
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Rename(from, to string) error
	SyncDir(name string) error
	// SyncFile makes durable what others have written to a file.
	SyncFile(name string) error
	// BootID is the package's.
	BootID() string
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

// BlockFile is a File of which whole blocks are written, whatever is asked for:
// because it is encrypted, say. If the power fails meanwhile the whole block may be
// lost, with what was synced before.
type BlockFile interface {
	File
	BlockSize() int64
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

// SyncFile implements FS.
func (OS) SyncFile(name string) error {
	f, err := openToSync(name)
	if err != nil {
		return err
	}
	return errors.Join(syncData(f), f.Close())
}

// BootID implements FS.
func (OS) BootID() string { return BootID() }

// BootID is the function of this name, of the file system that the directory is on.
func (d *Dir) BootID() string { return d.fs.BootID() }

// SyncFile makes durable what is written to the database file.
func (d *Dir) SyncFile() error { return d.SyncCompanion("") }

// SyncCompanion makes durable what is written to the file beside the database whose
// name has this suffix.
func (d *Dir) SyncCompanion(suffix string) error {
	name := strings.TrimSuffix(d.path, Suffix) + suffix
	if err := d.fs.SyncFile(name); err != nil {
		return fmt.Errorf("local: sync %s: %w", name, err)
	}
	return nil
}

// SyncParent makes durable which files are beside the database.
func (d *Dir) SyncParent() error {
	name := filepath.Dir(d.path)
	if err := d.fs.SyncDir(name); err != nil {
		return fmt.Errorf("local: sync %s: %w", name, err)
	}
	return nil
}
