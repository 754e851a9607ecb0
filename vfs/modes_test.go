package vfs

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/segment"
)

// TestModes: a random workload on one connection in every journal mode, with and
// without EXCLUSIVE locking, and every page size. Each commit is a transaction of
// its own, and what it makes is sound.
func TestModes(t *testing.T) {
	sizes := []int{512, 1024, 2048, 4096, 8192, 16384, 32768, 65536}
	n := 0
	for _, journal := range []string{"wal", "delete", "truncate", "persist", "memory", "off"} {
		for _, locking := range []string{"normal", "exclusive"} {
			// WAL has them all, each other pair two, taken in turn.
			round := sizes
			if journal != "wal" || locking != "normal" {
				round = []int{sizes[n%8], sizes[(n+4)%8]}
				n++
			}
			for _, size := range round {
				t.Run(fmt.Sprintf("%s/%s/%d", journal, locking, size), func(t *testing.T) {
					modesRound(t, rand.New(rand.NewPCG(*flagSeed, uint64(size))), journal, locking, size, "")
				})
			}
		}
	}
}

func modesRound(t *testing.T, r *rand.Rand, journal, locking string, size int, base string) {
	w := newWorld(t, Options{Base: base})
	if base != "" {
		overBase(w, base)
	}
	var counted, kinds atomic.Int64
	w.each = func(e *segment.Entry) error {
		if e.Kind == segment.Repair {
			return fmt.Errorf("repaired, although nobody else wrote")
		}
		counted.Add(int64(e.Count))
		kinds.Add(1)
		img, _ := w.mirror.Image()
		return mirror.Query(img, func(c *sqlite3.Conn) error { return mirror.CheckConn(c, kinds.Load()%3 == 0) })
	}
	// mode comes before anything is read: EXCLUSIVE then needs no WAL-index.
	c := w.open("_pragma=locking_mode("+locking+")", "_pragma=page_size("+fmt.Sprint(size)+")",
		"_pragma=auto_vacuum("+fmt.Sprint(r.IntN(3))+")", "_pragma=journal_mode("+journal+")")
	if got := text(t, c, "PRAGMA journal_mode"); got != journal {
		t.Fatalf("journal_mode is %s", got)
	}
	exec(t, c, "PRAGMA cache_size=10; BEGIN; "+schema+" COMMIT")
	var rolled atomic.Int64
	for i := range 40 {
		if journal == "off" { // a rollback would leave a database that is no transaction's
			exec(t, c, "BEGIN; "+randomBody(rand.New(rand.NewPCG(uint64(i), 3)), 0)+" COMMIT")
			continue
		}
		switch err := oneOperation(r, c, 0, &rolled); err {
		case nil, errReopen:
		default:
			t.Fatal(err)
		}
	}
	w.sync()
	changes := text(t, c, "SELECT v FROM meta WHERE k='ctr'")
	w.finish(c)
	t.Logf("page size %d: %s commits, %d rolled back, %d transactions in %d entries", size, changes, rolled.Load(), counted.Load(), kinds.Load())
}
