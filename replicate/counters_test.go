package replicate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
)

// asked compares what figures say of each operation with what the store saw.
func asked(t *testing.T, f Figures, fs *faultstore.Store) {
	t.Helper()
	for op, n := range map[faultstore.Op]uint64{
		faultstore.Create: f.Store.Create.Count, faultstore.Put: f.Store.Put.Count, faultstore.Upload: f.Store.Upload.Count,
		faultstore.Get: f.Store.Get.Count + f.Store.GetRange.Count, faultstore.List: f.Store.List.Count, faultstore.Delete: f.Store.Delete.Count,
	} {
		if uint64(fs.Count(op)) != n {
			t.Errorf("%s: %d are counted, there were %d", op, n, fs.Count(op))
		}
	}
	for name, op := range f.Store.Operations() {
		var sum uint64
		for _, n := range op.Latency {
			sum += n
		}
		if sum != op.Count || op.Errors > op.Count || op.Count > 0 && op.Seconds <= 0 {
			t.Errorf("%s: %+v", name, op)
		}
	}
}

// A database's figures from its first commit to the fence, over several engines.
func TestFigures(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	mc := newMachine(t, fs, 31)
	counters := new(Counters)
	open := func() *process {
		p := mc.open(condense(10*time.Minute, time.Hour), func(o *EngineOptions) { o.Counters = counters })
		if err := p.wait(t); err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := open()
	var commits, transactions, merges uint64
	for range 40 {
		e := mc.m.commit()
		commits += e.Count
		if e.Kind == segment.Merge {
			merges++
		} else {
			transactions++
		}
		mc.clock.(*autoClock).add(2 * time.Minute)
		p.sync(t)
		p.settled(t)
	}
	p.close(t)
	f := p.Status().Figures
	asked(t, f, fs)
	if f.Commits != commits || f.Entries != (EntryFigures{Transactions: transactions, Merges: merges, Claims: 1}) || merges == 0 {
		t.Errorf("%d commits, %d and %d entries: %+v", commits, transactions, merges, f)
	}
	if exports := len(exportsOf(t, fs.Inner())); f.Snapshots+f.PageSegments != uint64(exports) || f.Snapshots == 0 || f.PageSegments == 0 {
		t.Errorf("%d exports: %+v", exports, f)
	}
	if f.Store.Create.Sent == 0 || f.Store.Get.Received+f.Store.GetRange.Received == 0 || f.Retries != 0 {
		t.Errorf("%+v", f)
	}

	// Another engine counts on: what was not captured is a repair; a store that is
	// away, errors and attempts.
	mc.m.sneak()
	p = open()
	p.sync(t)
	before := p.Status().Figures
	if before.Entries.Repairs != 1 || before.Entries.Claims != 2 || before.Commits != commits {
		t.Errorf("%+v", before)
	}
	failures := 3
	fs.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
		if c.Op == faultstore.Create && failures > 0 {
			failures--
			return faultstore.ErrInjected
		}
		return nil
	}})
	mc.m.commit()
	p.sync(t)
	f = p.Status().Figures
	asked(t, f, fs)
	if f.Store.Create.Errors != 3 || f.Retries != 3 || f.Store.Create.Count != before.Store.Create.Count+4 {
		t.Errorf("%+v", f)
	}

	// Fenced: that a key is taken is an answer, no error.
	other := copyOf(mc, 9)
	other.store = fs.Inner()
	q := other.open()
	other.m.commit()
	q.sync(t)
	mc.m.commit()
	if _, err := p.Sync(within(t)); !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
	<-p.Done()
	f = p.Status().Figures
	asked(t, f, fs)
	if f.Fences != 1 || f.Store.Create.Errors != 3 {
		t.Errorf("%+v", f)
	}
	text, err := json.Marshal(f)
	if err != nil || !strings.Contains(string(text), `"create":{"count":`) || strings.Contains(string(text), `"put"`) {
		t.Errorf("%s, %v", text, err)
	}
}

// Bytes, and what counts as an error, operation by operation.
func TestCountedStore(t *testing.T) {
	ctx := t.Context()
	fs := faultstore.New(objstore.NewMem())
	var c Counters
	s := c.Store(fs)
	check := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Fatalf("%v, not %v", err, want)
		}
	}
	check(s.Create(ctx, "a", make([]byte, 100)), nil)
	check(s.Create(ctx, "a", make([]byte, 50)), ErrExist)
	check(s.Put(ctx, "p", make([]byte, 10)), nil)
	if _, err := s.Upload(ctx, "u", bytes.NewReader(make([]byte, 3000))); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Get(ctx, "none", Range{})
	check(err, ErrNotExist)
	for _, r := range []Range{{}, {Offset: 10, Length: 20}, {Offset: -5}} {
		body, _, err := s.Get(ctx, "a", r)
		check(err, nil)
		if _, err := io.Copy(io.Discard, body); err != nil {
			t.Fatal(err)
		}
		body.Close()
	}
	for range s.List(ctx, "", "") {
		break
	}
	for range s.List(ctx, "none", "") {
	}
	check(s.Delete(ctx, "a", "p"), nil)
	asked(t, c.Figures(), fs)

	canceled, cancel := context.WithCancel(ctx)
	cancel()
	fs.SetHooks(faultstore.Hooks{Before: func(ctx context.Context, _ faultstore.Call) error {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("given up: %w", err)
		}
		return faultstore.ErrInjected
	}})
	check(s.Delete(canceled, "a"), context.Canceled)
	check(s.Delete(ctx, "a"), faultstore.ErrInjected)
	for _, err := range s.List(ctx, "", "") {
		check(err, faultstore.ErrInjected)
	}
	fs.SetHooks(faultstore.Hooks{Body: func(_ faultstore.Call, r io.ReadCloser) io.ReadCloser {
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(r, 7), brokenReader{}), r}
	}})
	body, _, err := s.Get(ctx, "u", Range{})
	check(err, nil)
	_, err = io.ReadAll(body)
	check(err, io.ErrUnexpectedEOF)
	body.Close()

	f := c.Figures().Store
	for name, want := range map[string]OperationFigures{
		"create": {Count: 2, Sent: 100}, "put": {Count: 1, Sent: 10}, "upload": {Count: 1, Sent: 3000},
		"get": {Count: 3, Errors: 1, Received: 107}, "get_range": {Count: 2, Received: 25},
		"list": {Count: 3, Errors: 1}, "delete": {Count: 3, Errors: 1}, "sweep": {},
	} {
		for op, got := range f.Operations() {
			if op != name {
				continue
			}
			if (OperationFigures{Count: got.Count, Errors: got.Errors, Sent: got.Sent, Received: got.Received}) != want {
				t.Errorf("%s: %+v", op, *got)
			}
		}
	}
}

// Counting allocates nothing, and sorts by upper bounds.
func TestCounting(t *testing.T) {
	var c Counters
	s := countedStore{counters: &c}
	entries := []*segment.Entry{{Kind: segment.Merge, Count: 3}}
	if n := testing.AllocsPerRun(100, func() {
		s.begin(opCreate).end(nil)
		c.acknowledged(entries...)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	c = Counters{}
	bounds := LatencyBounds()
	for _, b := range bounds {
		c.store[opGet].took(b)
	}
	p := s.begin(opGet)
	p.began = p.began.Add(-time.Hour)
	p.end(nil)
	for i, n := range c.Figures().Store.Get.Latency {
		if n != 1 {
			t.Errorf("bucket %d has %d", i, n)
		}
	}
	if s := c.Figures().Store.Get.Seconds; s < 3600 {
		t.Errorf("%v seconds", s)
	}
}
