package replicate

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

func TestVerifySubset(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 97)
	grown(mc.m, 3000)
	mc.m.notOurs = true
	p := mc.open(func(o *EngineOptions) { o.small = 1 })
	p.sync(t)
	p.close(t)
	all := whole(t, mc.store, readData)
	sum := int64(0)
	for n := range uint64(5) {
		d := DataSubset{N: n + 1, Of: 5}
		r := whole(t, mc.store, readData, func(o *VerifyOptions) { o.Subset = d })
		if again := whole(t, mc.store, readData, func(o *VerifyOptions) { o.Subset = d }); again.BlocksRead != r.BlocksRead {
			t.Errorf("%v: %d, then %d blocks", d, r.BlocksRead, again.BlocksRead)
		}
		sum += r.BlocksRead
	}
	if sum != all.BlocksRead || all.BlocksRead != all.Blocks || sum == 0 {
		t.Errorf("%d blocks in five parts, %d at once, of %d", sum, all.BlocksRead, all.Blocks)
	}
	for s, ok := range map[string]bool{
		"1/1": true, "3/7": true, "100%": true, "0.5%": true, "0/3": false, "4/3": false, "0%": false, "101%": false, "": false, "7": false, "1/0": false, "x%": false, "NaN%": false, "-1%": false, "1/2%": false,
	} {
		if _, err := ParseDataSubset(s); (err == nil) != ok || err != nil && !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// Whatever a writer and a retention have half done at any moment is no finding.
func TestVerifyWhileWritten(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 98)
	mc.m.rng = rand.New(rand.NewPCG(98, 1))
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	var rounds atomic.Int64
	running.Go(func() {
		for round := 0; ctx.Err() == nil; round++ {
			rounds.Add(1)
			for range 4 {
				mc.m.commit()
				p.sync(t)
			}
			if round%3 == 0 {
				mc.m.mu.Lock()
				large(mc.m, 150)
				mc.m.mu.Unlock()
				p.sync(t)
			}
			end := p.Status().TXID
			mc.export(0, end, round%2 == 0)
			list := keysOf(t, mc.store)
			mc.m.commit()
			p.sync(t) // the newest log segment stays
			retireSlowly(t, mc.store, end)
			for _, k := range list {
				if k.max < end {
					removeExport(t, mc.store, k.key())
				}
			}
		}
	})
	// What is half done is done when the writer has come to its next round.
	next := func(context.Context) error {
		n := rounds.Load()
		until(t, func() bool { return rounds.Load() > n })
		return nil
	}
	for range 25 {
		whole(t, mc.store, readData, func(o *VerifyOptions) { o.wait, o.orphanAge = next, 0 })
	}
	stop()
	running.Wait()
	p.close(t)
	whole(t, mc.store, readData)
}

func retireSlowly(t *testing.T, store Store, txid uint64) {
	for _, key := range keys(t, store, segment.LogPrefix) {
		if first, _ := segment.ParseLogKey(key); first <= txid {
			o, err := segment.Parse(get(t, store, key))
			if err != nil {
				t.Error(err)
			} else if o.Header.MaxTXID <= txid && !o.Header.Claim {
				store.Delete(t.Context(), key)
				if o.Header.External {
					store.Delete(t.Context(), o.DataKey())
				}
			}
		}
	}
}

func removeExport(t *testing.T, store Store, key string) {
	o, err := segment.Parse(get(t, store, key))
	if err != nil {
		t.Error(err)
		return
	}
	store.Delete(t.Context(), key)
	if o.Header.External {
		store.Delete(t.Context(), o.DataKey())
	}
}

// stateNow is what the database has.
func (mc *machine) stateNow(context.Context) (*DatabaseState, error) {
	mc.m.mu.Lock()
	defer mc.m.mu.Unlock()
	s := &DatabaseState{PageSize: mc.m.cur.pageSize}
	for i, p := range mc.m.cur.pages {
		s.Hashes = append(s.Hashes, segment.PageHash(uint64(i)+1, p))
	}
	return s, nil
}

func TestVerifyAgainst(t *testing.T) {
	mc, _ := condensed(t, 99)
	against := func(o *VerifyOptions) { o.Against = mc.stateNow }
	end := walk(t, mc.store)
	newest := end[len(end)-1].Header.MaxTXID
	c := whole(t, mc.store, against).Against
	if c.State != AgainstEqual || c.TXID != newest || c.Newest != newest {
		t.Errorf("the newest: %+v", c)
	}

	// An earlier state, from the log and, where that is gone, from an export's key.
	cur := mc.m.cur
	for i := range end {
		h := end[i].Header
		if h.Commit == 0 || h.Post == cur.sum {
			continue
		}
		mc.m.cur = mc.m.states[h.Post]
		if c := whole(t, mc.store, against).Against; c.State != AgainstBehind || end[i].Header.Post != mc.m.cur.sum || c.TXID < h.MaxTXID {
			t.Errorf("TXID %d: %+v", h.MaxTXID, c)
		}
	}
	mc.m.cur = cur

	// A commit that isn't uploaded.
	mc.m.hook = nil
	e := mc.m.commit()
	r := verify(t, mc.store, against)
	c = r.Against
	if c.State != AgainstDiffers || c.Differing == 0 || len(c.First) == 0 || !strings.Contains(c.What, fmt.Sprintf("the database has %d, ", c.Pages)) || !errors.Is(r.Err(), ErrDiverged) || len(r.Findings) > 0 {
		t.Errorf("a commit more: %+v, %v, %d blocks", c, r.Err(), len(e.Blocks))
	}
	mc.m.whole(1024)
	if c := verify(t, mc.store, against).Against; c.State != AgainstDiffers || c.Differing != 0 {
		t.Errorf("another page size: %+v", c)
	}

	// It is written all the time, and nothing is uploaded.
	n := 0
	r = verify(t, mc.store, func(o *VerifyOptions) {
		o.Against = func(ctx context.Context) (*DatabaseState, error) {
			n++
			mc.m.commit()
			return mc.stateNow(ctx)
		}
	})
	if r.Against.State != AgainstChanging || r.Err() != nil || n < 3 {
		t.Errorf("written all the time: %+v, %v", r.Against, r.Err())
	}
	failed := errors.New("no")
	if _, err := Verify(t.Context(), VerifyOptions{Store: mc.store, Against: func(context.Context) (*DatabaseState, error) { return nil, failed }}); !errors.Is(err, failed) {
		t.Errorf("a database that can't be read: %v", err)
	}
}

// A database whose commits come into the replica a moment later is its replica's.
func TestVerifyAgainstWhileWritten(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 100)
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	r := verify(t, mc.store, func(o *VerifyOptions) {
		calls := 0
		o.Against = func(ctx context.Context) (*DatabaseState, error) {
			s, err := mc.stateNow(ctx)
			if calls++; calls > 1 {
				p.sync(t) // what was seen is uploaded afterwards
			}
			mc.m.commit()
			return s, err
		}
	})
	if r.Against.State != AgainstEqual || r.Err() != nil {
		t.Errorf("%+v, %v", r.Against, r.Err())
	}
	if n := len(r.Restorable); n == 0 || r.Restorable[n-1].To != r.TXID {
		t.Errorf("the newest is TXID %d, restorable are %v", r.TXID, r.Restorable)
	}
	p.sync(t)
	p.close(t)
}

// What is lost or left over that is older than what retention keeps may be what an
// interrupted retention has left; claims and holes below what is kept mean nothing.
func TestVerifyInterruptedRetention(t *testing.T) {
	mc, ends := condensed(t, 101)
	logs := segmentsOf(t, mc.store)
	aged := &agedStore{Store: mc.store, young: ends[3]}
	for n := range logs {
		o := logs[n]
		if o.Header.MaxTXID >= ends[3] {
			break
		}
		if o.Header.Claim {
			continue
		}
		store := clone(t, mc.store)
		aged.Store = store
		retire(t, store, o.Header.MaxTXID)
		r := verify(t, aged)
		if r.Err() != nil {
			t.Errorf("interrupted behind TXID %d: %v%s", o.Header.MaxTXID, r.Err(), showFindings(r))
		}
	}
	retire(t, mc.store, ends[3])
	aged.Store = mc.store
	whole(t, aged)
}

// agedStore has objects of the log up to young, and page segments, that are days old.
type agedStore struct {
	Store
	young uint64
}

func (s *agedStore) List(ctx context.Context, prefix, after string) iter.Seq2[ObjectInfo, error] {
	return func(yield func(ObjectInfo, error) bool) {
		for o, err := range s.Store.List(ctx, prefix, after) {
			if txid, ok := segment.ParseLogKey(o.Key); ok && txid <= s.young {
				o.Modified = o.Modified.Add(-48 * time.Hour)
			}
			if !yield(o, err) {
				return
			}
		}
	}
}
