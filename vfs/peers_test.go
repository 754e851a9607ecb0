package vfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/testclock"
	"github.com/outwash/outwash/replicate"
)

// What was measured of other programs that replicate SQLite, and must be better
// here:
//
//	two hosts on one path                       TestPeersTwoHosts; killtest TestTwoProcesses
//	deleted and recreated while replicating     TestPeersRecreated
//	page_size changed while stopped             TestPeersPageSize
//	AWS_CA_BUNDLE set                           s3store TestCABundle
//	TRUNCATE by the application                 TestPeersTruncate
//	commit → object                             TestPeersOneUpload
//	commits → points to restore to              TestPeers1200Commits
//	requests of a restore                       TestPeers1200Commits; replicate TestRequests
//	requests of an idle database                TestPeersIdle
//	first replication                           TestPeersFirstReplication
//	local disk for staging                      TestPeersStaging
//
// Their bugs are in others_test.go.

// until polls, for as long as the slowest machine may take.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(slowest); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("it didn't happen:", what)
		}
	}
}

// TestPeersTwoHosts: two machines with a database each replicate to one path. The
// second is fenced or refused, and hears by whom; a restore is the first's.
func TestPeersTwoHosts(t *testing.T) {
	a := newWorld(t, Options{CloseTimeout: -1})
	b := a.machine("b")
	// Both find an empty path, and begin.
	ca, cb := a.open(), b.open()
	exec(t, ca, "PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES('a')")
	a.sync()
	if err := cb.Exec("PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES('b'); INSERT INTO t VALUES('b')"); err != nil {
		t.Log(err)
	}
	_, err := syncNow(b)
	var fenced *replicate.FencedError
	if !errors.As(err, &fenced) || fenced.Owner == nil || fenced.Owner.PID != os.Getpid() {
		t.Errorf("not fenced by name: %v", err)
	}
	if err := cb.Exec("INSERT INTO t VALUES('b')"); !errors.Is(err, sqlite3.READONLY) {
		t.Error("the fenced one writes on:", err)
	}
	must(t, cb.Close())
	must(t, queryImage(a.restore(0), "SELECT group_concat(a) FROM t", "a"))
	// It comes back, with what it has, and once more with nothing.
	b.refused(replicate.ErrDiverged, []string{"outwash adopt"})
	for _, suffix := range []string{"", "-wal", "-shm"} {
		os.Remove(b.path + suffix)
	}
	must(t, os.RemoveAll(b.path+local.Suffix))
	b.refused(replicate.ErrMissing, []string{"outwash restore"})
	exec(t, ca, "INSERT INTO t VALUES('a again')")
	a.finish(ca)
}

// TestPeersPageSize: the page size changes while the program is stopped.
func TestPeersPageSize(t *testing.T) {
	for _, size := range []int{512, 65536} {
		for _, journal := range []string{"wal", "delete"} {
			t.Run(fmt.Sprint(size, journal), func(t *testing.T) {
				repairForeign(t, "down", fmt.Sprintf("PRAGMA journal_mode=delete; PRAGMA page_size=%d; VACUUM; PRAGMA journal_mode=%s", size, journal))
			})
		}
	}
}

// TestPeersTruncate: the application's own TRUNCATE is never busy because of us,
// right behind its commits, and the WAL is empty then.
func TestPeersTruncate(t *testing.T) {
	w := newWorld(t, Options{})
	w.strict()
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; PRAGMA busy_timeout=0; CREATE TABLE t(a)")
	w.sync() // a first look at an empty database reads nothing
	for i := range 50 {
		exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d); INSERT INTO t VALUES(randomblob(5000))", i))
		if got := text(t, c, "PRAGMA wal_checkpoint(TRUNCATE)"); got != "0" {
			t.Errorf("TRUNCATE %d returns %s", i, got)
		}
		if fi, err := os.Stat(w.path + "-wal"); err != nil || fi.Size() > 0 {
			t.Errorf("the WAL has %d bytes, %v", fi.Size(), err)
		}
	}
	w.finish(c)
}

// TestPeersOneUpload: between a commit and its object in the store there is one
// request and no waiting: the clock stands still. Without commits there is no
// request at all, however much time passes.
func TestPeersOneUpload(t *testing.T) {
	clock := testclock.New(time.Now())
	opts := Options{MaxLag: time.Second}
	opts.hooks.clock = clock
	w := newWorld(t, opts)
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	txid := w.sync()
	var longest time.Duration
	for i := range 20 {
		clock.Move(2 * time.Second) // a pause
		before := w.store.Total()
		start := time.Now()
		exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		txid++
		until(t, "the commit is in the store", func() bool {
			s, err := Stat(w.path)
			return err == nil && s.TXID == txid
		})
		longest = max(longest, time.Since(start))
		if n := w.store.Total() - before; n != 1 {
			t.Errorf("commit %d took %d requests", i, n)
		}
	}
	t.Log("longest from BEGIN to acknowledged:", longest)
	w.finish(c)
}

// TestPeersIdle: an idle database makes no request, neither while it is open nor
// while it isn't, however often it is looked at. That history is left alone as well is
// TestMonth's: what the last upload began may end while the clock moves here.
func TestPeersIdle(t *testing.T) {
	clock := testclock.New(time.Now())
	const off = replicate.Forever
	opts := Options{MaxLag: time.Second, Keep: replicate.Keep{Log: off, Pages: off, Snapshots: off, PagesEvery: off, SnapshotEvery: off}}
	opts.hooks.clock = clock
	w := newWorld(t, opts)
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	w.sync()
	idle := func() {
		t.Helper()
		db, before := w.databases()[0], w.store.Total()
		for range 30 {
			looks := db.capture.Stats().Captures
			db.capture.Signal()
			until(t, "capture looks", func() bool { return db.capture.Stats().Captures > looks })
			clock.Move(time.Hour)
		}
		if n := w.store.Total() - before; n != 0 {
			t.Errorf("%d requests while idle", n)
		}
	}
	idle()
	text(t, c, "SELECT count(*) FROM t") // reading is idle, too
	must(t, c.Close())
	idle()
	before := w.store.Total()
	c = w.open()
	if n := w.store.Total() - before; n != 0 {
		t.Errorf("opening it again took %d requests", n)
	}
	idle()
	w.finish(c)
}

// TestPeers1200Commits: each of 1200 commits can be restored, by number and by
// time, and a restore asks little.
func TestPeers1200Commits(t *testing.T) {
	const commits = 1200
	w := newWorld(t, Options{})
	times := map[uint64]int64{}
	last := uint64(2) // a claim and the table
	w.each = func(e *segment.Entry) error {
		if e.Count != 1 || e.Kind != segment.Transaction {
			return fmt.Errorf("%s of %d commits", e.Kind, e.Count)
		}
		times[last] = e.LastMono
		last++
		return nil
	}
	c := w.open()
	exec(t, c, "PRAGMA journal_mode=wal; PRAGMA synchronous=normal; CREATE TABLE t(a INTEGER PRIMARY KEY)")
	for i := 1; i <= commits; i++ {
		exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		if i%25 == 0 { // more than mergeRate a second would share entries
			w.sync()
		}
	}
	newest := w.sync()
	if newest != commits+2 {
		t.Errorf("TXID %d after %d commits", newest, commits)
	}
	h, err := replicate.ReadHistory(t.Context(), w.store)
	must(t, err)
	points := uint64(0)
	for _, r := range h.Ranges {
		points += r.To - r.From + 1
	}
	if points < commits {
		t.Errorf("%d points to restore to: %+v", points, h.Ranges)
	}
	// What is uploaded with the claim has a time that isn't before the claim's.
	for txid := uint64(30); txid <= newest; txid += 130 {
		for _, by := range []string{"txid", "time"} {
			o := replicate.RestoreOptions{Store: w.store, Output: filepath.Join(t.TempDir(), "out"), TXID: txid}
			if by == "time" {
				o.TXID, o.Timestamp = 0, time.UnixMicro(times[txid])
			}
			lists := w.store.Count(faultstore.List)
			r, err := replicate.Restore(t.Context(), o)
			must(t, err)
			if n := w.store.Count(faultstore.List) - lists; n > 4 {
				t.Errorf("%d listings", n)
			}
			image, err := os.ReadFile(o.Output)
			must(t, err)
			if r.TXID != txid {
				t.Errorf("by %s: TXID %d, want %d", by, r.TXID, txid)
			}
			must(t, queryImage(image, "SELECT count(*) FROM t", fmt.Sprint(txid-2)))
		}
	}
	w.finish(c)
}

// TestPeersFirstReplication sends a database that is there already once.
func TestPeersFirstReplication(t *testing.T) {
	w := newWorld(t, Options{})
	w.existing("wal", 6000)
	fi, err := os.Stat(w.path)
	must(t, err)
	c := w.open()
	w.sync()
	exec(t, c, "CREATE TABLE t(a)")
	for i := range 20 {
		exec(t, c, fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		w.sync()
	}
	s, err := Stat(w.path)
	must(t, err)
	t.Logf("%d bytes of database, %d uploaded, %d stored", fi.Size(), s.Uploaded, w.stored())
	if most := fi.Size() * 105 / 100; s.Uploaded > most || w.stored() > most || w.store.Count(faultstore.Upload) != 1 {
		t.Errorf("%d bytes uploaded, %d stored, %d uploads of data", s.Uploaded, w.stored(), w.store.Count(faultstore.Upload))
	}
	w.finish(c)
}

// TestPeersStaging: while the store answers nothing is staged on this machine.
func TestPeersStaging(t *testing.T) {
	w := newWorld(t, Options{})
	w.existing("wal", 2000)
	c := w.open()
	w.sync() // else the first gate meets the whole database
	exec(t, c, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	var most int64
	for i := range 40 {
		exec(t, c, "INSERT INTO t(b) VALUES(randomblob(100000))")
		w.sync()
		exec(t, c, fmt.Sprintf("PRAGMA wal_checkpoint(%s)", []string{"PASSIVE", "TRUNCATE"}[i%2]))
		var n int64
		must(t, filepath.WalkDir(w.path+local.Suffix, func(path string, d fs.DirEntry, err error) error {
			if fi, err := d.Info(); err == nil && !d.IsDir() && !strings.HasSuffix(path, "/clean") {
				n += fi.Size()
			}
			return err
		}))
		most = max(most, n)
		if s, err := Stat(w.path); err != nil || s.Spooled > 0 {
			t.Errorf("%d entries in the spool, %v", s.Spooled, err)
		}
	}
	t.Log("at most", most, "bytes of local state")
	if most > 32<<10 {
		t.Errorf("%d bytes are kept on this machine", most)
	}
	must(t, mirror.Check(w.restore(0), true))
	w.finish(c)
}
