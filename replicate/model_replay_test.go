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

// gate stops an engine at a failpoint until it is opened, or the test ends.
type gate struct {
	t           *testing.T
	name        string
	there, open chan struct{}
	once        sync.Once
}

func newGate(t *testing.T, name string) *gate {
	return &gate{t: t, name: name, there: make(chan struct{}), open: make(chan struct{})}
}

// stopAt makes an engine stop at each gate, at its first passing.
func stopAt(gates ...*gate) func(*EngineOptions) {
	return func(o *EngineOptions) {
		o.Failpoint = func(name string) error {
			for _, g := range gates {
				if g.name == name {
					g.once.Do(func() {
						close(g.there)
						select {
						case <-g.open:
						case <-g.t.Context().Done():
						}
					})
				}
			}
			return nil
		}
	}
}

// Between a listing and the reads that follow it, retention deletes the segment
// that was the last, and a session that slept until then leaves its claim in the
// gap. Who reads that sees a line that does not hold together, and looks again.
func TestReplayStrayClaimReadAtOpen(t *testing.T) {
	inner := objstore.NewMem()
	a := newMachine(t, inner, 1)
	claimed := newGate(t, "log-before")
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
	if err := r.wait(t); !errors.Is(err, ErrMissing) {
		t.Fatalf("no database, and a line that goes on: %v", err)
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
	publish := newGate(t, "snapshot-before")
	p := a.open(small, stopAt(publish))
	<-publish.there
	export, adopted := newGate(t, "export-before"), newGate(t, "adopt-after")
	q := b.open(small, stopAt(export, adopted))
	<-export.there // it has read and claimed
	close(publish.open)
	acked := p.sync(t)
	close(export.open)
	<-adopted.there

	_, _, err := restoreTo(t, store)
	if !errors.Is(err, ErrNotRestorable) || !strings.Contains(err.Error(), "TXID 3") {
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

// Power fails while an upload is under way, and takes with it the commit that is
// being uploaded. The database, at the replica's end as far as anybody can see,
// goes on with another commit, and then the upload arrives. Both can't be: it is
// refused by name, and the replica has the one that arrived, nothing mixed.
func TestReplayLateUploadAfterPowerLoss(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	a := newMachine(t, fs, 1)
	a.m.commit()
	p := a.open()
	p.sync(t)
	p.close(t)
	before, entries := a.m.cur, len(a.m.entries)
	p = a.open()
	a.m.commit()
	taken := a.m.cur
	p.sync(t)
	p.kill()
	segs := walk(t, fs.Inner())
	key := segment.LogKey(segs[len(segs)-1].Header.MinTXID)
	late := get(t, fs.Inner(), key) // it has yet to arrive, and nobody was told that it did
	fs.Inner().Delete(t.Context(), key)
	dir, err := local.Open(a.db)
	if err != nil {
		t.Fatal(err)
	}
	if err := dir.NotePosition(local.Position{}); err != nil {
		t.Fatal(err)
	}
	dir.Close()
	a.m.cur, a.m.entries = before, a.m.entries[:entries]

	var once sync.Once
	fs.SetHooks(faultstore.Hooks{Before: func(ctx context.Context, c faultstore.Call) error {
		if c.Op == faultstore.Create {
			once.Do(func() { fs.Inner().Create(ctx, key, late) })
		}
		return nil
	}})
	p = a.open()
	if err := p.wait(t); err != nil {
		t.Fatal(err)
	}
	a.m.commit()
	if _, err := p.Sync(within(t)); !errors.Is(err, ErrRepair) && !errors.Is(err, ErrDiverged) {
		t.Fatal(err)
	}
	if p.WriteError() == nil {
		t.Fatal("writes go on")
	}
	_, image, err := restoreTo(t, fs.Inner())
	if err != nil || string(image) != string(taken.image()) {
		t.Fatalf("the replica: %v", err)
	}
}
