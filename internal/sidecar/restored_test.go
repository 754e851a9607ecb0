//go:build linux

package sidecar

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
)

// gone makes a world whose database was lost with its machine: the replica has it.
func gone(t *testing.T, opts Options) *world {
	w := newWorld(t, opts)
	p := w.stock()
	p.Must("PRAGMA journal_mode=wal")
	p.Must(table)
	p.Must("INSERT INTO t(a) VALUES(42)")
	w.ready()
	w.close()
	must(t, p.Close())
	remove(t, w.path)
	must(t, os.RemoveAll(w.path+"-replicated"))
	w.opts.hooks.backoff = 20 * time.Millisecond
	return w
}

// fetch restores the database to go on from it, as outwash restore does.
func (w *world) fetch() {
	w.t.Helper()
	_, err := replicate.Restore(context.Background(), replicate.RestoreOptions{Store: w.store, Output: w.path, Database: w.path})
	must(w.t, err)
}

// TestRestoredThenChanged: a unit restores the database and starts the application; the
// sidecar's comes later, and finds it changed.
func TestRestoredThenChanged(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		w := gone(t, Options{})
		must(t, os.Chmod(filepath.Dir(w.path), 0o755))
		w.fetch()
		p := w.stock()
		p.Must("PRAGMA journal_mode=" + mode)
		p.Must("INSERT INTO t(a) VALUES(43)")
		if _, err := p.Checkpoint("TRUNCATE"); mode == "wal" {
			must(t, err)
		}
		p.Must("INSERT INTO t(a) VALUES(44)")
		w.ready()
		p.Must("INSERT INTO t(a) VALUES(45)")
		w.same()
		if n := w.count(segment.Repair); n != 1 {
			t.Errorf("%s: %d repairs", mode, n)
		}
	}
}

// TestRestoredBesideSidecar: the sidecar is there already, refuses the missing database,
// and goes on by itself once it is restored, though it is changed at once.
func TestRestoredBesideSidecar(t *testing.T) {
	w := gone(t, Options{})
	db := w.start()
	<-db.Ready()
	if w.state() != replicate.StateFailed {
		t.Fatalf("%+v", db.Status())
	}
	w.fetch()
	p := w.stock()
	p.Must("INSERT INTO t(a) VALUES(43)")
	w.eventually("replicating", func() bool { return w.state() == replicate.StateReplicating })
	p.Must("INSERT INTO t(a) VALUES(44)")
	w.same()
}

// TestRestoresWhileOthersWait: the sidecar restores the database, and the application,
// which waits for the file, is faster than its first look at what it has made.
func TestRestoresWhileOthersWait(t *testing.T) {
	w := gone(t, Options{Restore: true})
	inner := w.opts.hooks.source
	w.opts.hooks.source = func(s replicate.Source) replicate.Source {
		return &firstLook{Source: inner(s), path: w.path, then: func() {
			p := w.stock()
			p.Must("INSERT INTO t(a) VALUES(43)")
			must(t, p.Close())
		}}
	}
	w.ready()
	p := w.stock()
	p.Must("INSERT INTO t(a) VALUES(44)")
	w.same()
	if n := w.count(segment.Repair); n != 1 || w.logged("level=ERROR") != 0 {
		t.Errorf("%d repairs, %d errors", n, w.logged("level=ERROR"))
	}
}

// TestRestoreBesideSpool: the database is lost during an outage, and the directory beside
// it is not, with commits that are nowhere else. A restore refuses to leave them out, and
// a sidecar that restores has them.
func TestRestoreBesideSpool(t *testing.T) {
	w := newWorld(t, Options{})
	p := w.stock()
	p.Must("PRAGMA journal_mode=wal")
	p.Must(table)
	w.ready()
	w.store.SetHooks(faultstore.Hooks{Before: func(context.Context, faultstore.Call) error { return faultstore.ErrInjected }})
	for range 3 {
		p.Must("INSERT INTO t(a) VALUES(43)")
		if ck, err := p.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
			t.Fatal(ck, err)
		}
	}
	w.eventually("kept", func() bool { return w.db.Status().Spooled >= 3 })
	must(t, p.Close())
	w.crash()
	remove(t, w.path)
	w.store.SetHooks(faultstore.Hooks{})
	_, err := replicate.Restore(t.Context(), replicate.RestoreOptions{Store: w.store, Output: w.path, Database: w.path})
	if !errors.Is(err, replicate.ErrOutputExists) || !strings.Contains(err.Error(), "restore-if-db-not-exists") {
		t.Fatal(err)
	}
	w.opts.Restore = true
	w.again()
	p = w.stock()
	if n := p.Text("SELECT count(*) FROM t"); n != "3" {
		t.Errorf("%s rows", n)
	}
	p.Must("INSERT INTO t(a) VALUES(44)")
	w.same()
}

// firstLook calls then before the first look at a database that is there.
type firstLook struct {
	replicate.Source
	path string
	then func()
}

func (s *firstLook) Evidence(ctx context.Context, tail replicate.Tail) (replicate.Evidence, error) {
	if _, err := os.Stat(s.path); err == nil && s.then != nil {
		s.then()
		s.then = nil
	}
	return s.Source.Evidence(ctx, tail)
}
