package vfs

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

// replicated is the VFS: it wraps another one and hands what happens to
// databases that have a replica on to their capture.
type replicated struct {
	opts      Options
	databases *databases
}

var _ vfs.VFSFilename = (*replicated)(nil)

func newReplicated(opts Options) *replicated {
	return &replicated{opts: opts, databases: &databases{byPath: map[string]*database{}}}
}

func (v *replicated) base() vfs.VFS { return findBase(v.opts.Base) }

func (v *replicated) FullPathname(name string) (string, error) {
	return v.base().FullPathname(name)
}

func (v *replicated) Access(name string, flags vfs.AccessFlag) (bool, error) {
	return v.base().Access(name, flags)
}

// Delete removes a file; of a database's WAL only after the gate.
func (v *replicated) Delete(name string, syncDir bool) error {
	if path, ok := strings.CutSuffix(name, "-wal"); ok {
		if db := v.databases.running(path); db != nil {
			if err := db.capture.BeforeDelete(); err != nil {
				db.log.Warn("the WAL is kept: it has commits that are neither captured nor stored", "error", err)
				return vfs.SystemError(err, sqlite3.IOERR_DELETE)
			}
		}
	}
	err := v.base().Delete(name, syncDir)
	if path, ok := strings.CutSuffix(name, "-journal"); ok && err == nil {
		if db := v.databases.running(path); db != nil {
			db.capture.JournalDeleted(syncDir)
		}
	}
	return err
}

func (v *replicated) Open(name string, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	return vfsutil.WrapOpen(v.base(), name, flags)
}

func (v *replicated) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	const (
		temporary = vfs.OPEN_DELETEONCLOSE | vfs.OPEN_MEMORY
		journals  = vfs.OPEN_WAL | vfs.OPEN_MAIN_JOURNAL
	)
	switch {
	case name == nil:
	case flags&vfs.OPEN_MAIN_DB != 0 && flags&temporary == 0:
		return v.openMain(name, flags)
	case flags&journals != 0:
		main, ok := vfsutil.UnwrapFile[*mainFile](name.DatabaseFile())
		if !ok {
			break
		}
		f, out, err := vfsutil.WrapOpenFilename(v.base(), name, flags)
		if err != nil {
			return f, out, err
		}
		if flags&vfs.OPEN_WAL != 0 {
			return &walFile{File: f, main: main}, out, nil
		}
		// A journal that is opened to be written and not made is a hot one: what it
		// has is put back into a database that crashed in a rollback mode. Whether it
		// is hot SQLite finds out by one that it only reads.
		main.playback = flags&(vfs.OPEN_CREATE|vfs.OPEN_READONLY) == 0
		return f, out, nil
	}
	return vfsutil.WrapOpenFilename(v.base(), name, flags)
}

// openMain opens a database, and before the first time its replication.
func (v *replicated) openMain(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	path := name.String()
	q := name.URIParameters()
	if !mentions(q) || q.Get("replica") == "off" || flags&vfs.OPEN_READONLY != 0 {
		if db := v.databases.join(path); db != nil {
			return v.wrap(db, name, flags)
		}
		return vfsutil.WrapOpenFilename(v.base(), name, flags)
	}
	p, err := parseParams(q, v.opts)
	if err == nil {
		var db *database
		if db, err = v.open(path, p); err == nil {
			return v.wrap(db, name, flags)
		}
	}
	v.opts.logger().Error("open refused", "database", path, "error", err)
	return nil, flags, vfs.SystemError(err, sqlite3.CANTOPEN)
}

// wrap opens the file of a database that is referenced for it.
func (v *replicated) wrap(db *database, name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, out, err := vfsutil.WrapOpenFilename(v.base(), name, flags)
	if err != nil {
		db.release(false)
		return f, out, err
	}
	return &mainFile{File: f, db: db}, out, nil
}

// databases are those of one VFS by path.
type databases struct {
	mu     sync.Mutex
	byPath map[string]*database
}

func (d *databases) all() []*database {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []*database
	for _, db := range d.byPath {
		all = append(all, db)
	}
	return all
}

// running returns the database with this path if it has been started.
func (d *databases) running(path string) *database {
	d.mu.Lock()
	defer d.mu.Unlock()
	if db := d.byPath[path]; db != nil && db.started {
		return db
	}
	return nil
}

// join references the database with this path if it is being replicated.
func (d *databases) join(path string) *database {
	db := d.running(path)
	if db != nil && db.acquire() {
		return db
	}
	return nil
}

// replicaURL is what the DSN, Options or the environment say.
func (v *replicated) replicaURL(path string, p params) (string, error) {
	if p.replica != "" {
		return p.replica, nil
	}
	if v.opts.Replica != nil {
		if u := v.opts.Replica(path); u != "" {
			return u, nil
		}
	}
	if u := os.Getenv(Env); u != "" {
		return u, nil
	}
	return "", fmt.Errorf("vfs: no replica for %s: add replica=URL (or replica=off) to the DSN, set Options.Replica, or $%s", path, Env)
}
