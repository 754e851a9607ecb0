package vfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
)

// TestLockPage: a database of more than 1 GiB has a page that is never written,
// because its bytes are locked (https://sqlite.org/fileformat2.html#the_lock_byte_page).
// It is taken over, grows past that page or uses the pages beside it, shrinks, and
// is restored.
func TestLockPage(t *testing.T) {
	const size = 65536
	lock := segment.LockPage(size)
	for journal, how := range map[string]string{"wal": "beside", "delete": "grows past"} { // each takes seconds
		if testing.Short() && journal == "wal" {
			continue
		}
		t.Run(journal+"/"+how, func(t *testing.T) {
			w := newWorld(t, Options{})
			opts := w.opts
			opts.hooks.source = nil // a mirror of a gigabyte
			Register(w.name, opts)
			c := w.foreign()
			exec(t, c, "PRAGMA page_size=65536; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
			must(t, c.Close())
			if how == "beside" {
				w.freePages(lock+20, lock)
			} else {
				w.freePages(lock-4, 0)
			}
			c = w.open("replica_open_timeout=2m", "_pragma=busy_timeout(120000)", "_pragma=journal_mode("+journal+")")
			exec(t, c, "INSERT INTO t VALUES(1,randomblob(500000))")
			w.sync()
			exec(t, c, "BEGIN; INSERT INTO t VALUES(2,randomblob(500000)); UPDATE t SET b=randomblob(300000) WHERE a=1; COMMIT; INSERT INTO t VALUES(3,randomblob(700000)); DELETE FROM t WHERE a=2")
			w.sync()
			w.sameFile(c)
			if fi, err := os.Stat(w.path); err != nil || fi.Size() <= int64(lock)*size {
				t.Errorf("the test doesn't reach the lock page: %d bytes, %v", fi.Size(), err)
			}
			if s := w.databases()[0].capture.Stats(); s.Repairs > 0 {
				t.Errorf("%+v", s)
			}
			must(t, c.Close())
			w.shutdown()
			// Again, by a scan, and to next to nothing.
			must(t, os.RemoveAll(w.path+"-replicated"))
			c = w.open("replica_open_timeout=2m")
			exec(t, c, "DELETE FROM t; VACUUM; INSERT INTO t VALUES(4,'x')")
			w.sync()
			must(t, c.Close())
			w.shutdown()
			want, err := os.ReadFile(w.path)
			must(t, err)
			got := w.restore(0)
			must(t, mirror.Compare(want, got, size))
			must(t, mirror.Check(got, true))
		})
	}
}

// freePages makes a database of two pages one of n, of which the others are free:
// a hole in the file. first (if not 0) and those behind it are used first; then
// all pages but these are in the freelist twice over, so that it's sound.
func (w *world) freePages(n, first uint64) {
	w.t.Helper()
	const size = 65536
	f, err := os.OpenFile(w.path, os.O_RDWR, 0)
	must(w.t, err)
	defer f.Close()
	be := binary.BigEndian
	var b [4]byte
	put := func(off int64, v uint64) {
		be.PutUint32(b[:], uint32(v))
		_, err := f.WriteAt(b[:], off)
		must(w.t, err)
	}
	must(w.t, f.Truncate(int64(n)*size))
	put(28, n)
	put(24, 99)
	put(92, 99)
	if first == 0 {
		// Pages that nobody uses, as after a crash of a program of long ago.
		return
	}
	var leaves []uint64
	for no := first - 2; no <= n; no++ {
		if no != first {
			leaves = append(leaves, no)
		}
	}
	for no := uint64(5); no < first-2; no++ {
		leaves = append(leaves, no)
	}
	const most = 16000
	for i, trunk := range []uint64{3, 4} {
		mine := leaves[min(i*most, len(leaves)):min((i+1)*most, len(leaves))]
		page := make([]byte, size)
		if i == 0 {
			be.PutUint32(page, 4)
		}
		be.PutUint32(page[4:], uint32(len(mine)))
		for k, no := range mine {
			be.PutUint32(page[8+4*k:], uint32(no))
		}
		_, err := f.WriteAt(page, int64(trunk-1)*size)
		must(w.t, err)
	}
	put(32, 3)
	put(36, uint64(len(leaves))+2)
}

// sameFile compares the database with a restore, after a checkpoint.
func (w *world) sameFile(c *sqlite3.Conn) {
	w.t.Helper()
	exec(w.t, c, "PRAGMA wal_checkpoint(TRUNCATE)")
	w.sync()
	out := filepath.Join(w.t.TempDir(), "restored.db")
	_, err := replicate.Restore(w.t.Context(), replicate.RestoreOptions{Store: w.store, Output: out})
	must(w.t, err)
	defer os.Remove(out)
	a, err := os.Open(w.path)
	must(w.t, err)
	defer a.Close()
	b, err := os.Open(out)
	must(w.t, err)
	defer b.Close()
	for x, y, at := make([]byte, 1<<20), make([]byte, 1<<20), 0; ; at++ {
		n, err := io.ReadFull(a, x)
		m, err2 := io.ReadFull(b, y)
		if n != m || !bytes.Equal(x[:n], y[:n]) {
			w.t.Fatalf("the restore differs in MiB %d (%d and %d bytes)", at, n, m)
		}
		if err != nil && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) && err2 != nil {
			return
		}
		must(w.t, err)
	}
}
