//go:build linux

package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/testclock"

	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/s3proxy"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/stocksqlite"
	"github.com/outwash/outwash/internal/versitygw"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/s3store"
)

// What was measured of other programs that replicate SQLite from beside, and must be
// better here (vfs/peers_test.go has the same of databases opened through the VFS):
//
//	two hosts on one path                       TestPeersTwoHosts
//	deleted and recreated while replicating     TestPeersRecreated
//	page_size changed while stopped             TestPeersPageSize
//	AWS_CA_BUNDLE set                           TestPeersCABundle
//	TRUNCATE by the application                 TestPeersTruncate
//	commit → object                             TestPeersOneUpload
//	commits → points to restore to              TestPeers1200Commits
//	requests of a restore                       TestPeers1200Commits
//	requests of an idle database                TestPeersIdle
//	first replication                           TestPeersFirstReplication
//	local disk for staging                      TestPeersStaging
//	bytes of small transactions                 TestPeersSmallTransactions

func queryText(t testing.TB, image []byte, sql string) (got string) {
	t.Helper()
	must(t, mirror.Query(image, func(c *sqlite3.Conn) (err error) {
		got, err = mirror.Text(c, sql)
		return err
	}))
	return got
}

// refused waits until the sidecar says that it can't replicate, and why.
func (h *host) refused(want error, says ...string) {
	h.t.Helper()
	ctx, cancel := limit()
	defer cancel()
	_, err := h.db.Sync(ctx)
	if !errors.Is(err, want) {
		h.t.Fatalf("%v, want %v (%+v)", err, want, h.db.Status())
	}
	s := h.db.Status()
	if s.Error == "" || s.Remedy == "" || s.State != replicate.StateFailed && s.State != replicate.StateFenced {
		h.t.Errorf("status: %+v", s)
	}
	for _, part := range says {
		if !strings.Contains(s.Error+s.Remedy, part) {
			h.t.Errorf("%q is not in %q, %q", part, s.Error, s.Remedy)
		}
	}
}

// TestPeersTwoHosts: the second one on a path is refused if it has another database,
// and takes over, by name, if it has the replica's; what is restored is one of both.
func TestPeersTwoHosts(t *testing.T) {
	a := newHost(t, nil)
	pa := a.app()
	pa.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES('a')")
	a.ready()

	other := newHost(t, a.store)
	po := other.app()
	po.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES('other')")
	other.start()
	other.refused(replicate.ErrDiverged, "outwash adopt")
	pa.Must("INSERT INTO t VALUES('more of a')")
	a.sync()
	query(t, a.restore(0), "SELECT group_concat(a) FROM t", "a,more of a")

	b := newHost(t, a.store)
	must(t, os.WriteFile(b.path, a.restore(0), 0o600))
	b.ready()
	pb := b.app()
	pb.Must("INSERT INTO t VALUES('b')")
	b.sync()
	pa.Must("INSERT INTO t VALUES('nobody gets this')")
	a.refused(replicate.ErrFenced)
	if s := a.db.Status(); s.FencedBy == nil || s.FencedBy.Owner == nil || s.FencedBy.Owner.PID != os.Getpid() {
		t.Errorf("fenced by %+v", s.FencedBy)
	}
	must(t, pa.Close())
	must(t, po.Close())
	must(t, pb.Close())
	b.finish()
	query(t, b.restore(0), "SELECT group_concat(a) FROM t", "a,more of a,b")
}

// TestPeersRecreated: the file is deleted and made anew while it is replicated. That
// is an error which says so, and what was replicated stays whole; or the new content
// is the next transaction.
func TestPeersRecreated(t *testing.T) {
	for _, how := range []string{"removed", "renamed over"} {
		t.Run(how, func(t *testing.T) {
			h := newHost(t, nil)
			p := h.app()
			p.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES('old')")
			before := h.ready()
			must(t, p.Close())
			if how == "removed" {
				for _, suffix := range []string{"", "-wal", "-shm"} {
					must(t, ignore(os.Remove(h.path+suffix), os.ErrNotExist))
				}
				n := h.app()
				n.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES('new')")
				must(t, n.Close())
			} else {
				n := stocksqlite.Start(t, h.path+".new")
				n.Must("CREATE TABLE t(a); INSERT INTO t VALUES('new')")
				must(t, n.Close())
				must(t, os.Rename(h.path+".new", h.path))
			}
			ctx, cancel := limit()
			defer cancel()
			// Its first answer may be of before: the system tells of files a moment later.
			h.until("it is noticed", func() bool {
				txid, err := h.db.Sync(ctx)
				return err != nil || txid > before
			})
			s := h.db.Status()
			switch got := queryText(t, h.restore(0), "SELECT group_concat(a) FROM t"); {
			case s.Error == "" && got == "new":
			case s.Error != "" && s.Remedy != "" && got == "old":
				t.Logf("%s: %s; %s", s.State, s.Error, s.Remedy)
			default:
				t.Errorf("restored: %q, %+v", got, s)
			}
			query(t, h.restore(before), "SELECT group_concat(a) FROM t", "old")
		})
	}
}

func ignore(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}

// TestPeersPageSize: the page size changes while the sidecar is stopped.
func TestPeersPageSize(t *testing.T) {
	for _, size := range []int{512, 65536} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			h := newHost(t, nil)
			p := h.app()
			p.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a, b)")
			p.Must("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<300) INSERT INTO t SELECT x, randomblob(300) FROM c")
			before := h.ready()
			h.stop()
			p.Must(fmt.Sprintf("PRAGMA journal_mode=delete; PRAGMA page_size=%d; VACUUM; PRAGMA journal_mode=wal; INSERT INTO t VALUES(0, 0)", size))
			if now := p.Text("PRAGMA page_size"); now != fmt.Sprint(size) {
				t.Fatalf("page size %s", now)
			}
			after := h.ready()
			p.Must("INSERT INTO t VALUES(0, 0)")
			if after <= before {
				t.Errorf("TXID %d, was %d", after, before)
			}
			must(t, p.Close())
			h.finish()
			query(t, h.restore(before), "SELECT count(*) FROM t", "300")
			query(t, h.restore(0), "SELECT count(*) FROM t", "302")
		})
	}
}

// TestPeersCABundle: a server whose certificate is of a CA that AWS_CA_BUNDLE names.
func TestPeersCABundle(t *testing.T) {
	gw := versitygw.Start(t)
	ca := s3proxy.NewCA(t)
	proxy := s3proxy.New(t, gw.Endpoint, s3proxy.Options{Certificate: ca.Issue("127.0.0.1")})
	t.Setenv("AWS_CA_BUNDLE", ca.File)
	h := newHost(t, nil)
	url := fmt.Sprintf("s3://%s/app?endpoint=%s", gw.Bucket, proxy.URL)
	h.opts.Open = func(ctx context.Context) (replicate.Store, error) { return s3store.Open(ctx, url, nil) }
	p := h.app()
	p.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a); INSERT INTO t VALUES('kept')")
	h.ready()
	p.Must("INSERT INTO t VALUES('too')")
	h.sync()
	store, err := s3store.Open(t.Context(), url, nil)
	must(t, err)
	query(t, restore(t, store, 0), "SELECT group_concat(a) FROM t", "kept,too")
	if len(proxy.Calls()) == 0 {
		t.Error("not a request went through TLS")
	}
	must(t, p.Close())
}

// TestPeersTruncate: the application's own TRUNCATE returns 0, right behind its
// commits and while another connection reads, and the log is empty then; the
// smaller modes are never in doubt.
func TestPeersTruncate(t *testing.T) {
	h := newHost(t, nil)
	p := h.app()
	p.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	txid := h.ready()
	h.onlyTransactions(txid + 1)
	modes := []string{"TRUNCATE", "TRUNCATE", "PASSIVE", "FULL", "RESTART"}
	var took []time.Duration
	for i := range 100 {
		p.Must(fmt.Sprintf("INSERT INTO t VALUES(%d); INSERT INTO t VALUES(randomblob(5000))", i))
		mode := modes[i%len(modes)]
		ck, err := p.Checkpoint(mode)
		must(t, err)
		took = append(took, ck.Took)
		if ck.Busy != 0 {
			t.Errorf("%s %d: %+v", mode, i, ck)
		}
		if fi, err := os.Stat(h.path + "-wal"); mode == "TRUNCATE" && (err != nil || fi.Size() > 0) {
			t.Errorf("the log has %d bytes, %v", fi.Size(), err)
		}
	}
	slices.Sort(took)
	t.Logf("checkpoints took %v (half of them), %v at most", took[len(took)/2], took[len(took)-1])
	if got := h.sync(); got != txid+200 {
		t.Errorf("TXID %d, want %d", got, txid+200)
	}
	must(t, p.Close())
	h.finish()
}

// TestPeersOneUpload: between a commit and its object in the store there is one
// request and no waiting: the clock stands still.
func TestPeersOneUpload(t *testing.T) {
	clock := testclock.New(time.Now())
	h := newHost(t, nil)
	h.opts.MaxLag = time.Second
	h.opts.Clock(clock)
	p := h.app()
	p.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	txid := h.ready()
	var took []time.Duration
	for i := range 40 {
		clock.Move(2 * time.Second) // a pause
		before := h.store.Total()
		p.Must(fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		began := time.Now()
		txid++
		h.until("the commit is in the store", func() bool { return h.db.Status().TXID == txid })
		took = append(took, time.Since(began))
		if n := h.store.Total() - before; n != 1 {
			t.Errorf("commit %d took %d requests", i, n)
		}
	}
	slices.Sort(took)
	t.Logf("from COMMIT to acknowledged: %v (half of them), %v at most", took[len(took)/2], took[len(took)-1])
	must(t, p.Close())
	h.finish()
}

// TestPeersIdle: an idle database makes no request, neither while programs have it
// open nor after, nor when it is only read.
func TestPeersIdle(t *testing.T) {
	clock := testclock.New(time.Now())
	const off = replicate.Forever
	h := newHost(t, nil)
	h.opts.MaxLag = time.Second
	h.opts.Keep = replicate.Keep{Log: off, Pages: off, Snapshots: off, PagesEvery: off, SnapshotEvery: off}
	h.opts.Clock(clock)
	p := h.app()
	p.Must("PRAGMA journal_mode=wal; CREATE TABLE t(a)")
	h.ready()
	idle := func(do func()) {
		t.Helper()
		before := h.store.Total()
		for range 30 {
			do()
			clock.Move(time.Hour)
		}
		time.Sleep(200 * time.Millisecond) // what was to come has come: nothing is waited for
		if n := h.store.Total() - before; n != 0 {
			t.Errorf("%d requests while idle", n)
		}
	}
	idle(func() {})
	idle(func() { p.Text("SELECT count(*) FROM t") })
	idle(func() {
		if _, err := p.Checkpoint("PASSIVE"); err != nil {
			t.Error(err)
		}
	})
	must(t, p.Close())
	idle(func() {})
	p = h.app()
	idle(func() { p.Text("SELECT count(*) FROM t") })
	p.Must("INSERT INTO t VALUES(1)")
	must(t, p.Close())
	h.finish()
}

// TestPeers1200Commits: each of 1200 commits can be restored, by number and by
// time, and a restore asks little. The guide's rate is 20 a second; this is ten
// times that, with the usual pace of uploads.
func TestPeers1200Commits(t *testing.T) {
	const before, commits = 100, 1200 // before: that were there when the sidecar was started
	h := newHost(t, nil)
	h.opts.MaxLag = replicate.DefaultMaxLag
	h.opts.EachItsEntry()
	must(t, stocksqlite.StartWork(t, stocksqlite.Work{Path: h.path, Commits: before}).Wait())
	h.ready()
	w := stocksqlite.StartWork(t, stocksqlite.Work{Path: h.path, Rate: 200, Commits: commits - before})
	must(t, w.Wait())
	newest := h.sync()
	r := w.Report()
	if r.Commits != commits-before || r.Highest != commits {
		t.Fatalf("%+v", r)
	}
	hist, err := replicate.ReadHistory(t.Context(), h.store)
	must(t, err)
	points := uint64(0)
	for _, r := range hist.Ranges {
		points += r.To - r.From + 1
	}
	// What was committed before the sidecar began is one transaction, the first.
	times := map[uint64]int64{}
	first, last := -1, -1
	h.each = func(e *segment.Entry, m *mirror.Mirror) error {
		image, _ := m.Image()
		if len(image) == 0 {
			return nil // a claim
		}
		times[e.MaxTXID] = e.LastMono
		n := 0
		err := mirror.Query(image, func(c *sqlite3.Conn) error {
			s, err := mirror.Text(c, "SELECT v FROM meta WHERE k='ctr'")
			if err == nil {
				_, err = fmt.Sscan(s, &n)
			}
			return err
		})
		if first < 0 {
			first = n
		} else if n != last+1 {
			return fmt.Errorf("from commit %d to %d", last, n)
		}
		last = n
		return err
	}
	h.finish()
	t.Logf("%d commits, of which %d were there at the start; %d points to restore to, %d uploads", commits, first, points, h.store.Count(faultstore.Create))
	if last != commits || first != before || points < uint64(commits-first+1) {
		t.Errorf("commits %d to %d, %d points: %+v", first, last, points, hist.Ranges)
	}
	for txid := newest; txid+uint64(commits-first) > newest; txid -= 130 {
		for _, by := range []string{"txid", "time"} {
			o := replicate.RestoreOptions{Store: h.store, Output: filepath.Join(t.TempDir(), "out"), TXID: txid}
			if by == "time" {
				o.TXID, o.Timestamp = 0, time.UnixMicro(times[txid])
			}
			lists := h.store.Count(faultstore.List)
			r, err := replicate.Restore(t.Context(), o)
			must(t, err)
			if n := h.store.Count(faultstore.List) - lists; n > 4 {
				t.Errorf("%d listings", n)
			}
			image, err := os.ReadFile(o.Output)
			must(t, err)
			if r.TXID != txid {
				t.Errorf("by %s: TXID %d, want %d", by, r.TXID, txid)
			}
			query(t, image, "SELECT v FROM meta WHERE k='ctr'", fmt.Sprint(commits-int(newest-txid)))
		}
	}
}
