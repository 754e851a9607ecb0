package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/outwash/outwash/internal/local"
)

// stackFile is a file that is read and written through the base.
type stackFile struct {
	mu    sync.Mutex // the base's files have buffers
	base  vfs.File
	plain *os.File
}

func (f *stackFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.base.ReadAt(p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (f *stackFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.base.WriteAt(p, off)
}

// Truncate leaves zeros in what remains of the last block.
func (f *stackFile) Truncate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.base.Truncate(size); err != nil {
		return err
	}
	fi, err := f.plain.Stat()
	if err == nil && fi.Size() > size {
		_, err = f.base.WriteAt(make([]byte, fi.Size()-size), size)
	}
	return err
}

// Stat is that of the file on disk, which has the size of what is read.
func (f *stackFile) Stat() (fs.FileInfo, error) { return f.plain.Stat() }

func (f *stackFile) Name() string     { return f.plain.Name() }
func (f *stackFile) Sync() error      { return f.plain.Sync() }
func (f *stackFile) BlockSize() int64 { return int64(max(1, f.base.SectorSize())) }

func (f *stackFile) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.base.Close(), f.plain.Close())
}

// stackFS keeps the spool as the base keeps the database: it has pages of it.
type stackFS struct {
	local.FS
	stack *stack
}

// files is on what the local state is kept.
func (s *stack) files(on local.FS) local.FS {
	if s == nil {
		return on
	}
	if on == nil {
		on = local.OS{}
	}
	return stackFS{on, s}
}

func (s stackFS) OpenFile(name string, flag int, perm fs.FileMode) (local.File, error) {
	if !strings.HasPrefix(filepath.Base(name), "spool") {
		return s.FS.OpenFile(name, flag, perm)
	}
	plain, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	f, err := s.stack.grab(name, sqlite3.OPEN_READWRITE)
	if err != nil {
		plain.Close()
		return nil, fmt.Errorf("vfs: base VFS %q: %w", s.stack.base, err)
	}
	return &stackFile{base: f, plain: plain}, nil
}
