package vfs

import (
	"os"
	"testing"
	"time"
)

// TestFigures: Stat counts what was done for a database, a restore and what that read
// included, and says since when its state is what it is.
func TestFigures(t *testing.T) {
	w := newWorld(t, Options{})
	before := time.Now()
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	for range 10 {
		exec(t, c, "INSERT INTO t VALUES(randomblob(100))")
	}
	w.sync()
	s, err := Stat(w.path)
	must(t, err)
	if f := s.Figures; f.Commits != 11 || f.Entries.Transactions+f.Entries.Merges == 0 || f.Entries.Claims != 1 || f.Store.Create.Sent == 0 || f.Restores != 0 {
		t.Errorf("%+v", f)
	}
	if s.StateSince.Before(before) || s.StateSince.After(time.Now()) {
		t.Errorf("%s since %s", s.State, s.StateSince)
	}
	must(t, c.Close())
	w.shutdown()
	must(t, os.Remove(w.path))

	gets := w.store.Count("get")
	c = w.open("replica_restore=auto")
	s, err = Stat(w.path)
	must(t, err)
	f := s.Figures
	if n := uint64(w.store.Count("get") - gets); f.Restores != 1 || f.Store.Get.Count+f.Store.GetRange.Count != n || f.Store.Get.Received+f.Store.GetRange.Received < 1000 {
		t.Errorf("%d reads: %+v", n, f)
	}
	must(t, c.Close())
	w.shutdown()
}
