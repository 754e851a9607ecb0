package vfs

import (
	"bytes"
	"context"
	"errors"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/wal"
)

// mainFile is one connection's handle of a replicated database file.
type mainFile struct {
	vfs.File
	db   *database
	conn *sqlite3.Conn
	lock vfs.LockLevel

	checkpoint bool  // between CheckpointStart and CheckpointDone
	refused    error // why the checkpoint must not happen
	playback   bool  // a hot journal is being played back

	// Of a transaction in a rollback-journal mode:
	begun   bool            // capture knows of it
	written capture.Written // since the last commit

	// Of one in WAL mode:
	pageSize    uint32 // of the WAL; 0: not known yet
	commitFrame uint32 // last commit frame written since the last commit
	private     bool   // capture knows from it how far the log is committed
}

var (
	_ vfs.FileUnwrap             = (*mainFile)(nil)
	_ vfs.FileLockState          = (*mainFile)(nil)
	_ vfs.FilePersistWAL         = (*mainFile)(nil)
	_ vfs.FilePowersafeOverwrite = (*mainFile)(nil)
	_ vfs.FileChunkSize          = (*mainFile)(nil)
	_ vfs.FileSizeHint           = (*mainFile)(nil)
	_ vfs.FileHasMoved           = (*mainFile)(nil)
	_ vfs.FileOverwrite          = (*mainFile)(nil)
	_ vfs.FileSync               = (*mainFile)(nil)
	_ vfs.FileCommitPhaseTwo     = (*mainFile)(nil)
	_ vfs.FileBatchAtomicWrite   = (*mainFile)(nil)
	_ vfs.FileCheckpoint         = (*mainFile)(nil)
	_ vfs.FilePragma             = (*mainFile)(nil)
	_ vfs.FileBusyHandler        = (*mainFile)(nil)
	_ vfs.FileSharedMemory       = (*mainFile)(nil)
)

func (f *mainFile) Unwrap() vfs.File               { return f.File }
func (f *mainFile) LockState() vfs.LockLevel       { return vfsutil.WrapLockState(f.File) }
func (f *mainFile) SetPersistWAL(b bool)           { vfsutil.WrapSetPersistWAL(f.File, b) }
func (f *mainFile) PowersafeOverwrite() bool       { return vfsutil.WrapPowersafeOverwrite(f.File) }
func (f *mainFile) SetPowersafeOverwrite(b bool)   { vfsutil.WrapSetPowersafeOverwrite(f.File, b) }
func (f *mainFile) ChunkSize(n int)                { vfsutil.WrapChunkSize(f.File, n) }
func (f *mainFile) HasMoved() (bool, error)        { return vfsutil.WrapHasMoved(f.File) }
func (f *mainFile) Overwrite() error               { return vfsutil.WrapOverwrite(f.File) }
func (f *mainFile) BeginAtomicWrite() error        { return vfsutil.WrapBeginAtomicWrite(f.File) }
func (f *mainFile) CommitAtomicWrite() error       { return vfsutil.WrapCommitAtomicWrite(f.File) }
func (f *mainFile) RollbackAtomicWrite() error     { return vfsutil.WrapRollbackAtomicWrite(f.File) }
func (f *mainFile) BusyHandler(h func() bool)      { vfsutil.WrapBusyHandler(f.File, h) }
func (f *mainFile) SharedMemory() vfs.SharedMemory { return vfsutil.WrapSharedMemory(f.File) }

// SetDB is SQLITE_FCNTL_PDB: the driver tells a file which connection it is of.
func (f *mainFile) SetDB(conn any) { f.conn, _ = conn.(*sqlite3.Conn) }

func (f *mainFile) Lock(l vfs.LockLevel) error {
	err := f.File.Lock(l)
	if err == nil {
		if l == vfs.LOCK_EXCLUSIVE && f.lock < l {
			f.begun = false
		}
		f.lock = l
	}
	return err
}

func (f *mainFile) Unlock(l vfs.LockLevel) error {
	if l <= vfs.LOCK_SHARED && f.lock > l {
		if f.begun { // rolled back
			f.db.capture.RolledBack(&f.written)
		}
		f.playback, f.begun, f.written = false, false, capture.Written{}
	}
	if l < vfs.LOCK_EXCLUSIVE {
		f.giveBack()
	}
	f.lock = l
	return f.File.Unlock(l)
}

// giveBack says that the WAL-index isn't this connection's alone any more.
func (f *mainFile) giveBack() {
	if f.private {
		f.private = false
		f.db.capture.Confirm(0)
	}
}

// SyncSuper comes before each sync of the file, even if that is left out: with it
// a playback ends. A connection that keeps the database to itself doesn't unlock
// it then, nor does it open the journal again.
func (f *mainFile) SyncSuper(s string) error {
	f.playback = false
	return vfsutil.WrapSyncSuper(f.File, s)
}

// WriteAt lets checkpoints write, and the playback of journals that a crash left.
// Other writes are those of transactions in rollback-journal modes.
func (f *mainFile) WriteAt(p []byte, off int64) (int, error) {
	switch {
	case f.checkpoint:
		if f.refused != nil { // Size has failed the checkpoint before
			return 0, vfs.SystemError(f.refused, sqlite3.IOERR_WRITE)
		}
	case !f.playback:
		if err := f.beginWrite(); err != nil {
			if f.has(p, off) { // so does the rollback of what was refused
				return len(p), nil
			}
			return 0, err
		}
		if off == 0 && !wal.IsDatabase(p) {
			return 0, f.db.refuseCiphertext()
		}
		f.written.Add(off, len(p))
	}
	return f.File.WriteAt(p, off)
}

// has reports whether these bytes are what the file has there. SQLite must be let
// roll back, or it goes on with what it has in memory, and reports commits that
// nobody ever reads.
func (f *mainFile) has(p []byte, off int64) bool {
	b := make([]byte, len(p))
	n, _ := f.File.ReadAt(b, off)
	return n == len(p) && bytes.Equal(b, p)
}

// beginWrite comes before each write of a transaction. Only its first write can be
// refused: later ones may be those that roll it back.
func (f *mainFile) beginWrite() error {
	if f.begun {
		return nil
	}
	if err := f.db.writeError(); err != nil {
		return f.db.refuse(err)
	}
	if err := f.db.capture.Writing(); err != nil {
		f.db.log.Warn("write put off", "error", err)
		return vfs.SystemError(err, sqlite3.IOERR_WRITE)
	}
	f.begun = true
	return nil
}

// SizeHint may make the file larger.
func (f *mainFile) SizeHint(n int64) error {
	if !f.checkpoint && !f.playback {
		if err := f.beginWrite(); err != nil {
			return err
		}
	}
	return vfsutil.WrapSizeHint(f.File, n)
}

// CheckpointStart is SQLITE_FCNTL_CKPT_START. It can't fail; Size, which SQLite
// calls next, does it instead.
func (f *mainFile) CheckpointStart() {
	f.checkpoint = true
	if f.refused = f.db.capture.BeforeCheckpoint(); f.refused != nil {
		f.db.log.Warn("checkpoint put off", "error", f.refused)
	}
	vfsutil.WrapCheckpointStart(f.File)
}

func (f *mainFile) CheckpointDone() {
	f.checkpoint = false
	vfsutil.WrapCheckpointDone(f.File)
}

// Size fails a checkpoint that must not happen: busy, so that it's tried again;
// at the last close (which holds EXCLUSIVE) with an I/O error, because there
// SQLite takes busy for done and drops the WAL.
func (f *mainFile) Size() (int64, error) {
	if f.checkpoint && f.refused != nil {
		if f.lock < vfs.LOCK_EXCLUSIVE {
			return 0, sqlite3.BUSY
		}
		return 0, vfs.SystemError(f.refused, sqlite3.IOERR_FSTAT)
	}
	return f.File.Size()
}

// PersistWAL keeps the WAL when the last close could not checkpoint it.
func (f *mainFile) PersistWAL() bool {
	return f.refused != nil || vfsutil.WrapPersistWAL(f.File)
}

// CommitPhaseTwo runs when a transaction is committed and visible, before COMMIT
// returns; in WAL mode no lock is held any more, unless the connection keeps the
// database to itself.
func (f *mainFile) CommitPhaseTwo() error {
	err := vfsutil.WrapCommitPhaseTwo(f.File) // the commit stands whatever it returns
	switch {
	case f.begun:
		f.db.capture.Committed(&f.written)
		f.written, f.begun = capture.Written{}, false
	case f.lock == vfs.LOCK_EXCLUSIVE && f.commitFrame != 0:
		f.private = true
		f.db.capture.Confirm(f.commitFrame)
	default:
		f.db.capture.Signal()
	}
	f.commitFrame = 0
	return err
}

func (f *mainFile) Close() error {
	f.giveBack()
	err := f.File.Close()
	f.db.release(true)
	return err
}

// context is the connection's: interrupting the statement ends what waits.
func (f *mainFile) context() context.Context {
	if f.conn != nil {
		return f.conn.GetInterrupt()
	}
	return context.Background()
}

// walFile is one connection's handle of the WAL.
type walFile struct {
	vfs.File
	main *mainFile
}

var (
	_ vfs.FileUnwrap             = (*walFile)(nil)
	_ vfs.FilePowersafeOverwrite = (*walFile)(nil)
	_ vfs.FileSizeHint           = (*walFile)(nil)
	_ vfs.FileLockState          = (*walFile)(nil)
)

func (f *walFile) Unwrap() vfs.File             { return f.File }
func (f *walFile) PowersafeOverwrite() bool     { return vfsutil.WrapPowersafeOverwrite(f.File) }
func (f *walFile) SetPowersafeOverwrite(b bool) { vfsutil.WrapSetPowersafeOverwrite(f.File, b) }
func (f *walFile) SizeHint(n int64) error       { return vfsutil.WrapSizeHint(f.File, n) }
func (f *walFile) LockState() vfs.LockLevel     { return vfsutil.WrapLockState(f.File) }

func (f *walFile) WriteAt(p []byte, off int64) (int, error) {
	db := f.main.db
	if err := db.writeError(); err != nil {
		return 0, db.refuse(err)
	}
	if off != 0 {
		f.noteFrame(p, off)
		n, err := f.File.WriteAt(p, off)
		if err != nil {
			p = nil
		}
		db.capture.LogWritten(p, off)
		return n, err
	}
	h, err := wal.ParseHeader(p)
	if err != nil || len(p) != wal.HeaderSize {
		return 0, db.refuseCiphertext()
	}
	f.main.pageSize = h.PageSize
	n := 0
	var written error
	err = db.capture.Restart(h, func() error {
		size, err := f.File.Size()
		n, written = f.File.WriteAt(p, off)
		db.capture.LogBegun(h.Salt, size == 0 || err != nil)
		return written
	})
	if errors.Is(err, capture.ErrUnreadable) {
		return 0, db.refuse(err)
	}
	if err != nil && written == nil {
		db.log.Warn("the WAL can't start over yet", "error", err)
		return 0, vfs.SystemError(err, sqlite3.BUSY)
	}
	return n, written
}

// noteFrame remembers where a commit will have ended. Only with EXCLUSIVE locking
// nobody else says it.
func (f *walFile) noteFrame(p []byte, off int64) {
	m := f.main
	if m.lock != vfs.LOCK_EXCLUSIVE || len(p) != wal.FrameHeaderSize {
		return
	}
	if m.pageSize == 0 {
		var b [wal.HeaderSize]byte
		if _, err := f.File.ReadAt(b[:], 0); err != nil {
			return
		}
		h, err := wal.ParseHeader(b[:])
		if err != nil {
			return
		}
		m.pageSize = h.PageSize
	}
	frame := uint32((off-wal.HeaderSize)/wal.FrameSize(m.pageSize)) + 1
	if wal.ParseFrame(p).Commit != 0 {
		m.commitFrame = max(m.commitFrame, frame)
	}
}

// Sync is the database's, for what is uploaded must be durable.
func (f *walFile) Sync(flags vfs.SyncFlag) error {
	return f.main.db.capture.LogSync(func() error { return f.File.Sync(flags) })
}

func (f *walFile) Truncate(size int64) error {
	if size == 0 {
		if err := f.main.db.capture.BeforeTruncate(); err != nil {
			f.main.db.log.Warn("the WAL is not truncated yet", "error", err)
			return vfs.SystemError(err, sqlite3.IOERR_TRUNCATE)
		}
	}
	return f.File.Truncate(size)
}
