package replicate

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
)

// TestReadEnd: what the end of a replica says of it, and how many requests that takes.
func TestReadEnd(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	mc := newMachine(t, fs, 4)
	if _, err := ReadEnd(t.Context(), mc.store, ID{}, 0); !errors.Is(err, ErrNoReplica) {
		t.Fatal(err)
	}
	p := mc.open()
	for range 200 {
		mc.m.commit()
		p.sync(t)
	}
	s := p.Status()
	p.close(t)
	requests := 0
	fs.SetHooks(faultstore.Hooks{Before: func(context.Context, faultstore.Call) error { requests++; return nil }})
	lineage := p.lineage
	for _, known := range []uint64{0, lineage.Acknowledged().TXID} {
		requests = 0
		end, err := ReadEnd(t.Context(), mc.store, lineage.Database, known)
		if err != nil {
			t.Fatal(err)
		}
		if end.TXID != s.TXID || end.Checksum != s.Checksum || end.Database != s.ID || end.Session != s.Session || end.Time.IsZero() ||
			end.Tail.TXID != s.TXID || end.Owner == nil || end.Owner.PID != os.Getpid() {
			t.Errorf("%+v of %+v", end, s)
		}
		if requests > 10 {
			t.Errorf("%d requests", requests)
		}
	}
	// Who has another replica's TXID in mind finds the end all the same.
	if end, err := ReadEnd(t.Context(), mc.store, ID{1}, 1<<40); err != nil || end.TXID != s.TXID {
		t.Errorf("%+v, %v", end, err)
	}
}
