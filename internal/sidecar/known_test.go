//go:build linux

package sidecar

import (
	"context"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/replicate"
)

// TestRestartInOutage: after a restart while the store doesn't answer, the status has
// what is known of it: not TXID 0, and no lag of 0.
func TestRestartInOutage(t *testing.T) {
	away := faultstore.Hooks{Before: func(context.Context, faultstore.Call) error { return faultstore.ErrInjected }}
	for _, truncate := range []bool{true, false} {
		w, p := replicatedWorld(t, Options{})
		txid := w.sync()
		w.store.SetHooks(away)
		for range 3 {
			p.Must("INSERT INTO t(a) VALUES(43)")
			if !truncate { // in the log
				continue
			}
			if ck, err := p.Checkpoint("TRUNCATE"); err != nil || ck.Busy != 0 {
				t.Fatal(ck, err)
			}
		}
		w.eventually("captured", func() bool { return w.db.Status().Backlog >= 1 })
		if truncate {
			w.eventually("in the spool", func() bool { return w.db.Status().Spooled >= 3 })
		}
		w.crash()
		w.db = w.start()
		w.eventually("known", func() bool {
			s := w.db.Status()
			return s.State == replicate.StateUnreachable && s.TXID == txid && s.Captured == txid+3 && s.Backlog == 3 && s.LagSeconds > 0
		})
		if s := w.db.Status(); s.AtLeast != truncate { // a log that was emptied has no proof that nothing else was in it
			t.Errorf("%+v", s)
		}
		if s := w.db.Status(); truncate != (s.Spooled == 3) || s.ID == "" || s.Checksum == "" {
			t.Errorf("%+v", s)
		}
		first := w.db.Status().LagSeconds
		w.eventually("the lag grows", func() bool { return w.db.Status().LagSeconds > first })
		w.store.SetHooks(faultstore.Hooks{})
		w.same()
		if s := w.db.Status(); s.AtLeast || s.LagSeconds != 0 || s.Backlog != 0 || s.TXID < txid+3 {
			t.Errorf("%+v", s)
		}
	}
}

// TestRestartInOutageUnknown: what can't be known is said to be so.
func TestRestartInOutageUnknown(t *testing.T) {
	w := newWorld(t, Options{})
	w.store.SetHooks(faultstore.Hooks{Before: func(context.Context, faultstore.Call) error { return faultstore.ErrInjected }})
	p := w.stock()
	p.Must("PRAGMA journal_mode=wal")
	p.Must(table)
	w.start()
	w.eventually("unreachable", func() bool { return w.db.Status().State == replicate.StateUnreachable })
	if s := w.db.Status(); !s.AtLeast || s.TXID != 0 {
		t.Errorf("%+v", s)
	}
	w.store.SetHooks(faultstore.Hooks{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := w.db.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if s := w.db.Status(); s.AtLeast {
		t.Errorf("%+v", s)
	}
}
