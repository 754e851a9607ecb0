// Package local keeps what Outwash remembers beside a database, in the
// directory <database>-replicated:
//
//	shipper   flock: the process that replicates this database
//	lineage   which replica the database belongs to, and how far it had come (JSON)
//	position  how far it has come since (JSON, not synced)
//	restored  which end of the replica the database file was made from (JSON)
//	spool     captured entries that the store has not acknowledged yet
//	clean     page hashes and fingerprint after a clean close
//	spool-scratch  pages that a copy has read, if it takes long
//	pending   whether the database has changes that only a comparison can find
//	socket    where the process that replicates it tells how it does
//
// All of it can be deleted without losing data that is in the replica or in the
// database; what is lost is the proof that the two belong together.
package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// Suffix is what the directory's name adds to the database's.
const Suffix = "-replicated"

// ErrBusy means that another process replicates the database.
var ErrBusy = errors.New("local: another process replicates this database")

// ErrInUse means that a program has the database open.
var ErrInUse = errors.New("a program has the database open")

// Dir is the directory beside one database. Its methods are not safe for
// concurrent use, except that Spool and lineage methods may run side by side.
type Dir struct {
	path string
	fs   FS
	lock *flock.Flock
}

// Open makes the directory (mode 0700) if it does not exist, and takes the
// shipper lock without waiting: ErrBusy if another process has it.
func Open(database string) (*Dir, error) { return OpenFS(database, nil) }

// OpenFS is Open on a file system; nil is the system's.
func OpenFS(database string, on FS) (*Dir, error) {
	if on == nil {
		on = OS{}
	}
	d := &Dir{path: database + Suffix, fs: on}
	err := os.Mkdir(d.path, 0o700)
	if err == nil {
		err = on.SyncDir(filepath.Dir(d.path)) // or the spool could be gone with the power
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("local: %w", err)
	}
	d.lock = flock.New(filepath.Join(d.path, "shipper"), flock.SetPermissions(0o600))
	ok, err := d.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("local: lock %s: %w", d.lock.Path(), err)
	}
	if !ok {
		return nil, fmt.Errorf("%w (%s is locked)", ErrBusy, d.lock.Path())
	}
	return d, nil
}

// Path is the directory's name.
func (d *Dir) Path() string { return d.path }

// Close releases the shipper lock.
func (d *Dir) Close() error { return d.lock.Close() }

func (d *Dir) file(name string) string { return filepath.Join(d.path, name) }

// Replace writes a file of the directory so that a reader finds the old or the new content.
func (d *Dir) Replace(name string, b []byte, durable bool) error {
	tmp := d.file(name + ".new")
	f, err := d.fs.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("local: %w", err)
	}
	_, err = f.WriteAt(b, 0)
	if err == nil && durable {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = d.fs.Rename(tmp, d.file(name))
	}
	if err == nil && durable {
		err = d.syncDir()
	}
	if err != nil {
		return fmt.Errorf("local: %w", err)
	}
	return nil
}

func (d *Dir) syncDir() error { return d.fs.SyncDir(d.path) }
