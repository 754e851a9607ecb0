package crashdisk

import (
	"io/fs"
	"os"

	"github.com/outwash/outwash/internal/local"
)

var _ local.FS = (*Disk)(nil)

// OpenFile implements local.FS.
func (d *Disk) OpenFile(path string, flag int, perm fs.FileMode) (local.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(path)
	if n.now == nil && flag&os.O_CREATE != 0 || flag&os.O_TRUNC != 0 {
		if err := d.change(n.now == nil); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	if err := d.opened(path); err != nil {
		f.Close()
		return nil, err
	}
	if flag&os.O_TRUNC != 0 {
		n.now.truncate(0)
	}
	return &file{File: f, disk: d, inode: n.now, path: path}, nil
}

// opened notes that a path was opened, and made if it was not there.
func (d *Disk) opened(path string) error {
	info, err := os.Stat(path)
	if err == nil && d.names[path].now == nil {
		d.set(path, &inode{info: info})
	}
	return err
}

// change says whether something may be changed now; grows: it needs room.
func (d *Disk) change(grows bool) error {
	switch {
	case d.dead:
		return ErrDead
	case grows && d.full:
		return ErrFull
	}
	return nil
}

// Rename implements local.FS.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.change(false); err != nil {
		return err
	}
	a := d.find(from)
	d.find(to)
	if err := os.Rename(from, to); err != nil {
		return err
	}
	d.set(to, a.now)
	d.set(from, nil)
	return nil
}

// SyncDir implements local.FS.
func (d *Disk) SyncDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.change(false); err != nil {
		return err
	}
	d.syncDir(dir)
	return nil
}

// SyncFile implements local.FS.
func (d *Disk) SyncFile(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.change(false); err != nil {
		return err
	}
	if n := d.find(path); n.now != nil {
		d.syncFile(path, n.now, n.ordered)
	}
	return nil
}

// file is a local.File.
type file struct {
	*os.File
	disk  *Disk
	inode *inode
	path  string
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.change(true); err != nil {
		return 0, err
	}
	n, err := f.File.WriteAt(b, off)
	f.inode.write(off, b[:n])
	return n, err
}

func (f *file) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.change(false); err != nil {
		return err
	}
	err := f.File.Truncate(size)
	if err == nil {
		f.inode.truncate(size)
	}
	return err
}

func (f *file) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.change(false); err != nil {
		return err
	}
	f.disk.syncFile(f.path, f.inode, false)
	return nil
}
