package vfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/mirror"
)

// filled opens a world's database, and gives it so many KB of rows.
func (w *world) filled(journal string, rows int) *sqlite3.Conn {
	w.t.Helper()
	c := w.open("_pragma=journal_mode(" + journal + ")")
	exec(w.t, c, fmt.Sprintf(`CREATE TABLE t(a INTEGER PRIMARY KEY, b);
		WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n WHERE x<%d) INSERT INTO t SELECT x, randomblob(1000) FROM n`, rows))
	return c
}

// TestCopyHoldsNobody: while a copy waits for the store, the application commits,
// and its checkpoints leave nothing in the log, without waiting.
func TestCopyHoldsNobody(t *testing.T) {
	for _, journal := range []string{"wal", "delete"} {
		t.Run(journal, func(t *testing.T) {
			w, h := newCopyWorld(t, "", 64<<10)
			c := w.filled(journal, 2000)
			h.write = func(n int) error {
				if n > 20 {
					return nil
				}
				must(t, c.BusyTimeout(0))
				exec(t, c, fmt.Sprintf("UPDATE t SET b=randomblob(1000) WHERE a%%300=%d", n))
				if journal == "wal" {
					frames, _, err := c.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE)
					if err != nil || frames != 0 {
						t.Errorf("checkpoint: %d frames left, %v", frames, err)
					}
				}
				return nil
			}
			got, err := h.copy(t.Context(), nil)
			must(t, err)
			w.sync()
			h.check([]*copyOf{got})
			w.finish(c)
		})
	}
}

// TestCopyCannotKeepUp: a database of which everything changes faster than it can
// be written. The copy ends, with a long pass that goes through a file.
func TestCopyCannotKeepUp(t *testing.T) {
	for _, base := range []string{"", "adiantum"} {
		for _, journal := range []string{"wal", "delete"} {
			t.Run(base+journal, func(t *testing.T) {
				w, h := newCopyWorld(t, base, 16<<10)
				c := w.filled(journal, 200)
				const text = "not for your eyes"
				exec(t, c, "UPDATE t SET b='"+text+"'||hex(b)")
				scratch := false
				h.write = func(int) error {
					b, err := os.ReadFile(filepath.Join(w.path+local.Suffix, "spool-scratch"))
					switch {
					case err == nil && strings.Contains(string(b), text) == (base == ""):
						scratch = true
					case !errors.Is(err, os.ErrNotExist):
						return fmt.Errorf("the scratch file of %d bytes: %w", len(b), err)
					}
					return c.Exec("UPDATE t SET b=substr(b,1,17)||hex(randomblob(990))")
				}
				got, err := h.copy(t.Context(), nil)
				must(t, err)
				if !scratch {
					t.Error("there was no long pass")
				}
				if _, err := os.Stat(filepath.Join(w.path+local.Suffix, "spool-scratch")); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the scratch file is still there: %v", err)
				}
				w.sync()
				h.check([]*copyOf{got})
				w.finish(c)
			})
		}
	}
}

// TestCopyDamaged: a page that is not what was committed is refused. In WAL mode
// nobody can have written it; otherwise another program may have, and what it wrote
// is found by comparing.
func TestCopyDamaged(t *testing.T) {
	for _, journal := range []string{"wal", "delete"} {
		t.Run(journal, func(t *testing.T) {
			w, h := newCopyWorld(t, "", 64<<10)
			c := w.filled(journal, 2000)
			if journal == "wal" {
				exec(t, c, "PRAGMA wal_checkpoint(TRUNCATE)")
			}
			w.sync()
			whole := w.file()
			const page, at = 100, 99*4096 + 2000
			flip := func() {
				t.Helper()
				before, err := os.Stat(w.path)
				must(t, err)
				f, err := os.OpenFile(w.path, os.O_RDWR, 0)
				must(t, err)
				var b [1]byte
				_, err = f.ReadAt(b[:], at)
				must(t, err)
				b[0] ^= 1
				_, err = f.WriteAt(b[:], at)
				must(t, errors.Join(err, f.Close(), os.Chtimes(w.path, before.ModTime(), before.ModTime())))
			}
			if journal == "wal" { // so that the log is not empty, and the file is not looked at
				exec(t, c, "UPDATE t SET b='x' WHERE a=1")
				w.sync()
			}
			flip()
			_, err := h.copy(t.Context(), nil)
			if journal == "delete" {
				// Capture may have looked at the file before, and compared it already.
				if err != nil && !errors.Is(err, local.ErrCopyLost) {
					t.Fatal(err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), slowest)
				defer cancel()
				must(t, w.capture().Capture(ctx))
				got, err := h.copy(ctx, nil)
				must(t, err)
				w.sync()
				h.check([]*copyOf{got})
				w.finish(c)
				return
			}
			if !errors.Is(err, local.ErrDamaged) || !strings.Contains(err.Error(), fmt.Sprintf("page %d of %s", page, w.path)) {
				t.Fatalf("the copy says: %v", err)
			}
			flip()
			got, err := h.copy(t.Context(), nil)
			must(t, err)
			w.sync()
			h.check([]*copyOf{got})
			must(t, mirror.Compare(whole[99*4096:100*4096], got.image[99*4096:100*4096], 4096))
			w.finish(c)
		})
	}
}

// TestCopyLost: what makes the entries emitted less than all that happened ends a
// copy that is under way, and the next one is right.
func TestCopyLost(t *testing.T) {
	for _, test := range []struct {
		name, journal string
		do            func(w *world, c *sqlite3.Conn)
	}{
		{"another program restarts the log", "wal", func(w *world, c *sqlite3.Conn) {
			f := w.foreign()
			exec(w.t, f, "PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET b='they' WHERE a%100=0; PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET b='they' WHERE a%100=1")
			must(w.t, f.Close())
		}},
		{"another program writes the file", "delete", func(w *world, c *sqlite3.Conn) {
			f := w.foreign()
			exec(w.t, f, "UPDATE t SET b='they' WHERE a%100=0")
			must(w.t, f.Close())
		}},
		{"another page size", "delete", func(w *world, c *sqlite3.Conn) { exec(w.t, c, "PRAGMA page_size=1024; VACUUM") }},
		{"the engine begins anew", "wal", func(w *world, c *sqlite3.Conn) {
			exec(w.t, c, "UPDATE t SET b='us' WHERE a%100=0")
			w.sync()
			ctx := w.t.Context()
			tail := local.Tail{Commit: 1} // of anything: it fails, but not before it has begun
			if err := w.capture().Begin(ctx, local.StartRepair, tail); err == nil {
				w.t.Error("began")
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			w, h := newCopyWorld(t, "", 64<<10)
			c := w.filled(test.journal, 1000)
			h.write = func(n int) error {
				if n == 3 {
					test.do(w, c)
				}
				return nil
			}
			if _, err := h.copy(t.Context(), nil); !errors.Is(err, local.ErrCopyLost) {
				t.Fatalf("the copy says: %v", err)
			}
			if strings.HasPrefix(test.name, "the engine") {
				if _, err := h.copy(t.Context(), nil); !errors.Is(err, local.ErrCopyLost) {
					t.Fatalf("a copy before anything is emitted says: %v", err)
				}
				must(t, c.Close())
				return
			}
			h.write = nil
			ctx, cancel := context.WithTimeout(t.Context(), slowest)
			defer cancel()
			must(t, w.capture().Capture(ctx))
			got, err := h.copy(ctx, nil)
			must(t, err)
			w.sync()
			h.check([]*copyOf{got})
			w.finish(c)
		})
	}
}

// TestCopyEnds: the end of its context, an error of a function of its request, and
// that of capture end a copy. Two of them don't run at once.
func TestCopyEnds(t *testing.T) {
	w, h := newCopyWorld(t, "", 64<<10)
	c := w.filled("wal", 1000)
	own := errors.New("the store is full")
	h.write = func(n int) error {
		if n == 2 {
			return own
		}
		return nil
	}
	if _, err := h.copy(t.Context(), nil); !errors.Is(err, own) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	h.write = func(int) error { cancel(); return nil }
	if _, err := h.copy(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	_, err := w.capture().Copy(ctx, local.CopyRequest{Pages: func(ctx context.Context, _ uint64) (*local.PageSet, error) {
		h.write = nil
		if _, err := h.copy(ctx, nil); err == nil || !strings.Contains(err.Error(), "already") {
			t.Errorf("a second copy: %v", err)
		}
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.sync()
	_, err = w.capture().Copy(t.Context(), local.CopyRequest{Pages: func(ctx context.Context, _ uint64) (*local.PageSet, error) {
		must(t, c.Close())
		w.shutdown()
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	if !errors.Is(err, local.ErrCopyLost) {
		t.Error(err)
	}
	w.same()
}

// TestCopyRolledBack: in rollback-journal modes a transaction that is rolled back
// leaves what it wrote into free pages. The copy has the state that the entries
// lead to.
func TestCopyRolledBack(t *testing.T) {
	w, h := newCopyWorld(t, "", 64<<10)
	c := w.filled("delete", 2000)
	exec(t, c, "DELETE FROM t WHERE a>500; PRAGMA cache_size=5")
	w.sync()
	exec(t, c, `BEGIN; WITH RECURSIVE n(x) AS (SELECT 1000 UNION ALL SELECT x+1 FROM n WHERE x<2000) INSERT INTO t SELECT x, randomblob(1000) FROM n; ROLLBACK`)
	before := h.emitted
	got, err := h.copy(t.Context(), nil)
	must(t, err)
	if got.Emitted != before+1 {
		t.Errorf("the copy is at %d, without an entry of what was left behind %d", got.Emitted, before)
	}
	w.sync()
	h.check([]*copyOf{got})
	w.finish(c)
}

// TestCopyAfterStart: a copy of a database that was taken over, that was closed in
// order, and whose process was killed.
func TestCopyAfterStart(t *testing.T) {
	for _, journal := range []string{"wal", "delete"} {
		t.Run(journal, func(t *testing.T) {
			w, h := newCopyWorld(t, "", 64<<10)
			w.each = nil // its entries don't begin with an empty database
			w.existing(journal, 2000)
			check := func(w *world) {
				t.Helper()
				h.w = w
				w.sync()
				got, err := h.copy(t.Context(), nil)
				must(t, err)
				must(t, mirror.Compare(w.restore(0), got.image, int(got.PageSize)))
				if got.Emitted == 0 && (got.LastMono != 0 || got.LastRaw != 0) {
					t.Errorf("times of no entry: %+v", got.Copied)
				}
			}
			c := w.open()
			check(w)
			exec(t, c, "UPDATE old SET v=randomblob(1000) WHERE id%200=7")
			check(w)
			must(t, c.Close())
			w.shutdown()
			c = w.open()
			check(w)
			exec(t, c, "UPDATE old SET v=randomblob(1000) WHERE id%100=7")
			w.sync()
			n := w.clone(w.opts)
			must(t, c.Close())
			c = n.open()
			check(n)
			n.finish(c)
		})
	}
}

// TestCopyExclusive: a connection that keeps the database to itself is in the way.
func TestCopyExclusive(t *testing.T) {
	t.Parallel() // it waits for the busy timeout
	w, h := newCopyWorld(t, "", 0)
	c := w.filled("wal", 1000)
	w.sync()
	exec(t, c, "PRAGMA locking_mode=exclusive; UPDATE t SET b='us' WHERE a=1")
	if _, err := h.copy(t.Context(), nil); !errors.Is(err, local.ErrLocked) {
		t.Errorf("the copy says: %v", err)
	}
	w.finish(c)
}
