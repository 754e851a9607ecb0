// Package local keeps what Outwash remembers beside a database, in the
// directory <database>-replicated:
//
//	shipper   flock: the process that replicates this database
//	lineage   which replica the database belongs to, and how far it had come (JSON)
//	spool     captured entries that the store has not acknowledged yet
//	clean     page hashes and fingerprint after a clean close
//	pending   whether the database has changes that only a comparison can find
//
// All of it can be deleted without losing data that is in the replica or in the
// database; what is lost is the proof that the two belong together.
package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
	"github.com/outwash/outwash/internal/segment"
)

// Suffix is what the directory's name adds to the database's.
const Suffix = "-replicated"

// ErrBusy means that another process replicates the database.
var ErrBusy = errors.New("local: another process replicates this database")

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
		on = osFS{}
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

// Lineage says which replica a database belongs to. The zero value is that of a
// database that was never replicated.
type Lineage struct {
	// Database is the replica's database ID; zero: none yet.
	Database segment.ID `json:"database"`
	// Sessions are the sessions that this database's engines opened, oldest
	// first; a session is listed before its first object is created.
	Sessions []segment.ID `json:"sessions"`
	// TXID and Checksum are a position that the database contains at least,
	// numbered by Session.
	TXID     uint64     `json:"txid"`
	Checksum uint64     `json:"checksum"`
	Session  segment.ID `json:"session"`
}

// Known reports whether id is one of the lineage's sessions.
func (l *Lineage) Known(id segment.ID) bool {
	for _, s := range l.Sessions {
		if s == id {
			return true
		}
	}
	return false
}

// maxSessions bounds the lineage: one session a minute for a week.
const maxSessions = 10000

// Lineage reads the lineage; the zero value if there is none or it is torn
// (a torn one proves nothing, which is what the zero value says).
func (d *Dir) Lineage() (Lineage, error) {
	var l Lineage
	b, err := os.ReadFile(d.file("lineage"))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, fmt.Errorf("local: %w", err)
	}
	if json.Unmarshal(b, &l) != nil {
		return Lineage{}, nil
	}
	return l, nil
}

// SaveLineage replaces the lineage atomically; with durable it is on disk when
// the call returns.
func (d *Dir) SaveLineage(l Lineage, durable bool) error {
	if n := len(l.Sessions) - maxSessions; n > 0 {
		l.Sessions = l.Sessions[n:]
	}
	b, err := json.MarshalIndent(l, "", " ")
	if err != nil {
		return fmt.Errorf("local: %w", err)
	}
	return d.Replace("lineage", b, durable)
}

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

// ReadFile reads a file of the directory.
func (d *Dir) ReadFile(name string) ([]byte, error) { return os.ReadFile(d.file(name)) }
