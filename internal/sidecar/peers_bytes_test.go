//go:build linux

package sidecar_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore/faultstore"
)

// existing makes a database of n rows of about 4 KB.
func (h *host) existing(n int) {
	p := h.app()
	p.Must("PRAGMA journal_mode=wal; CREATE TABLE big(a INTEGER PRIMARY KEY, b)")
	p.Must("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<?) INSERT INTO big SELECT x, randomblob(4000) FROM c", n)
	must(h.t, p.Close())
}

// stored is how many bytes the store has.
func (h *host) stored() (n int64) {
	for info, err := range h.store.Inner().List(context.Background(), "", "") {
		must(h.t, err)
		n += info.Size
	}
	return n
}

// TestPeersFirstReplication sends a database that is there already once, while it is
// written.
func TestPeersFirstReplication(t *testing.T) {
	h := newHost(t, nil)
	h.existing(6000)
	fi, err := os.Stat(h.path)
	must(t, err)
	h.start()
	p := h.app()
	p.Must("CREATE TABLE t(a)")
	for i := range 20 {
		p.Must(fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
		h.sync()
	}
	s := h.db.Status()
	t.Logf("%d bytes of database, %d uploaded, %d stored", fi.Size(), s.Uploaded, h.stored())
	if most := fi.Size() * 105 / 100; s.Uploaded > most || h.stored() > most || h.store.Count(faultstore.Upload) != 1 {
		t.Errorf("%d bytes uploaded, %d stored, %d uploads of data", s.Uploaded, h.stored(), h.store.Count(faultstore.Upload))
	}
	must(t, p.Close())
	h.finish()
}

// TestPeersStaging: while the store answers nothing is staged on this machine.
func TestPeersStaging(t *testing.T) {
	h := newHost(t, nil)
	h.existing(2000)
	h.ready()
	p := h.app()
	p.Must("CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
	var most int64
	for i := range 40 {
		p.Must("INSERT INTO t(b) VALUES(randomblob(100000))")
		h.sync()
		_, err := p.Checkpoint([]string{"PASSIVE", "TRUNCATE"}[i%2])
		must(t, err)
		most = max(most, h.localBytes())
		if s := h.db.Status(); s.Spooled > 0 {
			t.Errorf("%d entries in the spool", s.Spooled)
		}
	}
	t.Log("at most", most, "bytes of local state")
	if most > 32<<10 {
		t.Errorf("%d bytes are kept on this machine", most)
	}
	must(t, p.Close())
	h.finish()
}

// TestPeersSmallTransactions: what small transactions on a database with indexes
// take in the log, all of its objects.
func TestPeersSmallTransactions(t *testing.T) {
	h := newHost(t, nil)
	p := h.app()
	// No checkpoint of its own: on a busy machine it overtakes pages before they are
	// captured, which then are kept whole.
	p.Must("PRAGMA wal_autocheckpoint=0; PRAGMA journal_mode=wal; CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c); CREATE INDEX ta ON t(a); CREATE INDEX tb ON t(b)")
	p.Must("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<20000) INSERT INTO t SELECT x, hex(randomblob(8)), random(), hex(randomblob(50)) FROM c")
	h.opts.MaxLag = time.Second
	h.ready()
	before := h.stored()
	const n = 300
	for i := range n {
		p.Must(fmt.Sprintf("UPDATE t SET a=hex(randomblob(8)), b=random() WHERE id=%d", i*61))
	}
	h.sync()
	each := (h.stored() - before) / n
	t.Logf("%d bytes a transaction", each)
	// 158 for the pages; 3.6 KB where pages are kept whole.
	if each > 1500 {
		t.Errorf("%d bytes a transaction", each)
	}
	must(t, p.Close())
	h.finish()
}
