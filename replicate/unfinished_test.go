package replicate

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// diesAt lets the engine crash at the first passing of a failpoint.
func diesAt(at string) func(*EngineOptions) { return diesAtNth(at, 1) }

// diesAtNth lets it crash at a later one.
func diesAtNth(at string, nth int32) func(*EngineOptions) {
	return func(o *EngineOptions) {
		var n atomic.Int32
		o.Failpoint = func(name string) error {
			if name == at && n.Add(1) >= nth {
				return errors.New("power is gone")
			}
			return nil
		}
	}
}

func (mc *machine) diesAt(at string, change ...func(*EngineOptions)) {
	mc.t.Helper()
	p := mc.open(append(change, diesAt(at))...)
	<-p.Done()
	if !errors.Is(p.Err(), errCrash) {
		mc.t.Fatal(p.Err())
	}
	p.kill()
}

// The first snapshot isn't there yet: that isn't damage, and is said as what it is.
func TestRestoreOfUnfinishedFirstContact(t *testing.T) {
	for attempts := 1; attempts <= 2; attempts++ {
		t.Run(fmt.Sprint(attempts), func(t *testing.T) {
			mc := newMachine(t, objstore.NewMem(), 4)
			grown(mc.m, 300)
			mc.m.notOurs = true
			for range attempts {
				mc.diesAt("snapshot-before")
			}
			for _, dry := range []bool{false, true} {
				_, _, err := restoreTo(t, mc.store, func(o *RestoreOptions) { o.DryRun = dry })
				if !errors.Is(err, ErrNotRestorable) || errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "isn't finished") {
					t.Fatalf("dry %v: %v", dry, err)
				}
			}
			p := mc.open()
			p.sync(t) // else the commit can become part of the snapshot
			mc.m.commit()
			p.sync(t)
			p.close(t)
			mc.checkNewest()

			// Where the line goes on, the snapshot was there, and is lost.
			for _, key := range keys(t, mc.store, segment.SnapshotPrefix) {
				mc.store.Delete(t.Context(), key)
			}
			mc.m.notOurs = false
			p = mc.open()
			mc.m.commit()
			p.sync(t)
			p.close(t)
			if _, _, err := restoreTo(t, mc.store); !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNotRestorable) {
				t.Fatal(err)
			}
		})
	}
}
