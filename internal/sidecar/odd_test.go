//go:build linux

package sidecar

import (
	"os"
	"testing"

	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/stocksqlite"
	"github.com/outwash/outwash/internal/wal"
)

const many = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<100) SELECT randomblob(3000) FROM n"

// oddFrames commits a transaction of which a frame has salts and checksum of zero,
// as SQLite 3.40.1 leaves them: it spills pages, spills some of them once more, rolls
// back to a savepoint before both, and spills others. Checksums are then made anew
// from the frame on that was overwritten, and not from the first. The WAL-index is
// right, and so is what readers see.
func (w *world) oddFrames(p *stocksqlite.Process) {
	w.t.Helper()
	p.Must("PRAGMA cache_size=5")
	p.Must("BEGIN")
	p.Must("INSERT INTO t(a) " + many)
	shm, err := os.Open(w.path + "-shm")
	must(w.t, err)
	defer shm.Close()
	idx, err := wal.ReadIndex(shm) // the log may have been restarted
	must(w.t, err)
	log, err := os.OpenFile(w.path+"-wal", os.O_RDWR, 0)
	must(w.t, err)
	defer log.Close()
	fi, err := log.Stat()
	must(w.t, err)
	at := wal.FrameOffset(idx.MaxFrame+2, idx.PageSize)
	if fi.Size() < at+wal.FrameSize(idx.PageSize) {
		w.t.Fatal("nothing was spilled")
	}
	_, err = log.WriteAt(make([]byte, 16), at+8)
	must(w.t, err)
	p.Must("COMMIT")
}

// TestOddFrames: what was committed with frames that don't belong to the log is found
// by a repair, after a checkpoint of the sidecar's own; and commits go on.
func TestOddFrames(t *testing.T) {
	w := newWorld(t, Options{})
	p := w.stock()
	p.Must("PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0")
	p.Must(table)
	p.Must("INSERT INTO t(a) VALUES(1)")
	w.ready()
	w.oddFrames(p)
	w.same()
	if w.count(segment.Repair) != 1 {
		t.Errorf("%d repairs", w.count(segment.Repair))
	}
	before := w.count(segment.Transaction)
	p.Must("INSERT INTO t(a) VALUES(2)")
	p.Must("INSERT INTO t(a) VALUES(3)")
	w.same()
	if n := w.count(segment.Transaction); n != before+2 {
		t.Errorf("two commits after the repair are %d entries", n-before)
	}
}

// TestOddFramesAtStart: the same before the sidecar is started, the first time and
// again.
func TestOddFramesAtStart(t *testing.T) {
	w := newWorld(t, Options{})
	p := w.stock()
	p.Must("PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0")
	p.Must(table)
	p.Must("INSERT INTO t(a) VALUES(1)")
	w.oddFrames(p)
	w.ready()
	w.same()
	w.close()
	w.oddFrames(p)
	w.again()
	w.same()
}
