package replicate

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
)

// Interleavings that internal/model found worth a look, done by the real engine.

// gate stops an engine at a failpoint until it is opened.
type gate struct {
	name        string
	there, open chan struct{}
	once        sync.Once
}

func newGate(name string) *gate {
	return &gate{name: name, there: make(chan struct{}), open: make(chan struct{})}
}

// stopAt makes an engine stop at each gate, at its first passing.
func stopAt(gates ...*gate) func(*EngineOptions) {
	return func(o *EngineOptions) {
		o.Failpoint = func(name string) error {
			for _, g := range gates {
				if g.name == name {
					g.once.Do(func() {
						close(g.there)
						<-g.open
					})
				}
			}
			return nil
		}
	}
}

// Between a listing and the reads that follow it, retention deletes the segment
// that was the last, and a session that slept until then leaves its claim in the
// gap. Who reads that sees a line that does not hold together. It may refuse, but
// it writes nothing, and looking again helps.
func TestReplayStrayClaimReadAtOpen(t *testing.T) {
	inner := objstore.NewMem()
	a := newMachine(t, inner, 1)
	claimed := newGate("log-before")
	p := a.open(stopAt(claimed))
	a.m.commit()
	<-claimed.there
	b := newMachine(t, inner, 2) // reads the claim alone
	q := b.open()
	if err := q.wait(t); err != nil {
		t.Fatal(err)
	}
	close(claimed.open)
	p.sync(t)

	fs := faultstore.New(inner)
	c := newMachine(t, fs, 3) // has no database
	var once sync.Once
	fs.SetHooks(faultstore.Hooks{After: func(_ context.Context, call faultstore.Call, err error) error {
		if call.Op == faultstore.List && call.Key == segment.LogPrefix {
			once.Do(func() {
				a.m.commit()
				p.sync(t)
				prune(t, inner)
				b.m.commit()
				if _, err := q.Sync(within(t)); !errors.Is(err, ErrFenced) {
					t.Errorf("the sleeper: %v", err)
				}
			})
		}
		return err
	}})
	r := c.open()
	err := r.wait(t)
	if !errors.Is(err, ErrMissing) && !errors.Is(err, ErrCorrupt) {
		t.Fatalf("no database, and a line that goes on: %v", err)
	}
	r.kill()
	r = c.open()
	if err := r.wait(t); !errors.Is(err, ErrMissing) {
		t.Fatalf("the second look: %v", err)
	}
	if fs.Count(faultstore.Create) != 0 {
		t.Fatal("it wrote")
	}
	a.m.commit()
	p.sync(t) // the writer isn't disturbed
}

// A large database is taken over, and a copy of it, opened before the snapshot is
// published, does the same once more, and claims; then the first one publishes
// after all. Until the second has, too, the newest TXID has no base: a restore of
// it fails by name, and one by TXID gives everything acknowledged.
func TestReplayFirstContactByTwoCopies(t *testing.T) {
	store := objstore.NewMem()
	small := func(o *EngineOptions) { o.small = 1 }
	a := newMachine(t, store, 1)
	grown(a.m, 300)
	a.m.notOurs = true
	b := copyOf(a, 2)
	publish := newGate("snapshot-before")
	p := a.open(small, stopAt(publish))
	<-publish.there
	export, adopted := newGate("export-before"), newGate("adopt-after")
	q := b.open(small, stopAt(export, adopted))
	<-export.there // it has read and claimed
	close(publish.open)
	acked := p.sync(t)
	close(export.open)
	<-adopted.there

	_, _, err := restoreTo(t, store)
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), segment.SnapshotPrefix) {
		t.Fatalf("a restore without the snapshot: %v", err)
	}
	res, image, err := restoreTo(t, store, func(o *RestoreOptions) { o.TXID = acked })
	if err != nil || string(image) != string(a.m.cur.image()) {
		t.Fatalf("TXID %d: %v, %v", acked, res, err)
	}
	close(adopted.open)
	b.m.commit()
	q.sync(t)
	b.checkNewest()
	a.m.commit()
	if _, err := p.Sync(within(t)); !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
}

// A request whose reply was lost arrives a second time after retention has
// deleted what it created. It means nothing: readers and writers go on behind it.
func TestReplayLateSegmentInGap(t *testing.T) {
	store := objstore.NewMem()
	small := func(o *EngineOptions) { o.small = 1 }
	a := newMachine(t, store, 1)
	grown(a.m, 300)
	a.m.notOurs = true
	p := a.open(small)
	p.sync(t)
	a.m.notOurs = false
	key := segment.LogKey(2) // the adopt entry
	late := get(t, store, key)
	a.m.commit()
	p.sync(t)
	if err := store.Delete(t.Context(), key); err != nil { // the snapshot covers it
		t.Fatal(err)
	}
	a.checkNewest()
	if err := store.Create(t.Context(), key, late); err != nil {
		t.Fatal(err)
	}
	a.checkNewest()
	p.close(t)
	p = a.open(small)
	a.m.commit()
	p.sync(t)
	a.checkNewest()
	p.close(t)
}

// A machine is copied while it runs, with its lineage: the copy takes what the
// original's session still uploads for its own earlier one's. It isn't among what
// waits there, so it decides anew, and is refused; the original goes on.
func TestReplayCopiedLineage(t *testing.T) {
	inner := objstore.NewMem()
	a := newMachine(t, inner, 1)
	p := a.open()
	a.m.commit()
	p.sync(t)
	b := copyOf(a, 2)
	fs := faultstore.New(inner)
	b.store = fs
	lineage, err := p.dir.Lineage()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := local.Open(b.db)
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.SaveLineage(lineage); err != nil {
		t.Fatal(err)
	}
	dir.Close()
	var once sync.Once
	fs.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
		if c.Op == faultstore.Create {
			once.Do(func() { // in front of the copy's claim
				a.m.commit()
				p.sync(t)
			})
		}
		return nil
	}})
	b.m.commit()
	q := b.open()
	if _, err := q.Sync(within(t)); !errors.Is(err, ErrDiverged) && !errors.Is(err, ErrRepair) {
		t.Fatalf("the copy: %v", err)
	}
	a.m.commit()
	p.sync(t)
	a.checkNewest()
	p.close(t)
}
