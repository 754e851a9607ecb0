//go:build linux

package sidecar

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/stocksqlite"
	"github.com/outwash/outwash/replicate"
)

// TestAppearsBetween: a database that is made between the guard's look and that of
// what compares it with the replica is looked at again: else nobody would guard it,
// nor hear of its commits. (Another path for the guard's look stands for the moment.)
func TestAppearsBetween(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.db")
	dir, err := local.Open(path)
	must(t, err)
	defer dir.Close()
	c, err := capture.Open(capture.Options{Path: path, Dir: dir, Guarded: true, Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	defer c.Close()
	src := &source{DB: c, s: &session{path: path + "-not-yet"}}
	if ev, err := src.Evidence(t.Context(), replicate.Tail{}); err != nil || ev.File != replicate.FileMissing {
		t.Errorf("without a file: %+v, %v", ev, err)
	}
	p := stocksqlite.Start(t, path)
	p.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	if _, err := src.Evidence(t.Context(), replicate.Tail{}); !errors.Is(err, local.ErrChanged) {
		t.Errorf("a file without a guard: %v", err)
	}
}
