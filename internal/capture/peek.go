package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/wal"
)

// Peeked is what can be told of a database and its replica's end from the files on
// disk, without SQLite.
type Peeked struct {
	// Spooled entries follow the replica's end; their bodies can't be read.
	Spooled []local.Record
	// Commits are in the log behind these: there may be more, but not fewer.
	Commits int
	Logged  time.Time // when the log was last written to, if Commits > 0
	// Whole: the database is proven to be nothing else than the replica's end, and
	// what Spooled and Commits say. Else Why says why that isn't known.
	Whole bool
	Why   string
}

// Peek compares a database that nobody need have opened with the replica's end. It
// follows Evidence, which has to be sure; this one may only not know. view is what
// local.Look has found.
func Peek(path string, view local.View, tail local.Tail) (p Peeked, err error) {
	var f found
	f.follow(tail, view.Records)
	return f.peek(path, view)
}

// peek is Peek once the spool is followed.
func (f *found) peek(path string, view local.View) (p Peeked, err error) {
	p.Spooled = f.entries
	log, err := peekLog(path, f)
	if err != nil {
		return p, err
	}
	switch {
	case view.Unreadable:
		p.Why = "the spool is encrypted"
		return p, nil
	case f.state.commit == 0:
		p.Why = "the replica has nothing of it yet"
		return p, nil
	case view.Pending:
		p.Why = "changes went by that only a comparison with the replica can find"
		return p, nil
	case log.strange:
		p.Why = "its write-ahead log can't be read: the database is encrypted, perhaps"
		return p, nil
	}
	d := &DB{opts: Options{Path: path, Dir: local.ReadOnly(path)}}
	clean, err := d.readClean(f.state)
	if err != nil {
		return p, err
	}
	switch {
	case log.joins || clean != nil:
		p.Commits, p.Whole = log.behind, true
	case log.exists:
		p.Why = "its write-ahead log is not the one that the replica's end is in"
	default:
		p.Why = "its write-ahead log is gone, and no note of a clean close fits the database"
	}
	if p.Commits > 0 {
		p.Logged = log.written
	}
	return p, nil
}

// peeked is what a log says of a state.
type peekedLog struct {
	exists  bool
	strange bool // it is none of SQLite's, as it is on disk
	joins   bool // it has the state, or begins with it
	behind  int  // commits after the state; if it has none of it, all there are
	written time.Time
}

// peekLog counts the commits behind f.state.
func peekLog(path string, f *found) (l peekedLog, err error) {
	file, err := os.Open(path + "-wal")
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return l, fmt.Errorf("capture: %w", err)
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return l, fmt.Errorf("capture: %w", err)
	}
	l.written = fi.ModTime()
	h, err := wal.ReadHeader(file)
	if err != nil {
		// Shorter than a header is what a crash leaves, or a checkpoint.
		l.strange = fi.Size() >= wal.HeaderSize
		return l, nil
	}
	l.exists = true
	at := mark{salt: h.Salt, bigEnd: h.BigEndian, checksum: h.Checksum}
	last := peekLast(path, h)
	if pos := f.state.pos; pos.Frame != 0 && pos.Salt == h.Salt {
		if pos.Frame > uint64(last) {
			return l, nil
		}
		w, err := walk(file, h.PageSize, at, uint32(pos.Frame), &buffers{})
		if err != nil || w.end.frame != uint32(pos.Frame) || w.end.checksum != pos.Checksum {
			return l, err
		}
		at, l.joins = w.end, true
	} else {
		l.joins = f.joined(h.Salt)
	}
	w, err := walk(file, h.PageSize, at, last, &buffers{})
	l.behind = len(w.commits)
	return l, err
}

// peekLast is the frame up to which the log is committed: as the WAL-index says if it
// is this log's, else as a recovery would find.
func peekLast(path string, h wal.Header) uint32 {
	shm, err := os.Open(path + "-shm")
	if err != nil {
		return math.MaxUint32
	}
	defer shm.Close()
	x, err := wal.ReadIndex(shm)
	if err != nil || x.Salt != h.Salt {
		return math.MaxUint32
	}
	return x.MaxFrame
}

// Remembered is the replica's end as this machine saw it last; false if that says too
// little.
func Remembered(l *local.Lineage) (tail local.Tail, ok bool) {
	p := l.Acknowledged()
	return local.Tail{
		TXID: p.TXID, Checksum: p.Checksum, Session: p.Session, Database: l.Database,
		Commit: p.Commit, PageSize: p.PageSize, WAL: p.WAL,
	}, p.PageSize != 0
}
