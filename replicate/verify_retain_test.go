package replicate

import (
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// verifyKeep makes much history in little time.
var verifyKeep = Keep{Log: 2 * time.Hour, Pages: 6 * time.Hour, Snapshots: 12 * time.Hour, PagesEvery: 10 * time.Minute, SnapshotEvery: 90 * time.Minute}

// failingDeletes is a store that stops deleting in the middle.
type failingDeletes struct {
	Store
	left atomic.Int64 // objects that are deleted before; negative: no end
}

func (s *failingDeletes) Delete(ctx context.Context, keys ...string) error {
	for _, k := range keys {
		if s.left.Add(-1) == -1 {
			s.left.Store(0)
			return errors.New("test: the store is away")
		}
		if err := s.Store.Delete(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// A replica that is written, condensed and cut off at its beginning for a day is
// whole at every stage, also where a deletion broke off; what verify says can be
// restored is what can be, and each object that is deleted then is missed.
func TestVerifyLife(t *testing.T) {
	for seed := range uint64(3) {
		clock := newAutoClock()
		mem := objstore.NewMemAt(clock.Now)
		store := &failingDeletes{Store: mem}
		store.left.Store(-1)
		mc := newMachine(t, store, 600+seed)
		mc.clock = clock
		rng := rand.New(rand.NewPCG(seed, 9))
		check := func(o *VerifyOptions) {
			o.Keep, o.now, o.orphanAge, o.ReadData = verifyKeep, clock.Now, 0, true
		}
		var p *process
		deleted, broke, costly := 0, 0, 0
		for n := range 150 {
			if p == nil || rng.IntN(40) == 0 {
				if p != nil {
					p.close(t)
				}
				p = mc.open(func(o *EngineOptions) { o.Keep = verifyKeep })
				if err := p.wait(t); err != nil {
					t.Fatal(err)
				}
			}
			clock.add(time.Duration(1+rng.IntN(20)) * time.Minute) // before: what is due is looked at with uploads
			for range 1 + rng.IntN(4) {
				mc.m.commit()
			}
			if rng.IntN(3) == 0 {
				store.left.Store(int64(rng.IntN(12)))
			}
			p.sync(t)
			p.settled(t)
			deleted = max(deleted, p.Status().Retention.Objects)
			if p.Status().Retention.Error != "" {
				broke++
			}
			if n%3 == 0 {
				// Retention may be under way.
				r := verify(t, mem, check)
				if len(r.Findings) > 0 {
					t.Fatalf("seed %d, round %d: %s", seed, n, showFindings(r))
				}
			}
			store.left.Store(-1)
		}
		p.close(t)
		r := verify(t, mem, check)
		before := checkRestorable(t, mem, r)
		logs := keys(t, mem, segment.LogPrefix)
		for _, key := range keys(t, mem, "") {
			// What is older than what is kept may be the rest of an interrupted deletion.
			if key == logs[len(logs)-1] || !strings.HasPrefix(key, segment.LogPrefix) && !strings.HasPrefix(key, segment.SnapshotPrefix) && !strings.HasPrefix(key, segment.PagesPrefix) {
				continue
			}
			_, o, err := mem.Get(t.Context(), key, Range{})
			if err != nil {
				t.Fatal(err)
			}
			without := &hidingStore{mem, key}
			r := verify(t, without, check)
			after := checkRestorable(t, without, r)
			newly, missed := 0, 0
			for txid := range before {
				if !after[txid] {
					newly++
					if !lost(r, txid) {
						missed++
					}
				}
			}
			if newly > 1 && missed > 0 && clock.Now().Sub(o.Modified) < verifyKeep.Log {
				t.Errorf("seed %d, %s gone: %d TXIDs are lost, and %d not told%s", seed, key, newly, missed, showFindings(r))
			}
			if newly > 1 {
				costly++
			}
		}
		if deleted == 0 || broke == 0 || costly == 0 {
			t.Errorf("seed %d: %d objects deleted, %d times a deletion broke off, %d objects that cost something", seed, deleted, broke, costly)
		}
	}
}

// hidingStore is a store without one of its objects.
type hidingStore struct {
	Store
	hidden string
}

func (s *hidingStore) Get(ctx context.Context, key string, r Range) (io.ReadCloser, ObjectInfo, error) {
	if key == s.hidden {
		return nil, ObjectInfo{}, ErrNotExist
	}
	return s.Store.Get(ctx, key, r)
}

func (s *hidingStore) List(ctx context.Context, prefix, after string) iter.Seq2[ObjectInfo, error] {
	return func(yield func(ObjectInfo, error) bool) {
		for o, err := range s.Store.List(ctx, prefix, after) {
			if (err != nil || o.Key != s.hidden) && !yield(o, err) {
				return
			}
		}
	}
}
