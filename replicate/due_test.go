package replicate

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

func TestDue(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	ago := func(kind segment.Kind, d time.Duration) lastExport {
		return lastExport{kind: kind, max: 9, at: now.Add(-d)}
	}
	const (
		none     = segment.Kind(0)
		pages    = segment.KindPages
		snapshot = segment.KindSnapshot
	)
	for _, c := range []struct {
		name   string
		change func(d *dueness)
		want   segment.Kind
	}{
		{"nothing yet", func(*dueness) {}, none},
		{"an hour", func(d *dueness) { d.last.at = now.Add(-time.Hour) }, pages},
		{"almost an hour", func(d *dueness) { d.last.at = now.Add(-time.Hour + 1) }, none},
		{"an hour, nothing happened", func(d *dueness) { d.last.at, d.commits = now.Add(-time.Hour), false }, none},
		{"an hour, empty", func(d *dueness) { d.last.at, d.commit = now.Add(-time.Hour), 0 }, none},
		{"much changed", func(d *dueness) { d.cost = 256 << 20 }, pages},
		{"not quite as much", func(d *dueness) { d.cost = 256<<20 - 1 }, none},
		{"an hour, clock went back", func(d *dueness) { d.last.at = now.Add(time.Hour) }, none},
		{"a day", func(d *dueness) { d.snapshot = ago(snapshot, 24*time.Hour) }, snapshot},
		{"a day, nothing happened", func(d *dueness) { d.snapshot, d.commits = ago(snapshot, 24*time.Hour), false }, none},
		{"both", func(d *dueness) { d.snapshot, d.last = ago(snapshot, 24*time.Hour), ago(pages, time.Hour) }, snapshot},
		{"no snapshot yet", func(d *dueness) { d.snapshot, d.last = ago(0, time.Hour), ago(0, time.Hour) }, snapshot},
		{"no snapshot yet, but soon", func(d *dueness) { d.snapshot, d.last = ago(0, time.Minute), ago(0, time.Minute) }, none},
		{"no snapshot, and none wanted", func(d *dueness) {
			d.snapshot, d.last, d.keep.SnapshotEvery = ago(0, time.Hour), ago(0, time.Hour), Forever
		}, pages},
		{"most pages, snapshot soon", func(d *dueness) {
			d.last, d.snapshot, d.pages = ago(pages, time.Hour), ago(snapshot, 12*time.Hour), 501
		}, snapshot},
		{"half of the pages, snapshot soon", func(d *dueness) {
			d.last, d.snapshot, d.pages = ago(pages, time.Hour), ago(snapshot, 12*time.Hour), 500
		}, pages},
		{"most pages, snapshot long after", func(d *dueness) {
			d.last, d.snapshot, d.pages = ago(pages, time.Hour), ago(snapshot, 11*time.Hour), 501
		}, pages},
		{"no page segments wanted", func(d *dueness) { d.last.at, d.cost, d.keep.PagesEvery = now.Add(-10*time.Hour), 1<<40, Forever }, none},
		{"no page segments wanted, a day", func(d *dueness) { d.snapshot, d.keep.PagesEvery = ago(snapshot, 24*time.Hour), Forever }, snapshot},
		{"no page segments wanted, a day, young", func(d *dueness) {
			d.snapshot, d.keep.PagesEvery, d.young = ago(snapshot, 24*time.Hour), Forever, true
		}, snapshot},
		{"no snapshots wanted", func(d *dueness) { d.snapshot, d.keep.SnapshotEvery = ago(snapshot, 240*time.Hour), Forever }, none},
		{"neither wanted", func(d *dueness) {
			d.last, d.keep.SnapshotEvery, d.keep.PagesEvery = ago(pages, 240*time.Hour), Forever, Forever
		}, none},
		{"can't be continued", func(d *dueness) { d.last.at, d.without = now.Add(-time.Hour), true }, snapshot},
		{"can't be continued, but not due", func(d *dueness) { d.without = true }, none},
		{"can't be continued, and no snapshots", func(d *dueness) {
			d.last.at, d.without, d.keep.SnapshotEvery = now.Add(-time.Hour), true, Forever
		}, none},
		{"young: both", func(d *dueness) {
			d.snapshot, d.last, d.young = ago(snapshot, 24*time.Hour), ago(pages, time.Hour), true
		}, pages},
		{"young: a snapshot alone", func(d *dueness) { d.snapshot, d.young = ago(snapshot, 24*time.Hour), true }, none},
		{"young and small", func(d *dueness) { d.snapshot, d.young, d.small = ago(snapshot, 24*time.Hour), true, true }, snapshot},
		{"young: can't be continued", func(d *dueness) { d.last.at, d.without, d.young = now.Add(-time.Hour), true, true }, snapshot},
	} {
		d := dueness{now: now, keep: Keep{}.withDefaults(), most: replayCost, last: ago(pages, time.Minute), snapshot: ago(snapshot, time.Minute),
			commits: true, cost: 1 << 20, pages: 10, commit: 1000}
		c.change(&d)
		if got := d.due(); got != c.want {
			t.Errorf("%s: %v, expected %v", c.name, got, c.want)
		}
	}
}

func TestNextDue(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	d := dueness{keep: Keep{}.withDefaults(), last: lastExport{at: at.Add(time.Hour)}, snapshot: lastExport{at: at}}
	if got := d.next(); !got.Equal(at.Add(2 * time.Hour)) {
		t.Error(got)
	}
	d.keep.PagesEvery = Forever
	if got := d.next(); !got.Equal(at.Add(24 * time.Hour)) {
		t.Error(got)
	}
	d.keep.SnapshotEvery = Forever
	if got := d.next(); !got.IsZero() {
		t.Error(got)
	}
}

func TestMayLook(t *testing.T) {
	at := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		lived      time.Duration
		first, end uint64
		cost       int64
		want       bool
	}{
		{0, 0, 2, 4096, false},
		{time.Minute - 1, 0, 63, 4096, false},
		{time.Minute, 0, 2, 4096, true},
		{0, 0, 2, 16 << 20, true},
		{0, 62, 64, 0, true},
		{0, 64, 66, 0, false},
		{0, 63, 200, 0, true},
	} {
		if got := mayLook(at.Add(c.lived), at, c.first, c.end, c.cost, replayCost); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

// plainChanges is the same said simply: what happened to each page, entry by entry.
type plainChanges struct {
	pages map[uint64]bool
	low   uint64
	cost  int64
}

func plainly(entries []*segment.Entry) plainChanges {
	p := plainChanges{pages: map[uint64]bool{}, low: math.MaxUint64}
	for _, en := range entries {
		p.low = min(p.low, en.MinCommit)
		for no := range p.pages {
			if no > en.MinCommit {
				delete(p.pages, no)
			}
		}
		for no := range entryPages(en) {
			p.pages[no] = true
			p.cost += 512
		}
	}
	return p
}

func (p plainChanges) check(t *testing.T, c *changes) {
	t.Helper()
	if c.minCommit != p.low || c.cost != p.cost || c.pages.Len() != len(p.pages) {
		t.Fatalf("smallest %d, cost %d, %d pages; expected %d, %d, %d", c.minCommit, c.cost, c.pages.Len(), p.low, p.cost, len(p.pages))
	}
	for no := range p.pages {
		if !c.pages.Has(no) {
			t.Fatalf("page %d is missing", no)
		}
	}
}

// Cuts, drops and joins, in any order, leave what an entry-by-entry account says.
func TestTrack(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 8))
		m := newModel(seed)
		tr := newTrack(Tail{TXID: 10})
		from, txid := 0, uint64(10)
		at := map[uint64]int{10: 0} // TXID: entries before
		for range 60 {
			en := m.commit()
			txid += en.Count
			tr.last().entry(en, txid, entryPages(en), 512)
			at[txid] = len(m.entries)
			switch rng.IntN(8) {
			case 0, 1, 2:
				tr.cut()
			case 3:
				tr.join()
			case 4:
				c := tr.pieces[rng.IntN(len(tr.pieces))]
				from = at[c.to]
				tr.drop(c.to, segment.Hash{byte(c.to)})
				if tr.from() != c.to || tr.chain != (segment.Hash{byte(c.to)}) {
					t.Fatalf("dropped up to %d, it begins at %d", c.to, tr.from())
				}
			}
			for _, c := range tr.pieces {
				if c.to > c.from {
					upTo := tr.upTo(c.to)
					if upTo.to != c.to || upTo.from != tr.from() || !upTo.commits {
						t.Fatalf("changes of %d to %d, expected %d to %d", upTo.from, upTo.to, tr.from(), c.to)
					}
					plainly(m.entries[from:at[c.to]]).check(t, upTo)
				}
			}
		}
		tr.drop(12345, segment.Hash{}) // there is no cut: nothing is known of it
		plainly(m.entries[from:]).check(t, tr.join())
	}
}

func TestTrackClaims(t *testing.T) {
	tr := newTrack(Tail{TXID: 3})
	tr.last().claim(4, 7, 99)
	if c := tr.last(); c.commits || c.minCommit != 7 || c.firstMono != 99 || c.to != 4 || c.cost != 0 {
		t.Errorf("%+v", c)
	}
	tr.last().entry(&segment.Entry{Kind: segment.Repair, Whole: true, MinCommit: 9, FirstMono: 100}, 5, entryPages(&segment.Entry{}), 512)
	if c := tr.last(); !c.commits || !c.whole || c.minCommit != 7 || c.firstMono != 99 {
		t.Errorf("%+v", c)
	}
}

// What changed is read from the log's indexes, from any segment's end on; what can't
// be the way from there to the end is refused.
func TestRebuild(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 17)
	for session := range 3 {
		p := mc.open()
		for range 8 {
			mc.m.commit()
			if session == 1 {
				mc.m.mu.Lock()
				large(mc.m, 200)
				mc.m.mu.Unlock()
			}
			p.sync(t)
		}
		p.close(t)
	}
	segs := walk(t, mc.store)
	end := segs[len(segs)-1]
	l := &line{mc.store, end.Header.Database}
	after := func(o *segment.Object) lastExport {
		return lastExport{max: o.Header.MaxTXID, sum: o.Header.Post, commit: o.Header.Commit, pageSize: o.Header.PageSize, chain: o.Chain}
	}
	external := 0
	for i, o := range segs[:len(segs)-1] {
		if o.Header.External {
			external++
		}
		c, err := l.rebuild(t.Context(), after(o), end.Header.MaxTXID, end.Chain, 0)
		if err != nil {
			t.Fatal(err)
		}
		n := 0 // entries before
		for n < len(mc.m.entries) && (o.Header.Commit == 0 || mc.m.entries[n].Post != o.Header.Post) {
			n++
		}
		if n++; o.Header.Commit == 0 {
			n = 0
		}
		want := plainly(mc.m.entries[n:])
		for _, s := range segs[i+1:] { // claims count for the smallest size
			want.low = min(want.low, s.Header.MinCommit)
		}
		want.check(t, c)
		if c.from != o.Header.MaxTXID || c.to != end.Header.MaxTXID || c.whole || c.firstMono != segs[i+1].Header.FirstMono {
			t.Fatalf("%+v", c)
		}
	}
	if external == 0 {
		t.Error("no data object")
	}
	base, to := after(segs[4]), end.Header.MaxTXID
	foreign, other := base, base
	foreign.chain[0]++
	other.pageSize = 1024
	if c, err := l.rebuild(t.Context(), other, to, end.Chain, 0); err != nil || !c.whole {
		t.Errorf("another page size: %v", err)
	}
	for name, f := range map[string]func() error{
		"another line's export": func() error { _, err := l.rebuild(t.Context(), foreign, to, end.Chain, 0); return err },
		"another line's end":    func() error { _, err := l.rebuild(t.Context(), base, to, base.chain, 0); return err },
		"an end that isn't one": func() error { _, err := l.rebuild(t.Context(), base, to+1, end.Chain, 0); return err },
		"no log":                func() error { _, err := l.rebuild(t.Context(), after(end), to+3, end.Chain, 0); return err },
		"a gap": func() error {
			reduced := clone(t, mc.store)
			if err := reduced.Delete(t.Context(), segment.LogKey(segs[6].Header.MinTXID)); err != nil {
				return err
			}
			_, err := (&line{reduced, l.database}).rebuild(t.Context(), base, to, end.Chain, 0)
			return err
		},
	} {
		if err := f(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := l.rebuild(t.Context(), base, to, end.Chain, 1000); !errors.Is(err, errTooMuch) {
		t.Error(err)
	}
}
