//go:build linux

package sidecar

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/outwash/outwash/internal/stocksqlite"
)

// locked databases for tests of the guard alone: no capture, no engine.
func guarded(t *testing.T) (*stocksqlite.Process, *guard) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "t.db")
	p := stocksqlite.Start(t, path)
	p.Must("PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0; PRAGMA busy_timeout=0")
	p.Must(table)
	p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
	g, err := newGuard(path, false)
	must(t, err)
	t.Cleanup(g.release)
	return p, g
}

func index(t *testing.T, g *guard) (maxFrame, backfilled uint32, salt [2]uint32) {
	t.Helper()
	idx, err := g.index()
	must(t, err)
	return idx.MaxFrame, idx.Backfilled, idx.Salt
}

// TestSlotAbove: with a slot above 0 and a mark that isn't used, PASSIVE and FULL
// checkpoints complete at once, without a busy handler; RESTART and TRUNCATE don't,
// nor does the next writer restart the log.
func TestSlotAbove(t *testing.T) {
	p, g := guarded(t)
	if g.slot < 2 || g.marked {
		t.Fatalf("the guard has slot %d", g.slot)
	}
	for _, mode := range []string{"PASSIVE", "FULL"} {
		p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
		ck, err := p.Checkpoint(mode)
		must(t, err)
		if ck.Busy != 0 || ck.Done != ck.Log || ck.Log == 0 {
			t.Errorf("%+v", ck)
		}
	}
	before, _, salt := index(t, g)
	for _, mode := range []string{"RESTART", "TRUNCATE"} {
		ck, err := p.Checkpoint(mode)
		must(t, err)
		if ck.Busy != 1 {
			t.Errorf("%s is not held up by the slot: %+v", mode, ck)
		}
	}
	p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
	if after, _, now := index(t, g); after <= before || now != salt {
		t.Errorf("the log was restarted under the slot: frame %d, before %d", after, before)
	}
}

// TestNoSlot shows the teeth of TestSlotAbove: without the slot the next writer
// restarts the log.
func TestNoSlot(t *testing.T) {
	p, g := guarded(t)
	g.dropSlot()
	before, _, salt := index(t, g)
	if ck, err := p.Checkpoint("PASSIVE"); err != nil || ck.Done != ck.Log {
		t.Fatal(ck, err)
	}
	p.Must("INSERT INTO t(a) VALUES(1)")
	if after, _, now := index(t, g); after >= before || now == salt {
		t.Errorf("the log was not restarted: frame %d, before %d", after, before)
	}
}

// TestSlotZero: while slot 0 is held the log can be restarted if all of it is in
// the file, by a writer or by TRUNCATE, and then nothing of it is backfilled, so that
// it can't be restarted again as long as it has content.
func TestSlotZero(t *testing.T) {
	for _, how := range []string{"writer", "RESTART", "TRUNCATE"} {
		t.Run(how, func(t *testing.T) {
			p, g := guarded(t)
			if ck, err := p.Checkpoint("PASSIVE"); err != nil || ck.Done != ck.Log {
				t.Fatal(ck, err)
			}
			if ok, err := g.takeZero(); !ok || err != nil {
				t.Fatal(ok, err)
			}
			g.dropSlot()
			_, _, salt := index(t, g)
			if how != "writer" {
				if ck, err := p.Checkpoint(how); err != nil || ck.Busy != 0 {
					t.Fatal(ck, err)
				}
			}
			p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
			frames, backfilled, first := index(t, g)
			if first == salt || frames == 0 || backfilled != 0 {
				t.Fatalf("the log was not restarted: %d frames, %d backfilled", frames, backfilled)
			}
			for _, mode := range []string{"PASSIVE", "FULL", "RESTART", "TRUNCATE"} {
				if ck, err := p.Checkpoint(mode); err != nil || ck.Done != 0 {
					t.Errorf("%+v, %v", ck, err)
				}
				p.Must("INSERT INTO t(a) VALUES(1)")
				now, backfilled, salt := index(t, g)
				if now <= frames || backfilled != 0 || salt != first {
					t.Errorf("after %s: %d frames, before %d; %d backfilled; salts %x, before %x", mode, now, frames, backfilled, salt, first)
				}
				frames = now
			}
		})
	}
}

// TestTruncatedAgain: what salts a truncated log begins with says nothing. TRUNCATE
// of an empty log changes them, and another connection begins it with random ones.
func TestTruncatedAgain(t *testing.T) {
	p, g := guarded(t)
	if ok, err := g.takeZero(); !ok || err != nil {
		t.Fatal(ok, err)
	}
	g.dropSlot()
	g.dropZero()
	for range 3 {
		if ck, err := p.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
			t.Fatal(ck, err)
		}
	}
	_, _, salt := index(t, g)
	p.Connection(1).Must("INSERT INTO t(a) VALUES(1)")
	if _, _, now := index(t, g); now[0] == salt[0] {
		t.Logf("the other connection kept salt %08x", now[0]) // one in 2^32
	} else {
		t.Logf("salt-1 went from %08x to %08x", salt[0], now[0])
	}
}

// TestLastClose: the close of the last connection neither checkpoints nor deletes the
// log, and the WAL-index stays.
func TestLastClose(t *testing.T) {
	p, g := guarded(t)
	frames, _, salt := index(t, g)
	must(t, p.CloseConn())
	if _, err := os.Stat(g.path + "-wal"); err != nil {
		t.Error(err)
	}
	if now, backfilled, s := index(t, g); now != frames || backfilled != 0 || s != salt {
		t.Errorf("%d frames of %d, %d backfilled", now, frames, backfilled)
	}
	p.Must("PRAGMA journal_mode") // opens it again
	if now, _, s := index(t, g); now != frames || s != salt {
		t.Errorf("the WAL-index was made anew: %d frames of %d", now, frames)
	}
	if rows, err := p.Query("PRAGMA journal_mode=delete"); err == nil {
		t.Errorf("WAL mode was left under the guard: %v", rows)
	}
}

// TestSlotsTaken: where readers have all slots, the guard shares one of theirs, and
// has one of its own as soon as one is free.
func TestSlotsTaken(t *testing.T) {
	p, g := guarded(t)
	g.dropSlot()
	for n := 1; n <= 4; n++ { // each reader at another frame
		c := p.Connection(n)
		c.Must("BEGIN")
		c.Must("SELECT count(*) FROM t")
		p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
	}
	must(t, g.takeSlot())
	if g.slot == 0 || !g.marked {
		t.Fatalf("slot %d, marked %t", g.slot, g.marked)
	}
	shared := g.slot
	must(t, g.takeSlot())
	if g.slot != shared || !g.marked {
		t.Fatalf("slot %d, marked %t", g.slot, g.marked)
	}
	for n := 1; n <= 4; n++ {
		p.Connection(n).Must("COMMIT")
	}
	must(t, g.takeSlot())
	if g.slot == 0 || g.marked {
		t.Fatalf("slot %d, marked %t", g.slot, g.marked)
	}
	if ck, err := p.Checkpoint("FULL"); err != nil || ck.Busy != 0 || ck.Done != ck.Log {
		t.Fatal(ck, err)
	}
	var b [4]byte
	_, err := g.shm.ReadAt(b[:], 100+4*int64(g.slot))
	must(t, err)
	if m := binary.NativeEndian.Uint32(b[:]); m != notUsed {
		t.Errorf("the mark is %08x", m)
	}
}
