package sidecar

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/stocksqlite"
	"github.com/outwash/outwash/replicate"
)

// TestDirOfPrograms: programs make databases in a directory, write them and remove
// them; each has a replica of its own, from which it is restored.
func TestDirOfPrograms(t *testing.T) {
	dir, replica := t.TempDir(), "file://"+t.TempDir()
	var mu sync.Mutex
	var warned []string
	logger := slog.New(slog.NewTextHandler(writer(func(p []byte) {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(string(p), "removed") {
			warned = append(warned, string(p))
		}
	}), &slog.HandlerOptions{Level: slog.LevelWarn}))
	m, err := NewManager(ManagerOptions{Logger: logger})
	must(t, err)
	defer func() { must(t, m.Close(context.Background())) }()
	var changed = make(chan struct{}, 1)
	n, err := m.AddDir(DirOptions{
		Dir: Dir{Path: dir, Pattern: "*.db", Recursive: true}, Watch: true,
		Database: func(f Found) (Options, error) {
			return Options{MaxLag: replicate.AsFast, Logger: logger, Open: func(ctx context.Context) (replicate.Store, error) {
				return replicate.OpenStore(ctx, objstore.Below(replica, f.Rel))
			}, OnState: func(replicate.Status) {
				select {
				case changed <- struct{}{}:
				default:
				}
			}}, nil
		},
	})
	if must(t, err); n != 0 {
		t.Fatalf("%d databases in an empty directory", n)
	}
	names := []string{"a.db", "sub/b.db", "100% odd?#.db"}
	for i, name := range names {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		p := stocksqlite.Start(t, path)
		if i%2 == 0 {
			p.Must("PRAGMA journal_mode=wal")
		}
		p.Must("CREATE TABLE t(x)")
		for n := range 10 + i {
			p.Must("INSERT INTO t VALUES (?)", n)
		}
	}
	limit := time.After(2 * time.Minute)
	for replicating := 0; replicating < len(names); {
		replicating = 0
		all := m.Statuses()
		for _, s := range all {
			if s.State == replicate.StateReplicating {
				replicating++
			}
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Millisecond): // a file was found
		case <-limit:
			t.Fatalf("not all databases are replicated: %+v", all)
		}
	}
	must(t, m.Sync(t.Context()))
	if all := m.Statuses(); len(all) != len(names) {
		t.Errorf("%d databases, want %d: %+v", len(all), len(names), all)
	}
	for i, name := range names {
		out := filepath.Join(t.TempDir(), "restored.db")
		_, err := replicate.Restore(t.Context(), replicate.RestoreOptions{URL: objstore.Below(replica, name), Output: out})
		must(t, err)
		r := stocksqlite.Start(t, out)
		if got, want := r.Text("SELECT count(*) FROM t"), fmt.Sprint(10+i); got != want {
			t.Errorf("%s: %s rows are restored, want %s", name, got, want)
		}
	}
	remove(t, filepath.Join(dir, "a.db"))
	for m.member(filepath.Join(dir, "a.db")) != nil {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-limit:
			t.Fatal("a database that was removed is not let go")
		}
	}
	if all := m.Statuses(); len(all) != len(names)-1 {
		t.Errorf("%d databases are left: %+v", len(all), all)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(warned) > 0 { // it is an ordinary event there
		t.Errorf("%q", warned)
	}
}
