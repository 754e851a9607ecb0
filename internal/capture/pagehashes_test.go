package capture

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// Page hashes are those of the committed state, wherever it is: in the log, in the
// file, or in both; and reading them changes nothing.
func TestPageHashes(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		t.Run(mode, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "db")
			db, err := sqlite3.Open("file:" + path + "?_pragma=journal_mode(" + mode + ")&_pragma=wal_autocheckpoint(0)")
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			exec := func(sql string) {
				t.Helper()
				if err := db.Exec(sql); err != nil {
					t.Fatal(err)
				}
			}
			check := func() []uint64 {
				t.Helper()
				before := content(t, path)
				size, got, err := PageHashes(t.Context(), path)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(before, content(t, path)) {
					t.Error("database or log have changed")
				}
				copied := filepath.Join(t.TempDir(), "copy")
				exec("VACUUM main INTO '" + copied + "'") // as many pages: nothing was deleted
				if fi, err := os.Stat(copied); err != nil || fi.Size() != int64(size)*int64(len(got)) {
					t.Errorf("%d pages of %d bytes: %v, %v", len(got), size, fi.Size(), err)
				}
				return got
			}
			exec("CREATE TABLE t(a); INSERT INTO t VALUES (zeroblob(100000))")
			first := check()
			exec("INSERT INTO t VALUES (randomblob(50000))")
			second := check()
			if len(second) <= len(first) {
				t.Errorf("%d pages, then %d", len(first), len(second))
			}
			if mode == "wal" {
				exec("PRAGMA wal_checkpoint(PASSIVE)")
				if !slices.Equal(check(), second) {
					t.Error("a checkpoint changed the state")
				}
				exec("PRAGMA wal_checkpoint(TRUNCATE)")
			}
			if !slices.Equal(check(), second) {
				t.Error("other hashes from the file alone")
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for i, h := range second {
				if segment.PageHash(uint64(i)+1, b[i*4096:(i+1)*4096]) != h {
					t.Errorf("page %d", i+1)
				}
			}
			// What isn't committed is not there.
			exec("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
			if _, got, err := PageHashes(t.Context(), path); err != nil || !slices.Equal(got, second) {
				t.Errorf("while it is written: %v", err)
			}
			exec("ROLLBACK")
		})
	}
	path := filepath.Join(t.TempDir(), "missing")
	if _, _, err := PageHashes(t.Context(), path); err == nil || errors.Is(err, local.ErrLocked) {
		t.Errorf("missing: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
}

// While a program writes and checkpoints, what is read is one of the states between
// its commits.
func TestPageHashesWhileWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := sqlite3.Open("file:" + path + "?_pragma=journal_mode(wal)&_pragma=wal_autocheckpoint(5)&_pragma=busy_timeout(60000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Exec("CREATE TABLE t(a)"); err != nil {
		t.Fatal(err)
	}
	read := func() (uint64, error) {
		_, hashes, err := PageHashes(t.Context(), path)
		sum := uint64(len(hashes))
		for _, h := range hashes {
			sum ^= h
		}
		return sum, err
	}
	states := map[uint64]bool{}
	note := func() {
		sum, err := read()
		if err != nil {
			t.Fatal(err)
		}
		states[sum] = true
	}
	note()
	stop, stopped := make(chan struct{}), make(chan struct{})
	var seen []uint64
	var reads atomic.Int64
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			sum, err := read()
			if err != nil {
				t.Error(err)
				return
			}
			seen = append(seen, sum)
			reads.Add(1)
		}
	}()
	for i := 0; (i < 60 || reads.Load() == 0) && !t.Failed(); i++ {
		if err := db.Exec("INSERT INTO t VALUES (randomblob(3000))"); err != nil {
			t.Fatal(err)
		}
		note()
	}
	close(stop)
	<-stopped
	for _, sum := range seen {
		if !states[sum] {
			t.Fatalf("checksum %016x is no state's", sum)
		}
	}
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := os.ReadFile(path + "-wal")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return append(b, w...)
}
