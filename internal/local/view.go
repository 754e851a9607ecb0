package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// View is what the directory beside a database says, to who neither has the shipper
// lock nor changes anything: an engine may be writing meanwhile.
type View struct {
	Exists  bool // the directory
	InUse   bool // a process replicates the database
	Lineage Lineage
	Pending bool
	// Records are the spool's; their bodies can't be read. SpoolBytes is its size, also
	// if Unreadable says that it isn't a spool as it is on disk: it is encrypted.
	Records    []Record
	SpoolBytes int64
	Unreadable bool
}

// Look reads the directory.
func Look(database string) (v View, err error) {
	d := ReadOnly(database)
	if _, err := os.Stat(d.path); errors.Is(err, fs.ErrNotExist) {
		return v, nil
	}
	v.Exists = true
	if v.InUse, err = d.inUse(); err != nil {
		return v, err
	}
	if v.Lineage, err = d.Lineage(); err != nil {
		return v, err
	}
	if v.Pending, err = d.Pending(); err != nil {
		return v, err
	}
	return v, d.lookSpool(&v)
}

// ReadOnly is the directory to read from, without the lock; only Lineage, Pending and
// ReadFile may be called. It need not exist.
func ReadOnly(database string) *Dir { return &Dir{path: database + Suffix, fs: OS{}} }

// inUse asks for the lock together with other readers, and gives it back at once.
// Who opens the directory at this very moment is told that it is busy, as in a
// rolling restart, and tries again.
func (d *Dir) inUse() (bool, error) {
	name := filepath.Join(d.path, "shipper")
	l := flock.New(name, flock.SetFlag(os.O_RDONLY)) // not made
	defer l.Close()                                  //nolint:errcheck // only read
	ok, err := l.TryRLock()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("local: lock %s: %w", name, err)
	}
	return !ok, nil
}

func (d *Dir) lookSpool(v *View) error {
	f, err := os.Open(d.file("spool"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("local: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("local: %w", err)
	}
	v.SpoolBytes = fi.Size()
	magic := make([]byte, len(spoolMagic))
	if _, err := io.ReadFull(f, magic); err != nil {
		return nil // just made, or torn: nothing is in it
	}
	if string(magic) != spoolMagic {
		v.Unreadable = string(magic) != string(make([]byte, len(magic)))
		return nil
	}
	s := &Spool{dir: d, f: f, block: 1}
	if v.Records, _, err = s.records(v.SpoolBytes); err != nil {
		return fmt.Errorf("local: %s: %w", f.Name(), err)
	}
	for _, r := range v.Records {
		if r.Entry != nil {
			r.Entry.Body = nil
		}
	}
	return nil
}
