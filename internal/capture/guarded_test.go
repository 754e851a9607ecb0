package capture

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/local"
)

// TestCleanAfterLetGo: what is committed to a log that was let go, but not restarted
// because of a reader, is not in the file: no clean-close record says that it is.
func TestCleanAfterLetGo(t *testing.T) {
	d, c := openTest(t, Options{Guarded: true})
	must(t, d.Begin(context.Background(), local.StartAdopt, local.Tail{}))
	reader, err := sqlite3.Open("file:" + d.opts.Path)
	must(t, err)
	defer reader.Close()
	must(t, reader.Exec("BEGIN; SELECT count(*) FROM t"))
	if _, _, err := c.WALCheckpoint("main", sqlite3.CHECKPOINT_PASSIVE); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := d.LetGo(true); err != nil || !ok {
		t.Fatal(ok, err)
	}
	must(t, c.Exec("INSERT INTO t VALUES(randomblob(3000))"))
	must(t, d.Capture(context.Background()))
	d.Acknowledge(len(d.Take(1 << 20)))
	must(t, d.Close())
	if _, err := os.Stat(d.opts.Path + local.Suffix + "/clean"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a clean-close record: %v", err)
	}
}
