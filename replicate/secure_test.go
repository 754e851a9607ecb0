package replicate

import (
	"context"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
)

// TestSecuredBeforeUpload: before the first attempt to upload a log segment the source
// is asked, once, to make durable what is in it: the first contact's, too. A claim has
// nothing in it.
func TestSecuredBeforeUpload(t *testing.T) {
	for name, content := range map[string]bool{"commits": false, "first contact": true} {
		t.Run(name, func(t *testing.T) {
			fs := faultstore.New(objstore.NewMem())
			mc := newMachine(t, fs, 1)
			if content {
				mc.m.sneak()
			}
			p := mc.open(func(o *EngineOptions) { o.small = 1 })
			var mu sync.Mutex
			tried := map[string]bool{} // log segments
			fs.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
				if c.Op != faultstore.Create || !strings.HasPrefix(c.Key, "log/") {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				p.src.mu.Lock()
				defer p.src.mu.Unlock()
				if tried[c.Key] {
					return nil
				}
				tried[c.Key] = true
				if txid, _ := segment.ParseLogKey(c.Key); txid > 1 && p.src.secured != len(tried)-1 {
					t.Errorf("%s: asked %d times, before segment %d", c.Key, p.src.secured, len(tried)-1)
				}
				return faultstore.ErrInjected // the first attempt
			}})
			for range 3 {
				mc.m.commit()
				p.sync(t)
			}
			if want := 4; len(tried) < want { // the claim, too
				t.Errorf("%d segments, not %d", len(tried), want)
			}
			p.close(t)
			mc.checkNewest()
		})
	}
}

// TestUploadedThoughNotSecured: on a disk that can't make anything durable the replica
// may soon be the only copy. The status says what that may lead to.
func TestUploadedThoughNotSecured(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 1)
	p := mc.open()
	fail := func(err error) {
		p.src.mu.Lock()
		defer p.src.mu.Unlock()
		p.src.secureErr = err
	}
	fail(syscall.EIO)
	mc.m.commit()
	p.sync(t)
	mc.checkNewest()
	if s := p.Status(); s.State != StateReplicating || !strings.Contains(s.Error, "may not survive a loss of power") || !strings.Contains(s.Error, syscall.EIO.Error()) {
		t.Errorf("%+v", s)
	}
	fail(nil)
	mc.m.commit()
	p.sync(t)
	until(t, func() bool { return p.Status().Error == "" })
	p.close(t)
	mc.checkNewest()
}
