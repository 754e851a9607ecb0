package replicate

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// A few bytes that speak of a database of four billion pages make nobody reserve memory
// for their hashes.
func TestImpliedPagesAreBounded(t *testing.T) {
	snapshot := func(mc *machine, external bool) string {
		log := walk(t, mc.store)
		s := mc.lineStates()[log[len(log)-1].Header.MaxTXID]
		e := &segment.Entry{
			Kind: segment.Snapshot, PageSize: s.header.PageSize, Count: s.header.MaxTXID, Commit: maxPages, MinCommit: maxPages, Post: s.sum,
			FirstMono: s.header.LastMono, LastMono: s.header.LastMono, FirstRaw: s.header.LastMono, LastRaw: s.header.LastMono,
		}
		h := segment.Header{Kind: segment.KindSnapshot, PageSize: s.header.PageSize, Database: s.header.Database, Session: s.header.Session, MinTXID: 1, PrevChain: s.chain}
		all := map[uint64]bool{}
		for no := range s.commit() {
			all[no+1] = true
		}
		return mc.putExport(rand.New(rand.NewPCG(1, 2)), h, e, all, external).key()
	}
	for name, forge := range map[string]func(mc *machine) string{
		"snapshot":          func(mc *machine) string { return snapshot(mc, false) },
		"external snapshot": func(mc *machine) string { return snapshot(mc, true) },
		"log": func(mc *machine) string {
			all := walk(t, mc.store)
			o := all[len(all)-1]
			e := o.Entries[len(o.Entries)-1]
			e.Commit, e.MinCommit = maxPages, maxPages
			b, _, err := segment.Encode(*o.Header, o.Entries)
			if err != nil {
				t.Fatal(err)
			}
			put(t, mc.store, o.Header.Key(), b)
			return o.Header.Key()
		},
	} {
		t.Run(name, func(t *testing.T) {
			mc := newMachine(t, objstore.NewMem(), 5)
			p := mc.open()
			mc.m.commit()
			p.sync(t)
			p.close(t)
			key := forge(mc)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Restore(t.Context(), RestoreOptions{Store: mc.store, Output: filepath.Join(t.TempDir(), "db")})
			r := verify(t, mc.store)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "can't be zero all") || !strings.Contains(err.Error(), key) {
				t.Error(err)
			}
			if !named(r, key) {
				t.Error(showFindings(r))
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 3*16*maxImplied {
				t.Errorf("%d bytes were reserved", n)
			}
		})
	}
}
