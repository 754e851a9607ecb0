package sidecar

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/testclock"
	"github.com/outwash/outwash/replicate"
)

// used is what the process has of memory, in heap and stacks, and of goroutines.
func used() (bytes, goroutines int) {
	runtime.GC()
	runtime.GC() // what pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse), runtime.NumGoroutine()
}

// TestIdleMany: a database that nobody writes to costs some kilobytes, a few
// goroutines that nothing wakes, no timer and no request, however long it goes on.
func TestIdleMany(t *testing.T) {
	const (
		databases  = 100
		mostBytes  = 96 << 10 // of memory each
		mostRoutes = 5        // goroutines each
		mostFiles  = filesEach
	)
	dir := smallDatabases(t, databases)
	clock := testclock.New(time.Now())
	bytesBefore, routinesBefore := used()
	filesBefore := openFiles(t)

	m, err := NewManager(ManagerOptions{Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer func() { must(t, m.Close(context.Background())) }()
	var mu sync.Mutex
	var stores []*faultstore.Store
	replica := "file://" + t.TempDir()
	n, err := m.AddDir(DirOptions{
		Dir: Dir{Path: dir, Pattern: "*.db"}, Watch: true,
		Database: func(f Found) (Options, error) {
			return Options{hooks: hooks{clock: clock}, Open: func(ctx context.Context) (replicate.Store, error) {
				s, err := replicate.OpenStore(ctx, objstore.Below(replica, f.Rel))
				if err != nil {
					return nil, err
				}
				mu.Lock()
				defer mu.Unlock()
				stores = append(stores, faultstore.New(s))
				return stores[len(stores)-1], nil
			}}, nil
		},
	})
	if must(t, err); n != databases {
		t.Fatalf("%d databases", n)
	}
	must(t, m.Decided(t.Context()))
	must(t, m.Sync(t.Context()))

	requests := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range stores {
			n += s.Total()
		}
		return n
	}
	before := requests()
	if before < databases {
		t.Errorf("%d requests to take up %d databases", before, databases)
	}
	for range 3 {
		clock.Move(20 * time.Minute)
		m.watcher.all(true)          // the sweep
		must(t, m.Sync(t.Context())) // all have looked
		must(t, smallStatuses(m, "replicating"))
	}
	if n := requests() - before; n != 0 {
		t.Errorf("%d requests in an hour in which nobody wrote", n)
	}
	if n := clock.Waiting(); n != 0 {
		t.Errorf("%d engines wait for the time", n)
	}
	size, routines := used()
	if each := (size - bytesBefore) / databases; each > mostBytes {
		t.Errorf("%d bytes of memory for each idle database, at most %d expected", each, mostBytes)
	} else {
		t.Logf("%d bytes of memory for each idle database", each)
	}
	if all := routines - routinesBefore; all > databases*mostRoutes {
		t.Errorf("%d goroutines for %d idle databases, at most %d each expected", all, databases, mostRoutes)
	} else {
		t.Logf("%d goroutines for %d idle databases", all, databases)
	}
	if all := openFiles(t) - filesBefore; all > databases*mostFiles {
		t.Errorf("%d open files for %d idle databases, at most %d each expected", all, databases, mostFiles)
	} else {
		t.Logf("%d open files for %d idle databases", all, databases)
	}
}

func smallStatuses(m *Manager, want replicate.State) error {
	for _, s := range m.Statuses() {
		if s.State != want || s.Error != "" || s.Backlog > 0 {
			return fmt.Errorf("%s is %s, with a backlog of %d: %s", s.Database, s.State, s.Backlog, s.Error)
		}
	}
	return nil
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}
