package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/outwash/outwash/internal/segment"
)

// Restored says that a file was made from a replica when this position was the end of
// its line. It is a file of its own, "restored", which who restores writes without the
// shipper lock and no engine ever changes.
//
// It proves less than the positions of sessions do: that the file had reached this very
// end, and no other. So it needs no care afterwards:
//
//   - Once anybody has extended the line, it proves nothing. Two machines that restored
//     the same end and both went on are told apart by the fence: the first one's claim
//     is the end then.
//   - It counts for the file with this identity. Another file that takes the name, an
//     older state say, has another one; so has a copy elsewhere.
//   - It is on disk before the file has its name, and the file's content before that.
//     Who is cut off between leaves a record of a file that nobody has.
//   - It doesn't make the replica's sessions this machine's, so that their uploads are
//     still recognised as somebody else's.
type Restored struct {
	Database segment.ID `json:"database"` // the replica's
	Position
}

// proves reports whether the file is one that was made from t, and t is the line's end
// still.
func (r *Restored) proves(t Tail, file string) bool {
	return r.Of(file) && !t.Database.IsZero() && r.Database == t.Database &&
		r.TXID == t.TXID && r.Checksum == t.Checksum && r.Session == t.Session
}

// Of reports whether it is about the file with this identity.
func (r *Restored) Of(file string) bool { return file != "" && r.File == file }

// Restored reads the record. One that isn't there, is torn, or may not be read, proves
// nothing; so does its zero value.
func (d *Dir) Restored() Restored {
	var r Restored
	b, err := d.ReadFile(restoredName)
	if err != nil || json.Unmarshal(b, &r) != nil {
		return Restored{}
	}
	return r
}

const restoredName = "restored"

// NoteRestored makes it durable that the file temp, which is about to become the
// database, is what r says. undo puts back what was there, if nothing comes of that.
func NoteRestored(database, temp string, r Restored) (undo func(), err error) {
	if r.File = Identity(temp); r.File == "" {
		return nil, fmt.Errorf("local: files can't be told apart here: %w", errors.ErrUnsupported)
	}
	d := ReadOnly(database)
	made, give, err := d.make()
	if err != nil {
		return nil, err
	}
	old, err := d.ReadFile(restoredName)
	had := err == nil
	undo = func() { // as far as it can be
		if had {
			_ = d.Replace(restoredName, old, true)
			return
		}
		_ = os.Remove(d.file(restoredName))
		if made {
			_ = os.Remove(d.path)
		}
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = d.Replace(restoredName, b, true)
	}
	if err == nil {
		err = give(d.file(restoredName))
	}
	if err != nil {
		undo()
		return nil, fmt.Errorf("local: note that %s is restored: %w", database, err)
	}
	return undo, nil
}

// make makes the directory for whoever will use the database: that need not be who
// restores it, if that is root. give makes a file of it theirs.
func (d *Dir) make() (made bool, give func(path string) error, err error) {
	like, err := os.Stat(d.path)
	if errors.Is(err, fs.ErrNotExist) {
		made = true
		like, err = os.Stat(filepath.Dir(d.path))
	}
	if err != nil {
		return false, nil, fmt.Errorf("local: %w", err)
	}
	uid, gid, ok := heir(like, made)
	if !ok {
		return false, nil, fmt.Errorf("local: %s is not made, because others may write in its directory, and it could be in their way", d.path)
	}
	give = func(path string) error {
		if uid < 0 {
			return nil
		}
		return os.Chown(path, uid, gid)
	}
	if !made {
		return false, give, nil
	}
	err = os.Mkdir(d.path, 0o700)
	if errors.Is(err, fs.ErrExist) { // who replicates it was faster
		return false, give, nil
	}
	if err != nil {
		return false, nil, fmt.Errorf("local: %w", err)
	}
	err = give(d.path)
	if err == nil {
		err = d.fs.SyncDir(filepath.Dir(d.path))
	}
	if err != nil {
		_ = os.Remove(d.path)
		return false, nil, fmt.Errorf("local: %w", err)
	}
	return true, give, nil
}

// inherit decides for heir. euid is ours, uid and gid are the directory's, in which the
// new one is made. Who isn't root makes a database that only they can write, and so can
// use the directory. Root may restore for others: for the owner of the directory where
// the database lies; if that is root, then who else may write there isn't known.
func inherit(euid, uid, gid int, mode fs.FileMode, made bool) (toUID, toGID int, ok bool) {
	switch {
	case euid != 0:
		return -1, -1, true
	case uid != 0:
		return uid, gid, true
	case made && (mode&0o002 != 0 || mode&0o020 != 0 && gid != 0):
		return -1, -1, false
	}
	return -1, -1, true
}

// SpoolBehind counts the transactions in the spool beside a database that follow a
// position, as the replica's end tells it. One that can't be read, since it is
// encrypted, has none that are known.
func SpoolBehind(database string, t Tail) (n uint64, err error) {
	var v View
	if err := ReadOnly(database).lookSpool(&v); err != nil {
		return 0, err
	}
	pos, sum, commit := t.WAL, t.Checksum, t.Commit
	for _, r := range v.Records {
		if e := r.Entry; e != nil && r.Before == pos && e.Pre == sum && e.PreCommit == commit {
			n += max(e.Count, 1)
			pos, sum, commit = e.WAL, e.Post, e.Commit
		}
	}
	return n, nil
}
