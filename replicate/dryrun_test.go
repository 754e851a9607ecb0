package replicate

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
)

// A dry run says of every TXID and every time what a restore then does: also within
// segments of several entries, inline and external, and within merges.
func TestDryRunSaysWhatIsRestored(t *testing.T) {
	for _, inline := range []int64{64 << 10, 1 << 10} { // without and with data objects
		t.Run(fmt.Sprint(inline), func(t *testing.T) { dryRunSays(t, inline) })
	}
}

func dryRunSays(t *testing.T, inline int64) {
	mc := newMachine(t, objstore.NewMem(), 5)
	p := mc.open(func(o *EngineOptions) { o.inline = inline })
	for i := range 12 {
		mc.m.mu.Lock()
		mc.m.commitN(1+i%3*2, 3)
		if i%4 > 0 { // a segment of several entries
			mc.m.commitN(3, 2)
			mc.m.commitN(1, 2)
		}
		mc.m.mu.Unlock()
		p.sync(t)
	}
	p.close(t)
	_, lasts := mc.segments()
	compare := func(set func(*RestoreOptions)) {
		t.Helper()
		res, _, err := restoreTo(t, mc.store, set)
		opts := RestoreOptions{Store: mc.store, DryRun: true}
		set(&opts)
		dry, dryErr := Restore(t.Context(), opts)
		switch {
		case (err == nil) != (dryErr == nil) || errors.Is(err, ErrNotRestorable) != errors.Is(dryErr, ErrNotRestorable):
			t.Errorf("TXID %d, time %d: restore: %v; dry run: %v", opts.TXID, opts.Timestamp.UnixMicro(), err, dryErr)
		case err != nil && err.Error() != dryErr.Error():
			t.Errorf("TXID %d, time %d:\nrestore: %v\ndry run: %v", opts.TXID, opts.Timestamp.UnixMicro(), err, dryErr)
		case err == nil && (res.TXID != dry.TXID || res.Checksum != dry.Checksum || !res.Time.Equal(dry.Time) || res.Exact != dry.Exact || res.Pages != dry.Pages || res.Latest != dry.Latest || len(res.Notes) != len(dry.Notes)):
			t.Errorf("TXID %d, time %d:\nrestored %+v\ndry run  %+v", opts.TXID, opts.Timestamp.UnixMicro(), res, dry)
		}
	}
	for round := range 2 {
		if round == 1 {
			mc.putSnapshot(rand.New(rand.NewPCG(1, 1)), lasts[len(lasts)/2], true)
		}
		for txid := uint64(1); txid <= lasts[len(lasts)-1]; txid++ {
			compare(func(o *RestoreOptions) { o.TXID = txid })
		}
		for _, pt := range mc.points() {
			for _, d := range []int64{-11, -1, 0, 1} { // commits of a merge are 10 apart
				compare(func(o *RestoreOptions) { o.Timestamp = time.UnixMicro(pt.time + d) })
			}
		}
	}
}

// A time within a merge gives the state before it, and says that this isn't all that
// was committed by then.
func TestTimeWithinMergeIsNotExact(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 6)
	p := mc.open()
	mc.m.mu.Lock()
	mc.m.commitN(1, 2)
	first := mc.m.now
	mc.m.commitN(4, 2)
	merged := mc.m.now // its commits were made 30, 20, 10 and 0 before
	mc.m.commitN(1, 2)
	mc.m.mu.Unlock()
	p.sync(t)
	p.close(t)
	for _, c := range []struct {
		us    int64
		exact bool
	}{
		{first, true}, {merged - 31, true}, {merged - 30, false}, {merged - 1, false}, {merged, true}, {merged + 1, true},
	} {
		for _, dry := range []bool{false, true} {
			opts := RestoreOptions{Store: mc.store, Output: t.TempDir() + "/db", Timestamp: time.UnixMicro(c.us), DryRun: dry}
			res, err := Restore(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			if res.Exact != c.exact || len(res.Notes) > 0 == c.exact {
				t.Errorf("%d µs before the merge's end, dry run %v: exact is %v, notes %q", merged-c.us, dry, res.Exact, res.Notes)
			}
		}
	}
}
