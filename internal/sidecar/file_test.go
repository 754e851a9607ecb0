//go:build linux

package sidecar

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/stocksqlite"
	"github.com/outwash/outwash/replicate"
)

// TestAppears: a database that is missing is replicated once it is there.
func TestAppears(t *testing.T) {
	w := newWorld(t, Options{})
	w.start()
	w.eventually("waiting", func() bool { return strings.Contains(w.db.Status().Error, "no database file") })
	p := w.stock()
	p.Must(table)
	p.Must("INSERT INTO t(a) VALUES(3)")
	w.same()
	if s := w.db.Status(); s.State != replicate.StateReplicating || s.Error != "" {
		t.Errorf("%+v", s)
	}
}

// TestLinkToNothing: a database's name is a link, as to another volume, and the file that
// it leads to is missing. It is restored there, and replicated.
func TestLinkToNothing(t *testing.T) {
	w := newWorld(t, Options{Restore: true})
	p := w.stock()
	p.Must(table)
	p.Must("INSERT INTO t(a) VALUES(42)")
	w.ready()
	w.close()
	must(t, p.Close())
	remove(t, w.path)
	must(t, os.Mkdir(filepath.Join(filepath.Dir(w.path), "app"), 0o755))
	w.opts.Path = filepath.Join(filepath.Dir(w.path), "app", "link.db")
	must(t, os.Symlink("../t.db", w.opts.Path))
	w.again()
	p = stocksqlite.Start(t, w.opts.Path)
	if got := p.Text("SELECT a FROM t"); got != "42" {
		t.Errorf("restored: %s", got)
	}
	p.Must("INSERT INTO t(a) VALUES(43)")
	w.same()
}

// TestLastToClose: whoever is the last to let a database go, all is in its file then, as
// it is without a sidecar; and the next start needn't read it.
func TestLastToClose(t *testing.T) {
	w, p := replicatedWorld(t, Options{})
	p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
	w.sync()
	want := w.image()
	must(t, p.Close())
	w.close()
	got, err := os.ReadFile(w.path)
	must(t, err)
	if err := mirror.Compare(want, got, 4096); err != nil {
		t.Errorf("the file alone: %v", err)
	}
	w.again()
	if n := w.session().capture.Stats().Passes; n != 0 {
		t.Errorf("the next start read the database %d times", n)
	}
}

// TestOnlyTouched: a database whose mode or owner changes, or that gets another name, is
// not written by that, and isn't compared.
func TestOnlyTouched(t *testing.T) {
	w, p := replicatedWorld(t, Options{})
	p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
	for _, empty := range []bool{false, true} {
		mode := "PASSIVE"
		if empty {
			mode = "TRUNCATE"
		}
		if ck, err := p.Checkpoint(mode); err != nil || ck.Busy != 0 {
			t.Fatal(ck, err)
		}
		w.eventually("slot 0", func() bool { slot, zero := w.guardState(); return zero && slot == 0 })
		must(t, os.Chmod(w.path, 0o600))
		must(t, os.Link(w.path, w.path+".backup"))
		must(t, os.Remove(w.path+".backup"))
		s := w.session()
		if over, err := s.capture.Overwritten(); over || err != nil {
			t.Fatal(over, err)
		}
		w.sync()
	}
	p.Must("INSERT INTO t(a) VALUES(1)")
	w.same()
	if n := w.logged("beginning anew"); n != 0 || w.repairs() != 0 {
		t.Errorf("begun anew %d times, %d repairs", n, w.repairs())
	}
}

// TestRestoreMissing: a database that is missing at the start is restored, if that
// was asked for.
func TestRestoreMissing(t *testing.T) {
	w, p := walWorld(t, Options{Restore: true})
	p.Must("INSERT INTO t(a) VALUES(42)")
	w.ready()
	w.close()
	must(t, p.Close())
	remove(t, w.path)
	w.again()
	p = w.stock()
	if got := p.Text("SELECT a FROM t"); got != "42" {
		t.Errorf("restored: %s", got)
	}
	p.Must("INSERT INTO t(a) VALUES(43)")
	w.same()

	// While the sidecar runs it is not made again.
	must(t, p.Close())
	remove(t, w.path)
	w.eventually("refused", func() bool {
		s := w.db.Status()
		return s.State == replicate.StateFailed && strings.Contains(s.Error, "restore")
	})
	time.Sleep(50 * time.Millisecond)
	if _, err := os.Stat(w.path); err == nil {
		t.Error("the database was made again")
	}
}

// TestMissing: without Restore it is refused, and what to do is said.
func TestMissing(t *testing.T) {
	w, p := replicatedWorld(t, Options{})
	w.close()
	must(t, p.Close())
	image, err := os.ReadFile(w.path)
	must(t, err)
	remove(t, w.path)
	w.opts.hooks.backoff = 20 * time.Millisecond
	db := w.start()
	<-db.Ready()
	s := db.Status()
	if s.State != replicate.StateFailed || !strings.Contains(s.Error, "outwash restore") {
		t.Errorf("%+v", s)
	}
	if _, err := db.Sync(t.Context()); !errors.Is(err, replicate.ErrMissing) {
		t.Error(err)
	}
	// It comes back.
	must(t, os.WriteFile(w.path+"-new", image, 0o600))
	must(t, os.Rename(w.path+"-new", w.path))
	w.eventually("replicating", func() bool { return w.state() == replicate.StateReplicating })
	w.same()
	if n := w.logged("replication failed"); n > 1 {
		t.Errorf("the refusal was logged %d times", n)
	}
}

// TestRecreated: a database that is deleted and made anew while it is replicated is
// never mixed with the one before: it is refused, until adopt lets it in.
func TestRecreated(t *testing.T) {
	w, p := walWorld(t, Options{hooks: hooks{backoff: 20 * time.Millisecond}})
	p.Must("INSERT INTO t(a) VALUES(randomblob(20000))")
	w.ready()
	p.Must("INSERT INTO t(a) VALUES('old')")
	w.same()
	old := w.image()
	must(t, p.Close())
	remove(t, w.path)
	p = w.stock()
	p.Must("PRAGMA journal_mode=wal")
	p.Must("CREATE TABLE other(x)")
	p.Must("INSERT INTO other VALUES('new')")
	w.eventually("refused", func() bool {
		s := w.db.Status()
		return s.State == replicate.StateFailed && strings.Contains(s.Error+s.Remedy, "adopt")
	})
	if got := w.restore(0); string(got) != string(old) {
		t.Error("the replica is not what it was")
	}
	// The shipper lock is free in between, so that adopt can run.
	w.eventually("the lock is free", func() bool {
		d, err := local.Open(w.path)
		if err != nil {
			return false
		}
		d.Close()
		return true
	})
}

// TestOverwritten: another database is copied over the file, under its log: the
// change is found, and is the next entry.
func TestOverwritten(t *testing.T) {
	w, p := replicatedWorld(t, Options{})
	p.Must("INSERT INTO t(a) VALUES('old')")
	if ck, err := p.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
		t.Fatal(ck, err)
	}
	w.sync()
	must(t, p.CloseConn())
	w.eventually("slot 0", func() bool { slot, zero := w.guardState(); return zero && slot == 0 })
	other := filepath.Join(t.TempDir(), "other.db")
	c, err := sqlite3.Open("file:" + other)
	must(t, err)
	must(t, c.Exec("PRAGMA journal_mode=wal; CREATE TABLE other(x); INSERT INTO other VALUES(randomblob(30000))"))
	must(t, c.Close())
	b, err := os.ReadFile(other)
	must(t, err)
	must(t, os.WriteFile(w.path, b, 0o600)) // the same inode
	w.eventually("noticed", func() bool { return w.logged("another program than SQLite") > 0 })
	w.same()
	if w.count(segment.Repair) != 1 {
		t.Errorf("%d repairs", w.count(segment.Repair))
	}
}
