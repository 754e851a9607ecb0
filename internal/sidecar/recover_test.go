//go:build linux

package sidecar

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
)

// TestShmDeleted: the WAL-index is deleted while nobody but the sidecar uses the
// database, by hand: its locks are worth nothing then. It begins anew, and what was
// committed meanwhile is not lost.
func TestShmDeleted(t *testing.T) {
	w, p := replicatedWorld(t, Options{hooks: hooks{backoff: 20 * time.Millisecond}})
	p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
	w.sync()
	must(t, p.Close())
	must(t, os.Remove(w.path+"-shm"))
	p = w.stock()
	p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
	w.eventually("begun anew", func() bool { return w.logged("beginning anew") > 0 })
	p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
	w.same()
	if _, zero := w.guardState(); !zero {
		w.eventually("guarded", func() bool { slot, zero := w.guardState(); return slot > 0 || zero })
	}
}

// TestRecovered: a WAL-index whose header a crash left torn is recovered by the next
// reader, from the log; that sets nBackfill back to 0, and loses nothing.
func TestRecovered(t *testing.T) {
	w, p := replicatedWorld(t, Options{})
	p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
	if ck, err := p.Checkpoint("PASSIVE"); err != nil || ck.Done != ck.Log {
		t.Fatal(ck, err)
	}
	w.eventually("slot 0", func() bool { slot, zero := w.guardState(); return zero && slot == 0 })
	shm, err := os.OpenFile(w.path+"-shm", os.O_RDWR, 0)
	must(t, err)
	defer shm.Close()
	_, err = shm.WriteAt(make([]byte, 48), 0) // as a writer that died between the copies
	must(t, err)
	for range 3 {
		p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
		if ck, err := p.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
			t.Fatal(ck, err)
		}
	}
	w.same()
	if n := w.repairs(); n != 0 || w.count(segment.Transaction) != 4 {
		t.Errorf("%d repairs, %d transactions", n, w.count(segment.Transaction))
	}
}

// TestTornIndex: a program is killed between the two copies of the WAL-index's header,
// and nobody opens the database again: what was committed is replicated all the same.
func TestTornIndex(t *testing.T) {
	w, p := replicatedWorld(t, Options{})
	before, s := w.sync(), w.session()
	s.mu.Lock() // nothing is looked at meanwhile
	p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
	p.Kill()
	shm, err := os.OpenFile(w.path+"-shm", os.O_RDWR, 0)
	must(t, err)
	defer shm.Close()
	_, err = shm.WriteAt(make([]byte, 40), 48)
	must(t, err)
	s.mu.Unlock()
	w.eventually("replicated", func() bool { return w.db.Status().TXID > before })
	w.same()
	if n := w.repairs(); n != 0 {
		t.Errorf("%d repairs", n)
	}
}

// TestDeletedUnseen: log and WAL-index are deleted by hand, and before the sidecar
// learns it there are a log and another one: it must not take that for the one that
// follows what it has.
func TestDeletedUnseen(t *testing.T) {
	w, p := replicatedWorld(t, Options{hooks: hooks{backoff: 20 * time.Millisecond}})
	if ck, err := p.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
		t.Fatal(ck, err)
	}
	must(t, p.Close())
	w.eventually("slot 0", func() bool { slot, zero := w.guardState(); return zero && slot == 0 })
	s := w.session()
	s.mu.Lock() // nothing is looked at meanwhile
	must(t, os.Remove(w.path+"-shm"))
	must(t, os.Remove(w.path+"-wal"))
	p = w.stock()
	p.Must("INSERT INTO t(a) VALUES(randomblob(50000))")
	if ck, err := p.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
		t.Fatal(ck, err)
	}
	p.Must("INSERT INTO t(a) VALUES(1)")
	s.mu.Unlock()
	w.eventually("begun anew", func() bool { return w.logged("beginning anew") > 0 })
	w.same()
}

// TestCloseHoldsNobodyUp: while Close waits for the store, the application truncates
// its log as ever.
func TestCloseHoldsNobodyUp(t *testing.T) {
	w := newWorld(t, Options{})
	p := w.stock()
	p.Must("PRAGMA journal_mode=wal")
	p.Must(table)
	w.ready()
	release, asked := make(chan struct{}), make(chan struct{}, 1000)
	w.store.SetHooks(faultstore.Hooks{Before: func(ctx context.Context, _ faultstore.Call) error {
		asked <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil
	}})
	p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
	<-asked
	closed := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), slowest)
		defer cancel()
		closed <- w.db.Close(ctx)
	}()
	w.eventually("closing", w.db.isClosing)
	for range 3 {
		p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
		if ck, err := p.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
			t.Error(ck, err)
		}
	}
	close(release)
	must(t, <-closed)
	must(t, w.failed())
}

// TestReadersOnAllSlots: readers that stay keep the log from being restarted, and all
// slots taken; every commit is captured, and when they are gone TRUNCATE returns 0.
func TestReadersOnAllSlots(t *testing.T) {
	w, p := walWorld(t, Options{})
	p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
	w.ready()
	before := w.sync()
	n := uint64(0)
	for range 3 {
		for c := 1; c <= 6; c++ { // more than there are slots, each at another frame
			p.Connection(c).Must("BEGIN")
			p.Connection(c).Must("SELECT count(*) FROM t")
			p.Must("INSERT INTO t(a) VALUES(randomblob(5000))")
			n++
		}
		if ck, err := p.Checkpoint("PASSIVE"); err != nil || ck.Busy != 0 {
			t.Fatal(ck, err)
		}
		for c := 1; c <= 6; c++ {
			p.Connection(c).Must("COMMIT")
		}
		if ck, err := p.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
			t.Fatal(ck, err)
		}
	}
	if after := w.sync(); after != before+n {
		t.Errorf("%d commits went from TXID %d to %d", n, before, after)
	}
	w.same()
	if n := w.repairs(); n != 0 {
		t.Errorf("%d repairs", n)
	}
}

// TestUndecided: as long as the store has never answered, nothing can be captured.
// After a few seconds the application's checkpoints go through all the same; what the
// log had is found in the file.
func TestUndecided(t *testing.T) {
	var later atomic.Int64
	began := time.Now() // for capture the time stands still
	w := newWorld(t, Options{hooks: hooks{capture: func(o *capture.Options) {
		o.Now = func() time.Time { return began.Add(time.Duration(later.Load())) }
	}}})
	p := w.stock()
	p.Must("PRAGMA journal_mode=wal")
	p.Must(table)
	w.ready()
	w.close()
	w.store.SetHooks(faultstore.Hooks{Before: func(context.Context, faultstore.Call) error { return faultstore.ErrInjected }})
	w.start()
	w.eventually("unreachable", func() bool { return w.state() == replicate.StateUnreachable })
	p.Must("INSERT INTO t(a) VALUES(1)")
	p.Must("PRAGMA busy_timeout=100")
	ck, err := p.Checkpoint("TRUNCATE")
	if must(t, err); ck.Busy != 1 {
		t.Errorf("the log was let go at once: %+v", ck)
	}
	later.Store(int64(time.Minute))
	p.Must("PRAGMA busy_timeout=60000")
	if ck, err = p.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
		t.Error(ck, err)
	}
	p.Must("INSERT INTO t(a) VALUES(2)")
	if ck, err = p.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
		t.Error(ck, err)
	}
	w.store.SetHooks(faultstore.Hooks{})
	w.same()
	if n := w.count(segment.Repair); n != 1 {
		t.Errorf("%d repairs", n)
	}
}
