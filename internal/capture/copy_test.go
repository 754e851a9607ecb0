package capture

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// TestCopyNotes: an entry need not have the pages that a growth made zero.
func TestCopyNotes(t *testing.T) {
	var c copying
	c.note(&segment.Entry{PreCommit: 9, MinCommit: 3, Commit: 6, Blocks: []segment.Block{{Pages: []segment.Page{{No: 2}, {No: 5}}}}})
	c.note(&segment.Entry{PreCommit: 6, MinCommit: 8, Commit: 8})
	var got []uint64
	for no := range c.todo.All() {
		got = append(got, no)
	}
	if !slices.Equal(got, []uint64{2, 4, 5, 6, 7, 8}) {
		t.Errorf("pages %v", got)
	}
}

// TestCopyUnseenWrite: in rollback-journal modes another program's write may not
// show in the file's times. A copy that meets it is lost, and has the database
// compared.
func TestCopyUnseenWrite(t *testing.T) {
	d, c := openTest(t, Options{})
	must(t, c.Exec("PRAGMA journal_mode=delete; INSERT INTO t VALUES(randomblob(90000))"))
	must(t, d.Begin(t.Context(), local.StartAdopt, local.Tail{}))
	req := local.CopyRequest{
		Pages: func(context.Context, uint64) (*local.PageSet, error) { return nil, nil },
		Final: func(uint64) {},
		Write: func(b segment.Block, _ []byte) error {
			t.Errorf("%d pages were written", len(b.Pages))
			return nil
		},
	}
	f, err := os.OpenFile(d.opts.Path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("they"), 4*4096+2000)
	must(t, err)
	d.mu.Lock()
	d.emptied = fingerprint(d.opts.Path)
	d.mu.Unlock()
	if _, err := d.Copy(t.Context(), req); !errors.Is(err, local.ErrCopyLost) {
		t.Fatal(err)
	}
	if !d.needsRepair() {
		t.Fatal("the database is not compared")
	}
	must(t, d.repair(t.Context()))
	es := d.Take(1 << 30)
	if e := es[len(es)-1]; len(es) != 2 || e.Kind != segment.Repair || len(e.Blocks) != 1 || len(e.Blocks[0].Pages) != 1 || e.Blocks[0].Pages[0].No != 5 {
		t.Fatalf("%d entries, the last one %+v", len(es), e)
	}
	req.Write = func(segment.Block, []byte) error { return nil }
	got, err := d.Copy(t.Context(), req)
	must(t, err)
	if got.Emitted != 2 || got.Checksum != d.table.sum || got.Commit != d.table.size() {
		t.Errorf("%+v", got)
	}
}
