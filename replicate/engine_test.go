package replicate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

func TestReplicateAndRestoreEveryTXID(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			mc := newMachine(t, objstore.NewMem(), seed)
			p := mc.open()
			if err := p.wait(t); err != nil {
				t.Fatal(err)
			}
			for i := range 30 {
				mc.m.commit()
				if i%4 == 0 {
					p.sync(t)
				}
				if i == 20 && seed%2 == 0 {
					mc.m.whole(1024)
				}
			}
			p.close(t)
			mc.checkNewest()
			mc.checkAll()
		})
	}
}

func TestReopenContinues(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 1)
	for range 5 {
		p := mc.open()
		mc.m.commit()
		p.sync(t)
		mc.m.commit()
		p.close(t)
		mc.checkNewest()
	}
	h, err := ReadHistory(t.Context(), mc.store)
	if err != nil || len(h.Sessions) != 5 || len(h.Ranges) != 1 || h.Ranges[0].To != h.TXID || h.Sessions[0].Owner == nil {
		t.Fatalf("%+v, %v", h, err)
	}
}

func TestOpenWithoutCommitWritesNoClaim(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 1)
	for range 3 {
		p := mc.open()
		if err := p.wait(t); err != nil {
			t.Fatal(err)
		}
		if txid := p.sync(t); txid != 0 {
			t.Fatal(txid)
		}
		p.close(t)
	}
	if got := keys(t, mc.store, ""); len(got) != 1 || got[0] != segment.InfoKey {
		t.Fatal(got)
	}
}

// A database with content: small ones go into the log, large ones get a snapshot.
func TestFirstContact(t *testing.T) {
	for _, pages := range []int{40, 300} {
		t.Run(fmt.Sprint(pages), func(t *testing.T) {
			mc := newMachine(t, objstore.NewMem(), 7)
			grown(mc.m, pages)
			mc.m.notOurs = true
			p := mc.open()
			if err := p.wait(t); err != nil {
				t.Fatal(err)
			}
			mc.m.commit()
			p.sync(t)
			mc.m.notOurs = false
			p.close(t)
			res := mc.checkNewest()
			snaps := keys(t, mc.store, segment.SnapshotPrefix)
			if large := pages > 200; large != (len(snaps) == 1) || large != (res.Snapshot == 2) {
				t.Fatalf("snapshots %v, restored from %d", snaps, res.Snapshot)
			}
			mc.checkAll()
			p = mc.open() // and on
			mc.m.commit()
			p.sync(t)
			p.close(t)
			mc.checkNewest()
		})
	}
}

// grown gives the model content that no entry tells of.
func grown(m *model, pages int) {
	m.cur = &state{pageSize: 512}
	st := &state{pageSize: m.cur.pageSize}
	for range pages {
		st.pages = append(st.pages, m.page())
	}
	st.sum = checksum(st.pages)
	m.cur, m.states[st.sum], m.entries = st, st, nil
}

// An entry too large for the log goes into a data object.
func TestLargeEntry(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 3)
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	mc.m.mu.Lock()
	large(mc.m, 200)
	mc.m.mu.Unlock()
	mc.m.commit()
	mc.m.commit()
	p.sync(t)
	p.close(t)
	if len(keys(t, mc.store, segment.DataPrefix)) == 0 {
		t.Fatal("no data object")
	}
	mc.checkNewest()
	mc.checkAll()
	p = mc.open()
	mc.m.commit()
	p.sync(t)
	p.close(t)
	mc.checkNewest()
}

func large(m *model, pages int) {
	next := append([][]byte(nil), m.cur.pages...)
	changed := map[uint64]bool{}
	for range pages {
		p := make([]byte, m.cur.pageSize)
		for i := 0; i < len(p); i += 8 {
			binary.LittleEndian.PutUint64(p[i:], m.rng.Uint64())
		}
		next = append(next, p)
		changed[uint64(len(next))] = true
	}
	m.entries = append(m.entries, m.entry(m.cur, next, changed, uint64(len(next)), 1))
	m.hook()
}

func TestMissingDatabase(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 3)
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	p.close(t)
	image := mc.m.cur.image()
	mc.m.missing = true
	p = mc.open()
	if err := p.wait(t); !errors.Is(err, ErrMissing) || !errors.Is(p.WriteError(), ErrMissing) || p.Status().State != StateFailed {
		t.Fatalf("%v, %v", err, p.WriteError())
	}
	p.kill()

	// What was spooled goes first, then the database comes back.
	mc.m.missing = false
	mc.m.commit()
	mc.m.missing, mc.m.spooled = true, true
	restored := 0
	p = mc.open(withRestore(func(tail Tail) error {
		restored++
		mc.m.missing = false
		if tail.Checksum != mc.m.cur.sum {
			t.Errorf("restore at %016x, expected %016x", tail.Checksum, mc.m.cur.sum)
		}
		return nil
	}))
	if err := p.wait(t); err != nil || restored != 1 {
		t.Fatalf("%v, restored %d times", err, restored)
	}
	mc.m.commit()
	p.sync(t)
	p.close(t)
	if bytes.Equal(image, mc.m.cur.image()) {
		t.Fatal("nothing changed")
	}
	mc.checkNewest()
}

func TestRefusesOtherDatabase(t *testing.T) {
	store := objstore.NewMem()
	a := newMachine(t, store, 1)
	p := a.open()
	a.m.commit()
	p.sync(t)
	p.close(t)
	b := newMachine(t, store, 2)
	b.m.commit()
	b.m.commit()
	q := b.open()
	err := q.wait(t)
	if !errors.Is(err, ErrDiverged) || q.WriteError() == nil {
		t.Fatal(err)
	}
	if _, err := q.Sync(within(t)); !errors.Is(err, ErrDiverged) {
		t.Fatal(err)
	}
	if err := q.Close(within(t)); !errors.Is(err, ErrDiverged) {
		t.Fatal(err)
	}
	a.checkNewest()
}
