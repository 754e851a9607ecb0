package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/replicate"
)

// someReplica makes a replica, in a directory with room for databases.
func someReplica(t *testing.T) (dir string, store replicate.Store) {
	t.Helper()
	dir = t.TempDir()
	if err := buildReplica(filepath.Join(dir, "r"), ""); err != nil {
		t.Fatal(err)
	}
	store, err := replicate.OpenStore(t.Context(), "file://"+filepath.Join(dir, "r"))
	if err != nil {
		t.Fatal(err)
	}
	return dir, store
}

// TestRestoreOverOpenDatabase: a database that a program has open isn't replaced: it
// would go on with the old file, and what it commits there would be lost.
func TestRestoreOverOpenDatabase(t *testing.T) {
	dir, store := someReplica(t)
	db := filepath.Join(dir, "app.db")
	c, err := sqlite3.Open("file:" + db)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Exec("PRAGMA journal_mode=wal; CREATE TABLE mine(n)"); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(db)
	if err != nil {
		t.Fatal(err)
	}
	o := replicate.RestoreOptions{Store: store, Output: db, Force: true}
	if _, err := replicate.Restore(t.Context(), o); !errors.Is(err, local.ErrInUse) || codeOf(err) != codeBusy {
		t.Fatalf("restored over a database in use: %v", err)
	}
	if after, err := os.Stat(db); err != nil || !os.SameFile(before, after) {
		t.Fatalf("it is another file: %v", err)
	}
	o.DryRun = true
	if _, err := replicate.Restore(t.Context(), o); err != nil {
		t.Errorf("a dry run: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	o.DryRun = false
	if _, err := replicate.Restore(t.Context(), o); err != nil {
		t.Error(err)
	}
}

// TestRestoreOverLink: it says what to name.
func TestRestoreOverLink(t *testing.T) {
	dir, store := someReplica(t)
	link := filepath.Join(dir, "link.db")
	if err := os.Symlink("app.db", link); err != nil {
		t.Fatal(err)
	}
	_, err := replicate.Restore(t.Context(), replicate.RestoreOptions{Store: store, Output: link, Force: true})
	if codeOf(err) != codeExists || !strings.Contains(err.Error(), "name the file that it leads to") {
		t.Error(err)
	}
}
