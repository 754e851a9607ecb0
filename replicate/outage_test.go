package replicate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
)

func TestStoreOutage(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	down := outages(fs)
	mc := newMachine(t, fs, 4)

	// Unknown replica, no answer: undecided, and it says why.
	down.Store(true)
	p := mc.open()
	until(t, func() bool { return p.Status().State == StateUnreachable })
	select {
	case <-p.Decided():
		t.Fatal("decided without the store")
	default:
	}
	if s := p.Status(); s.Error == "" || s.Remedy == "" {
		t.Fatalf("%+v", s)
	}
	down.Store(false)
	mc.m.commit()
	p.sync(t)

	down.Store(true)
	mc.m.commit()
	until(t, func() bool { return p.Status().State == StateUnreachable })
	if s := p.Status(); s.Error == "" || !strings.Contains(s.Remedy, "by itself") {
		t.Fatalf("%+v", s)
	}
	for range 10 {
		mc.m.commit()
	}
	if p.WriteError() != nil {
		t.Fatal(p.WriteError())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Close(ctx); err == nil || !strings.Contains(err.Error(), "11 entries") {
		t.Fatalf("close without the store: %v", err)
	}
	p.dir.Close()

	// Known replica, no answer: usable.
	p = mc.open()
	if err := p.wait(t); err != nil || p.WriteError() != nil {
		t.Fatal(err)
	}
	mc.m.commit()
	down.Store(false)
	p.sync(t)
	if s := p.Status(); s.State != StateReplicating || s.Error != "" {
		t.Fatalf("%+v", s)
	}
	p.close(t)
	mc.checkNewest()
	mc.checkAll()
}

func TestBadCredentialsFailAtOpenAndPassLater(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	var denied atomic.Bool
	fs.SetHooks(faultstore.Hooks{Before: func(context.Context, faultstore.Call) error {
		if denied.Load() {
			return fmt.Errorf("test: %w", objstore.ErrDenied)
		}
		return nil
	}})
	mc := newMachine(t, fs, 4)
	denied.Store(true)
	p := mc.open()
	if err := p.wait(t); !errors.Is(err, ErrDenied) {
		t.Fatal(err)
	}
	p.kill()
	denied.Store(false)
	p = mc.open()
	mc.m.commit()
	p.sync(t)
	denied.Store(true)
	mc.m.commit()
	until(t, func() bool { return p.Status().State == StateDenied })
	if s := p.Status(); !strings.Contains(s.Remedy, "credentials") || s.Backlog != 1 || p.WriteError() != nil {
		t.Fatalf("%+v, %v", s, p.WriteError())
	}
	denied.Store(false)
	p.sync(t)
	p.close(t)
	mc.checkNewest()
}

// A replica that lost objects which had been acknowledged is not extended.
func TestReplicaFellBehind(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 4)
	p := mc.open()
	for range 3 {
		mc.m.commit()
		p.sync(t)
	}
	txid := p.Status().TXID
	p.close(t)
	segs := walk(t, mc.store)
	mc.store.Delete(t.Context(), segment.LogKey(segs[len(segs)-1].Header.MinTXID))
	mc.m.commit()
	p = mc.open()
	if err := p.wait(t); !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), fmt.Sprint(txid)) {
		t.Fatal(err)
	}
}
