package capture

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/embed"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// openTest makes a database in WAL mode, with a connection without capture, and
// its capture, not begun.
func openTest(t *testing.T, opts Options) (*DB, *sqlite3.Conn) {
	t.Helper()
	opts.Path = filepath.Join(t.TempDir(), "t.db")
	c, err := sqlite3.Open("file:" + opts.Path)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, c.Exec("PRAGMA journal_mode=wal; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(a)"))
	opts.Dir, err = local.Open(opts.Path)
	must(t, err)
	d, err := Open(opts)
	must(t, err)
	t.Cleanup(func() {
		d.Close()
		opts.Dir.Close()
	})
	return d, c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestLookTornIndex: a writer is between the two copies of the WAL-index header
// for longer than anybody waits. The log may not be taken to be over.
func TestLookTornIndex(t *testing.T) {
	d, c := openTest(t, Options{})
	must(t, c.Exec("INSERT INTO t VALUES(1)"))
	p, err := d.openPin()
	must(t, err)
	defer p.close()
	must(t, p.begin())
	defer p.end()

	v, err := d.look()
	must(t, err)
	v.close()
	if v.onlyFile || v.mark.frame == 0 {
		t.Fatalf("nothing is in the file yet, and the view is %+v", v)
	}
	f, err := os.OpenFile(d.opts.Path+"-shm", os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var second [48]byte
	_, err = f.ReadAt(second[:], 48)
	must(t, err)
	_, err = f.WriteAt(make([]byte, 48), 48)
	must(t, err)
	v, err = d.look()
	if err == nil {
		v.close()
		t.Errorf("the view is %+v", v)
	}
	if _, err := d.index(); err == nil {
		t.Error("capture takes the log to be empty")
	}
	_, err = f.WriteAt(second[:], 48)
	must(t, err)
	v, err = d.look()
	must(t, err)
	v.close()
}

// TestMemoryLimitAfterGates: what a gate wrote to the spool gives its memory back,
// too, once there is too much.
func TestMemoryLimitAfterGates(t *testing.T) {
	d, _ := openTest(t, Options{MemoryLimit: 1000})
	d.phase = live
	for range 10 {
		d.queue.push(&queued{
			entry: &segment.Entry{Kind: segment.Transaction, Count: 1, Body: segment.BytesBody(make([]byte, 600))}, size: 600,
		})
		must(t, d.spill(false)) // as at a gate
		if d.queue.memory() > d.opts.MemoryLimit {
			must(t, d.spill(true)) // as after a capture
		}
	}
	if n := d.queue.memory(); n > d.opts.MemoryLimit {
		t.Errorf("%d bytes in memory, the limit is %d", n, d.opts.MemoryLimit)
	}
	for _, e := range d.Take(1 << 30) {
		b := make([]byte, 600)
		if n, err := e.Body.ReadAt(b, 0); n != 600 {
			t.Fatal(n, err)
		}
	}
}
