package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/replicate"
)

// fakes are databases that do as they are told.
type fakes struct {
	mu      sync.Mutex
	open    map[string]*fake
	most    int // that were being started at the same time
	now     int
	fail    map[string]error // once; "always "+path: each time
	decided func(path string) bool
	changed chan struct{}
}

type fake struct {
	all   *fakes
	o     Options
	ready chan struct{}
	state replicate.State
	block bool // in Close
	syncs int
}

func newFakes() *fakes {
	return &fakes{open: map[string]*fake{}, fail: map[string]error{}, changed: make(chan struct{}, 1), decided: func(string) bool { return true }}
}

func (a *fakes) Open(ctx context.Context, o Options) (database, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer a.tell()
	if err := a.fail[o.Path]; err != nil {
		delete(a.fail, o.Path)
		return nil, err
	}
	if err := a.fail["always "+o.Path]; err != nil {
		return nil, err
	}
	f := &fake{all: a, o: o, ready: make(chan struct{}), state: replicate.StateOpening}
	if a.open[o.Path] != nil {
		return nil, errors.New("opened twice")
	}
	a.open[o.Path] = f
	a.now++
	a.most = max(a.most, a.now)
	if a.decided(o.Path) {
		go f.decide()
	}
	return f, nil
}

func (f *fake) decide() {
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	f.all.now--
	f.state = replicate.StateReplicating
	close(f.ready)
}

func (a *fakes) tell() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// await waits until exactly these databases, by base name, are open.
func (a *fakes) await(t *testing.T, want ...string) {
	t.Helper()
	limit := time.After(2 * time.Minute)
	for {
		a.mu.Lock()
		var got []string
		for p := range a.open {
			got = append(got, filepath.Base(p))
		}
		a.mu.Unlock()
		slices.Sort(got)
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-a.changed:
		case <-limit:
			t.Fatalf("open: %q, want %q", got, want)
		}
	}
}

func (f *fake) Ready() <-chan struct{} { return f.ready }

func (f *fake) Status() replicate.Status {
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	return replicate.Status{Database: f.o.Path, State: f.state}
}

func (f *fake) Sync(ctx context.Context) (uint64, error) {
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	f.syncs++
	return 1, nil
}

func (f *fake) Close(ctx context.Context) error {
	f.all.mu.Lock()
	defer f.all.mu.Unlock()
	defer f.all.tell()
	delete(f.all.open, f.o.Path)
	if f.block {
		f.all.mu.Unlock()
		<-ctx.Done()
		f.all.mu.Lock()
		return fmt.Errorf("not uploaded: %w", ctx.Err())
	}
	return nil
}

func newTestManager(t *testing.T, a *fakes) *Manager {
	t.Helper()
	m, err := NewManager(ManagerOptions{Logger: slog.New(slog.DiscardHandler), open: a.Open, retry: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(t.Context()); err != nil {
			t.Error(err)
		}
		a.await(t)
	})
	return m
}

// TestManagerStartsFewAtATime: a thousand databases that begin at once don't take a
// thousand connections.
func TestManagerStartsFewAtATime(t *testing.T) {
	a := newFakes()
	m := newTestManager(t, a)
	for i := range 1000 {
		if err := m.Add(Options{Path: fmt.Sprintf("/d/%04d.db", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Decided(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := m.Statuses()
	if len(all) != 1000 || a.most > starting {
		t.Errorf("%d databases, %d being started at a time; want 1000, and at most %d", len(all), a.most, starting)
	}
	for i, s := range all {
		if want := fmt.Sprintf("/d/%04d.db", i); s.Database != want || s.State != replicate.StateReplicating {
			t.Fatalf("status %d is of %s, %s; want %s", i, s.Database, s.State, want)
		}
	}
	if err := m.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	for p, f := range a.open {
		if f.syncs != 1 {
			t.Errorf("%s was synced %d times", p, f.syncs)
		}
	}
}

// TestManagerTurns: databases that can't get on make room for others when they say
// so; a file that fails to open is tried again.
func TestManagerTurns(t *testing.T) {
	a := newFakes()
	a.decided = func(path string) bool { return !strings.Contains(path, "stuck") }
	m := newTestManager(t, a)
	for i := range 2 * starting {
		if err := m.Add(Options{Path: fmt.Sprintf("/d/stuck%d", i), Open: func(ctx context.Context) (replicate.Store, error) { return nil, nil }}); err != nil {
			t.Fatal(err)
		}
	}
	failure := errors.New("too many open files")
	a.mu.Lock()
	a.fail["/d/x"] = failure
	a.mu.Unlock()
	var told []replicate.State
	if err := m.Add(Options{Path: "/d/x", OnState: func(s replicate.Status) { told = append(told, s.State) }}); err != nil {
		t.Fatal(err)
	}
	x := func() *fake { a.mu.Lock(); defer a.mu.Unlock(); return a.open["/d/x"] }
	for limit := time.After(2 * time.Minute); x() == nil; {
		a.mu.Lock()
		stuck := slices.Collect(func(yield func(*fake) bool) {
			for p, f := range a.open {
				if strings.Contains(p, "stuck") && !yield(f) {
					return
				}
			}
		})
		a.mu.Unlock()
		for _, f := range stuck {
			f.o.OnState(replicate.Status{State: replicate.StateUnreachable})
		}
		select {
		case <-a.changed:
		case <-limit:
			t.Fatal("a database behind stuck ones is never started")
		}
	}
	x().o.OnState(replicate.Status{State: replicate.StateFailed})
	if !slices.Equal(told, []replicate.State{replicate.StateFailed}) {
		t.Errorf("OnState was told %v", told)
	}
}

func TestManagerAddRemove(t *testing.T) {
	a := newFakes()
	m := newTestManager(t, a)
	d := t.TempDir()
	path, link := filepath.Join(d, "a.db"), filepath.Join(d, "link.db")
	if err := os.Symlink("a.db", link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		do   func() error
		want error
	}{
		{func() error { return m.Remove(t.Context(), path) }, ErrNotManaged},
		{func() error { return m.Add(Options{Path: path}) }, nil},
		{func() error { return m.Add(Options{Path: path}) }, ErrManaged},
		{func() error { return m.Add(Options{Path: link}) }, ErrManaged},
		{func() error { return m.Remove(t.Context(), path) }, nil},
		{func() error { return m.Remove(t.Context(), path) }, ErrNotManaged},
		{func() error { return m.Add(Options{Path: path}) }, nil},
	} {
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("step %d: %v, want %v", i, err, c.want)
		}
	}
	a.await(t, "a.db")
}

// TestManagerStatusOfFailed: a database that can't even be opened is in the list.
func TestManagerStatusOfFailed(t *testing.T) {
	a := newFakes()
	m := newTestManager(t, a)
	failure := errors.New("read-only directory")
	a.fail["always /d/x"] = failure
	logged := make(chan string, 100)
	m.log = slog.New(slog.NewTextHandler(lines(logged), nil))
	if err := m.Add(Options{Path: "/d/x"}); err != nil {
		t.Fatal(err)
	}
	if line := <-logged; !strings.Contains(line, "database=/d/x") || !strings.Contains(line, failure.Error()) {
		t.Errorf("logged: %s", line)
	}
	s := m.Statuses()
	if len(s) != 1 || s[0].Database != "/d/x" || s[0].State != replicate.StateFailed || s[0].Error != failure.Error() || s[0].StateSince.IsZero() {
		t.Errorf("statuses: %+v", s)
	}
	if err := m.Remove(t.Context(), "/d/x"); err != nil {
		t.Error(err)
	}
	if len(logged) > 0 {
		t.Errorf("the same is logged again: %s", <-logged)
	}
}

type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// TestManagerShares: the stores of all databases are opened with one pool.
func TestManagerShares(t *testing.T) {
	a := newFakes()
	m := newTestManager(t, a)
	type key struct{}
	made := 0
	open := func(ctx context.Context) (replicate.Store, error) {
		_, err := objstore.Share(ctx, key{}, func() (int, error) { made++; return made, nil })
		return nil, err
	}
	for _, p := range []string{"/d/a", "/d/b"} {
		if err := m.Add(Options{Path: p, Open: open}); err != nil {
			t.Fatal(err)
		}
	}
	a.await(t, "a", "b")
	for _, f := range a.open {
		if _, err := f.o.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if made != 1 {
		t.Errorf("what can be shared was made %d times", made)
	}
}

// TestManagerClose: what doesn't end in time is named, and holds nobody else up.
func TestManagerClose(t *testing.T) {
	a := newFakes()
	a.decided = func(path string) bool { return !strings.Contains(path, "stuck") }
	m := newTestManager(t, a)
	for i := range 300 {
		if err := m.Add(Options{Path: fmt.Sprintf("/d/%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Decided(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 2 * starting { // some of them will never have been started
		if err := m.Add(Options{Path: fmt.Sprintf("/d/stuck%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	a.mu.Lock()
	a.open["/d/7"].block = true
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := m.Close(ctx)
	if err == nil || !strings.Contains(err.Error(), "/d/7:") || strings.Contains(err.Error(), "/d/8") {
		t.Errorf("Close: %v, want an error of /d/7 alone", err)
	}
	a.await(t)
	if err := m.Add(Options{Path: "/d/late"}); !errors.Is(err, errManagerClosed) {
		t.Errorf("Add after Close: %v", err)
	}
}
