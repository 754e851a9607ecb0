package sidecar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/outwash/outwash/internal/wal"
	"golang.org/x/sys/unix"
)

// notUsed is READMARK_NOT_USED.
const notUsed = 0xffffffff

// guard holds the locks that keep a log's content; see the package comment. Only one
// goroutine uses it at a time.
type guard struct {
	path    string
	db, shm *os.File
	log     os.FileInfo // of the -wal
	slot    int         // the read slot above 0 that is held; 0: none
	marked  bool        // it is one with a reader's mark, and limits what is backfilled
	zero    bool        // slot 0 is held
	off     bool        // for tests: no slot is ever held
}

var errLocks = errors.New("sidecar: the database's locks can't be had just now")

// newGuard takes the locks of a database that a connection has open in WAL mode, in
// a read transaction.
func newGuard(path string, off bool) (_ *guard, err error) {
	g := &guard{path: path, off: off}
	defer func() {
		if err != nil {
			g.release()
		}
	}()
	if g.db, err = os.Open(path); err != nil {
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	if g.shm, err = os.OpenFile(path+"-shm", os.O_RDWR, 0); err != nil {
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	if g.log, err = os.Stat(path + "-wal"); err != nil {
		return nil, fmt.Errorf("sidecar: %w", err)
	}
	for _, l := range []struct {
		f        *os.File
		start, n int64
	}{{g.db, sharedFirst, sharedSize}, {g.shm, dmsByte, 1}} {
		ok, err := lock(l.f, unix.F_RDLCK, l.start, l.n)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("%w: %s", errLocks, path)
		}
	}
	if err := g.takeSlot(); err != nil {
		return nil, err
	}
	if !g.same() {
		return nil, fmt.Errorf("%w: %s was replaced meanwhile", errLocks, path)
	}
	return g, nil
}

// release gives all locks back.
func (g *guard) release() {
	for _, f := range []*os.File{g.db, g.shm} {
		if f != nil {
			f.Close()
		}
	}
	g.db, g.shm, g.slot, g.zero = nil, nil, 0, false
}

// same reports whether the files still have their names.
func (g *guard) same() bool {
	db, err1 := g.db.Stat()
	shm, err2 := g.shm.Stat()
	if err1 != nil || err2 != nil {
		return false
	}
	for name, old := range map[string]os.FileInfo{"": db, "-shm": shm, "-wal": g.log} {
		if now, err := os.Stat(g.path + name); err != nil || !os.SameFile(now, old) {
			return false
		}
	}
	return true
}

// index reads what is committed, and backfilled.
func (g *guard) index() (wal.Index, error) { return wal.ReadIndex(g.shm) }

// takeSlot takes a read slot that doesn't limit what is backfilled; if readers have
// them all, one of theirs, for as long as it must be.
func (g *guard) takeSlot() error {
	if g.off {
		g.slot = 4
		return nil
	}
	for k := 4; k >= 2; k-- {
		if k == g.slot {
			continue
		}
		if ok, err := lock(g.shm, unix.F_WRLCK, slotByte+int64(k), 1); err != nil {
			return err
		} else if !ok {
			continue
		}
		// Nobody uses the slot: its mark may be set, as readers and checkpoints do.
		err := g.setMark(k)
		ok := err == nil
		if ok { // from exclusive to shared in one step
			ok, err = lock(g.shm, unix.F_RDLCK, slotByte+int64(k), 1)
		}
		if !ok {
			unlock(g.shm, slotByte+int64(k), 1)
			return err
		}
		g.dropSlot()
		g.slot, g.marked = k, false
		return nil
	}
	if g.slot != 0 {
		return nil // as before
	}
	for range 100 {
		for k := 4; k >= 2; k-- {
			if ok, err := lock(g.shm, unix.F_RDLCK, slotByte+int64(k), 1); err != nil {
				return err
			} else if ok {
				g.slot, g.marked = k, true
				return nil
			}
		}
		// Held exclusively: while somebody sets their marks, or restarts the log.
		time.Sleep(100 * time.Microsecond)
	}
	return fmt.Errorf("%w: %s", errLocks, g.path)
}

func (g *guard) setMark(k int) error {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], notUsed)
	if _, err := g.shm.WriteAt(b[:], 100+4*int64(k)); err != nil {
		return fmt.Errorf("sidecar: %w", err)
	}
	return nil
}

func (g *guard) dropSlot() {
	if g.slot != 0 && !g.off {
		unlock(g.shm, slotByte+int64(g.slot), 1)
	}
	g.slot, g.marked = 0, false
}

// takeZero takes slot 0, unless somebody is backfilling.
func (g *guard) takeZero() (bool, error) {
	if g.off {
		g.zero = true
		return true, nil
	}
	ok, err := lock(g.shm, unix.F_RDLCK, slotByte, 1)
	g.zero = ok
	return ok, err
}

func (g *guard) dropZero() {
	if g.zero && !g.off {
		unlock(g.shm, slotByte, 1)
	}
	g.zero = false
}

// takeWrite keeps others from committing.
func (g *guard) takeWrite() (bool, error) { return lock(g.shm, unix.F_WRLCK, writeByte, 1) }

func (g *guard) dropWrite() { unlock(g.shm, writeByte, 1) }

// alone reports whether nobody else has the database open in WAL mode.
func (g *guard) alone() bool { return !locked(g.shm, dmsByte, 1) }

// writing and checkpointing report whether anybody does; waiting, whether somebody
// does both: a checkpoint that waits to restart the log, or backfills before that.
func (g *guard) writing() bool       { return locked(g.shm, writeByte, 1) }
func (g *guard) checkpointing() bool { return locked(g.shm, ckptByte, 1) }
func (g *guard) waiting() bool       { return g.checkpointing() && g.writing() }
