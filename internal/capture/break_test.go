package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3"
	_ "github.com/ncruces/go-sqlite3/embed"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/wal"
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

// syncing calls f before each sync of a WAL.
type syncing struct {
	vfs.VFS
	f func()
}

func (v *syncing) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	f, out, err := vfsutil.WrapOpenFilename(v.VFS, name, flags)
	if err == nil && flags&vfs.OPEN_WAL != 0 {
		f = &syncingWAL{f, v}
	}
	return f, out, err
}

type syncingWAL struct {
	vfs.File
	v *syncing
}

func (f *syncingWAL) Sync(flags vfs.SyncFlag) error {
	f.v.f()
	return f.File.Sync(flags)
}

// TestLookFirstCommit: the first commit of a log is written, and not yet in the
// WAL-index, which has no salts before it, or those of a header that a crash tore.
// The mark may not pass it.
func TestLookFirstCommit(t *testing.T) {
	for _, torn := range []bool{false, true} {
		t.Run(fmt.Sprint("torn=", torn), func(t *testing.T) { lookFirstCommit(t, torn) })
	}
}

func lookFirstCommit(t *testing.T, torn bool) {
	d, c := openTest(t, Options{})
	if torn {
		must(t, c.Exec("INSERT INTO t VALUES(1)"))
		header := make([]byte, wal.HeaderSize)
		f, err := os.Open(d.opts.Path + "-wal")
		must(t, err)
		_, err = f.ReadAt(header, 0)
		must(t, errors.Join(err, f.Close()))
		header[31]++
		must(t, c.Close())
		must(t, os.WriteFile(d.opts.Path+"-wal", header, 0o600))
	} else {
		must(t, c.Close()) // the WAL is gone
	}
	var checked []uint32
	committing := true
	v := &syncing{VFS: vfs.Find(""), f: func() {
		if !committing {
			return
		}
		p, err := d.openPin()
		must(t, err)
		defer p.close()
		must(t, p.begin())
		defer p.end()
		v, err := d.look()
		must(t, err)
		defer v.close()
		h, err := wal.ReadHeader(v.wal)
		must(t, err)
		w, err := walk(v.wal, v.pageSize, mark{salt: h.Salt, bigEnd: h.BigEndian, checksum: h.Checksum}, 1<<31, &buffers{})
		must(t, err)
		checked = append(checked, w.end.frame)
		if v.mark.frame != 0 || !v.onlyFile {
			t.Errorf("nothing is committed, the log has %d frames, and the mark is at %d", w.end.frame, v.mark.frame)
		}
	}}
	vfs.Register("syncing", v)
	defer vfs.Unregister("syncing")
	c, err := sqlite3.Open("file:" + d.opts.Path + "?vfs=syncing")
	must(t, err)
	defer c.Close()
	must(t, c.Exec("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES(1)"))
	committing = false
	if len(checked) != 2 || checked[1] != 1 {
		t.Errorf("frames in the log at syncs: %v", checked)
	}
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

// TestTakenEntry: what the engine does to an entry that it has taken doesn't touch
// what a gate may be writing to the spool at that moment.
func TestTakenEntry(t *testing.T) {
	d, _ := openTest(t, Options{})
	d.queue.push(&queued{entry: &segment.Entry{Count: 1, FirstMono: 1, LastMono: 2}})
	d.Take(1)[0].LiftTimes(100)
	_, recs := d.queue.unspooled()
	if e := recs[0].Entry; e.FirstMono != 1 || e.LastMono != 2 {
		t.Errorf("the times are now %d, %d", e.FirstMono, e.LastMono)
	}
}
