package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/wal"
)

// What is uploaded must outlive a loss of power here, or the replica would be ahead
// of its database, which nobody but a person can decide about. SQLite doesn't see to
// it in each mode:
//
//   - WAL, synchronous=NORMAL: the log is synced by checkpoints alone
//     (https://sqlite.org/pragma.html#pragma_synchronous).
//   - DELETE: a transaction is committed when its journal is gone
//     (https://sqlite.org/atomiccommit.html#_deleting_the_rollback_journal), but the
//     directory is synced with EXTRA alone: pager_end_transaction (pager.c) gives
//     extraSync to sqlite3OsDelete. Journals that come back are played back.
//   - TRUNCATE: the same function syncs the journal with fullSync alone. PERSIST:
//     zeroJournalHdr does so always; it is synced here all the same.
//   - A log or journal that was just made has a name that may not be durable: SQLite's
//     unix VFS syncs the directory with the first sync of the file; the Go driver,
//     both generations, syncs the file once more instead.
//
// With OFF what is uploaded is made durable, too, as soon as it is. But nothing keeps
// the order of writes then: a log may be begun anew on the disk while its pages, which
// nobody has synced, are not in the file; and a database may be torn. That is found
// out, and refused, when it is opened.

// durable is what a loss of power can't take away, as far as that is known: of the
// log from the writes and syncs of this process's connections, and from its own.
type durable struct {
	mu sync.Mutex
	// The generation of the log that is written now. Frames up to synced are durable.
	// The last whole commit that this process wrote is frame, ends at end, and each of
	// its frames has size bytes.
	salt   [2]uint32
	synced uint32
	frame  uint32
	end    int64
	size   int64
	header int64 // where that of a commit frame is, whose page is to come; 0: nowhere
	// rewrites counts writes before end: syncs under way may have missed them.
	rewrites int

	// What nobody is known to have synced: the database file, its journal, and the
	// directory's names.
	file, journal, names bool
	deleted              bool   // the journal, since the transaction began to write
	settled              uint64 // SyncFile has synced what was settled then, plus 1; 0: nothing

	// A sync that failed is never made good by another one that succeeds: the system
	// may have dropped what it could not write, and said so once
	// (https://wiki.postgresql.org/wiki/Fsync_Errors). A log is done with when its
	// checkpoint, which writes all of it once more, has let another generation begin.
	brokenLog error // of the generation with salt broken
	broken    [2]uint32
	failed    error // of anything else
}

// Durable makes the state at a position of the log durable, or, if it has none, what
// is committed to the file. It is called before that is uploaded, takes no lock that a
// commit waits for, and syncs only what isn't known to be durable: mostly the log, or,
// with synchronous=FULL, nothing.
//
// An error says that the replica may get ahead of the database. It is for who uploads
// to decide that it does all the same.
func (d *DB) Durable(at segment.WALPosition) error {
	if d.opts.Off["durable"] {
		return nil
	}
	s := &d.durable
	s.mu.Lock()
	file, journal, names := s.file, s.journal || d.opts.Guarded, s.names || d.opts.Guarded && at.Frame == 0
	s.mu.Unlock()
	// First what is committed, then the end of the journal that could undo it.
	if file || at.Frame == 0 {
		if err := d.SyncFile(); err != nil {
			return err
		}
	}
	if at.Frame != 0 {
		if err := d.syncLog(at); err != nil {
			return err
		}
	}
	if journal && at.Frame == 0 {
		if err := d.syncOther(&s.journal, func() error { return d.opts.Dir.SyncCompanion("-journal") }); err != nil {
			return err
		}
	}
	if names {
		return d.syncOther(&s.names, d.opts.Dir.SyncParent)
	}
	return nil
}

// syncLog makes the log durable up to a position of it, unless it is.
func (d *DB) syncLog(at segment.WALPosition) error {
	s := &d.durable
	s.mu.Lock()
	if s.salt == [2]uint32{} || d.opts.Guarded && s.salt != at.Salt {
		s.begin(at.Salt)
	}
	ours := s.salt == at.Salt // else another one has begun, or another program's is written
	if ours && at.Frame <= uint64(s.synced) {
		s.mu.Unlock()
		return nil
	}
	t := s.token()
	t.salt, t.frame = at.Salt, uint32(at.Frame)
	if ours {
		t.frame = max(t.frame, s.frame)
	}
	err := s.broke(at.Salt)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := d.failpoint("log-sync"); err != nil {
		return err
	}
	err = d.opts.Dir.SyncCompanion("-wal")
	if errors.Is(err, fs.ErrNotExist) {
		return nil // all of it is in the file
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done(t, err)
	return err
}

// syncOther makes something else durable, and notes it.
func (d *DB) syncOther(owed *bool, sync func() error) error {
	s := &d.durable
	s.mu.Lock()
	err := s.failed
	*owed = false // what comes meanwhile may not be in it
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err = sync(); err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	*owed = true
	if !notTried(err) {
		s.failed = err
	}
	return err
}

// SyncFile makes durable what is written to the database file.
func (d *DB) SyncFile() error {
	s := &d.durable
	settled := d.settled.Load()
	s.mu.Lock()
	done := !s.file && s.settled == settled+1 && s.failed == nil
	s.mu.Unlock()
	if done {
		return nil
	}
	err := d.syncOther(&s.file, d.opts.Dir.SyncFile)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.settled = settled + 1
	}
	return err
}

// notTried reports whether a sync failed before it had begun.
func notTried(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p) && p.Op == "open"
}

// unknown says that nobody knows what of the files is durable.
func (s *durable) unknown() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin([2]uint32{})
	s.file, s.journal, s.names, s.settled = true, true, true, 0
}

// begin is called with mu held when the log has another generation.
func (s *durable) begin(salt [2]uint32) {
	s.salt = salt
	s.synced, s.frame, s.end, s.size, s.header = 0, 0, 0, 0, 0
	s.rewrites++
}

// token is what a sync that begins now makes durable. mu is held.
func (s *durable) token() token { return token{s.salt, s.frame, s.rewrites} }

type token struct {
	salt     [2]uint32
	frame    uint32
	rewrites int
}

// done is called with mu held when a sync of the log has ended.
func (s *durable) done(t token, err error) {
	switch {
	case err != nil && notTried(err):
	case err != nil:
		s.broken, s.brokenLog = t.salt, err
	case t.salt == s.salt && t.rewrites == s.rewrites && s.broke(t.salt) == nil:
		s.synced = max(s.synced, t.frame)
	}
}

// broke returns the error of a failed sync of this generation.
func (s *durable) broke(salt [2]uint32) error {
	if s.brokenLog == nil || s.broken != salt {
		return nil
	}
	return fmt.Errorf("capture: an earlier sync of the WAL failed: %w", s.brokenLog)
}

// LogBegun says that a connection has written the header of a new generation of the
// log; made: into an empty file, whose name may be new.
func (d *DB) LogBegun(salt [2]uint32, made bool) {
	s := &d.durable
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin(salt)
	s.names = s.names || made
}

// LogWritten says that a connection has written p to the log at off, or has failed to,
// if p is nil.
func (d *DB) LogWritten(p []byte, off int64) {
	s := &d.durable
	s.mu.Lock()
	defer s.mu.Unlock()
	if off < s.end { // of a transaction that was rolled back, or its checksums
		s.rewrites++
	}
	if s.synced > 0 && (s.size == 0 || off < wal.HeaderSize+int64(s.synced)*s.size) {
		s.synced = 0 // not that SQLite would
		if s.size > 0 {
			s.synced = uint32((off - wal.HeaderSize) / s.size)
		}
	}
	switch {
	case len(p) == wal.FrameHeaderSize:
		h := wal.ParseFrame(p)
		if h.Salt != s.salt {
			s.begin(h.Salt)
		}
		s.header = 0
		if h.Commit != 0 {
			s.header = off
		}
	case p != nil && s.header != 0 && off == s.header+wal.FrameHeaderSize:
		s.size = wal.FrameHeaderSize + int64(len(p))
		if end := off + int64(len(p)); end > s.end {
			s.end, s.frame = end, uint32((end-wal.HeaderSize)/s.size)
		}
		s.header = 0
	}
}

// LogSync runs a connection's sync of the log.
func (d *DB) LogSync(sync func() error) error {
	s := &d.durable
	s.mu.Lock()
	t := s.token()
	s.mu.Unlock()
	err := sync()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done(t, err)
	return err
}

// JournalDeleted says that the database's rollback journal was removed; durable: and
// its directory synced.
func (d *DB) JournalDeleted(durable bool) {
	s := &d.durable
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deleted = true
	s.names = s.names || !durable
}

// started notes that a transaction without a log writes the database file.
func (s *durable) started() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deleted = false
}

// ended notes that a transaction has ended without a log: by the end of its journal.
func (s *durable) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.journal = s.journal || !s.deleted
	s.deleted = false
}
