package crashdisk

import (
	"path/filepath"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

// Register makes the disk a VFS with this name.
func (d *Disk) Register(name string) { vfs.Register(name, diskVFS{d}) }

// count is change, and counts for KillAt.
func (d *Disk) count(grows bool) error {
	if d.left > 0 {
		if d.left--; d.left == 0 {
			d.die()
		}
	}
	return d.change(grows)
}

type diskVFS struct{ disk *Disk }

var _ vfs.VFSFilename = diskVFS{}

func (diskVFS) base() vfs.VFS { return vfs.Find("os") }

func (v diskVFS) FullPathname(name string) (string, error) { return v.base().FullPathname(name) }

func (v diskVFS) Access(name string, flags vfs.AccessFlag) (bool, error) {
	return v.base().Access(name, flags)
}

func (v diskVFS) Delete(path string, syncDir bool) error {
	d := v.disk
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.count(false); err != nil {
		return vfs.SystemError(err, sqlite3.IOERR_DELETE)
	}
	d.find(path).ordered = true
	if err := v.base().Delete(path, false); err != nil {
		return err
	}
	d.set(path, nil)
	if syncDir {
		d.syncDir(filepath.Dir(path))
	}
	return nil
}

func (v diskVFS) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	return vfsutil.WrapOpen(v.base(), name, flags)
}

func (v diskVFS) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	const kept = vfs.OPEN_MAIN_DB | vfs.OPEN_MAIN_JOURNAL | vfs.OPEN_WAL
	if name == nil || flags&kept == 0 || flags&(vfs.OPEN_DELETEONCLOSE|vfs.OPEN_MEMORY) != 0 {
		return vfsutil.WrapOpenFilename(v.base(), name, flags)
	}
	d, path := v.disk, name.String()
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.find(path)
	n.ordered = true
	if n.now == nil && flags&vfs.OPEN_CREATE != 0 {
		if err := d.count(true); err != nil {
			return nil, flags, vfs.SystemError(err, sqlite3.CANTOPEN)
		}
	}
	f, out, err := vfsutil.WrapOpenFilename(v.base(), name, flags)
	if err != nil {
		return f, out, err
	}
	if err := d.opened(path); err != nil {
		f.Close()
		return nil, flags, vfs.SystemError(err, sqlite3.CANTOPEN)
	}
	return &dbFile{File: f, disk: d, inode: n.now, path: path}, out, nil
}

// dbFile is a file that SQLite writes.
type dbFile struct {
	vfs.File
	disk  *Disk
	inode *inode
	path  string
}

var (
	_ vfs.FileLockState          = (*dbFile)(nil)
	_ vfs.FilePersistWAL         = (*dbFile)(nil)
	_ vfs.FilePowersafeOverwrite = (*dbFile)(nil)
	_ vfs.FileHasMoved           = (*dbFile)(nil)
	_ vfs.FileSharedMemory       = (*dbFile)(nil)
)

func (f *dbFile) LockState() vfs.LockLevel       { return vfsutil.WrapLockState(f.File) }
func (f *dbFile) PersistWAL() bool               { return vfsutil.WrapPersistWAL(f.File) }
func (f *dbFile) SetPersistWAL(b bool)           { vfsutil.WrapSetPersistWAL(f.File, b) }
func (f *dbFile) PowersafeOverwrite() bool       { return vfsutil.WrapPowersafeOverwrite(f.File) }
func (f *dbFile) SetPowersafeOverwrite(b bool)   { vfsutil.WrapSetPowersafeOverwrite(f.File, b) }
func (f *dbFile) HasMoved() (bool, error)        { return vfsutil.WrapHasMoved(f.File) }
func (f *dbFile) SharedMemory() vfs.SharedMemory { return vfsutil.WrapSharedMemory(f.File) }

// Lock fails in a dead process: so SQLite neither checkpoints nor rolls back when
// its connections are closed.
func (f *dbFile) Lock(l vfs.LockLevel) error {
	if f.disk.Dead() {
		return vfs.SystemError(ErrDead, sqlite3.IOERR_LOCK)
	}
	return f.File.Lock(l)
}

func (f *dbFile) WriteAt(b []byte, off int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	size, err := f.File.Size()
	if err != nil {
		return 0, err
	}
	if err := f.disk.count(off+int64(len(b)) > size); err == ErrFull {
		return 0, vfs.SystemError(err, sqlite3.FULL)
	} else if err != nil {
		return 0, vfs.SystemError(err, sqlite3.IOERR_WRITE)
	}
	n, err := f.File.WriteAt(b, off)
	f.inode.write(off, b[:n])
	return n, err
}

func (f *dbFile) Truncate(size int64) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.count(false); err != nil {
		return vfs.SystemError(err, sqlite3.IOERR_TRUNCATE)
	}
	err := f.File.Truncate(size)
	if err == nil {
		f.inode.truncate(size)
	}
	return err
}

func (f *dbFile) Sync(vfs.SyncFlag) error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.count(false); err != nil {
		return vfs.SystemError(err, sqlite3.IOERR_FSYNC)
	}
	f.disk.syncFile(f.path, f.inode, true)
	return nil
}
