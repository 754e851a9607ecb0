package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ncruces/go-sqlite3"
)

// huge measures the memory of a snapshot and a restore of a database for which
// everything that grows with a database shows.
func huge(ctx context.Context, b *bench) error {
	dir, remove, err := b.scratch()
	if err != nil {
		return err
	}
	defer remove()
	a := snapshotArgs{}
	a.Database, a.Sync, a.Replica = filepath.Join(dir, "a.db"), "normal", b.replica("file", dir, "huge")
	b.say("  making a database …")
	if _, err := hugeTask(ctx, b, buildArgs{Database: a.Database, Bytes: b.sizes.huge}); err != nil {
		return err
	}
	b.say("  snapshot …")
	s, err := snapshotTask(ctx, b, a)
	if err != nil {
		return err
	}
	b.say("  restore …")
	r, err := restored(ctx, b, restoreArgs{Replica: a.Replica, Output: filepath.Join(dir, "restored.db")}, a.Database)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%.1f GB, file", float64(b.sizes.huge)/1e9)
	b.add(row{
		Case: "huge", What: "peak memory of the first snapshot of " + what, Unit: "B", Runs: []float64{float64(s.Peak)},
		Detail: []string{fmt.Sprintf("%s, %s sent", seconds(s.Result.Seconds), size(float64(s.Result.Uploaded)))},
	})
	b.restorePeak(what, []outcome[restoreResult]{r})
	b.rows[len(b.rows)-1].Case = "huge"
	b.rows[len(b.rows)-1].Detail = []string{
		fmt.Sprintf("%s, CPU %s; %s read, %s written", seconds(r.Result.Seconds), seconds(r.Result.CPU), size(float64(r.Result.Fetched)), size(float64(r.Result.Bytes))),
		"equal to the database byte for byte",
	}
	return nil
}

// hugeTask makes a database of which a tenth is random, the rest zero.
var hugeTask = task("build-huge", func(ctx context.Context, a buildArgs) (_ struct{}, err error) {
	c, err := sqlite3.Open("file:" + a.Database + "?_pragma=synchronous(off)&_pragma=journal_mode(off)")
	if err != nil {
		return struct{}{}, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.Exec(schema + `CREATE TABLE blob(id INTEGER PRIMARY KEY, data BLOB)`); err != nil {
		return struct{}{}, err
	}
	// A row is a page.
	s, err := prepare(c, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
		INSERT INTO blob(data) SELECT randomblob(400) || zeroblob(3500) FROM n`)
	if err != nil {
		return struct{}{}, err
	}
	defer s.Close()
	for n := a.Bytes / 4096; n > 0; n -= 10_000 {
		if err := errors.Join(ctx.Err(), s.exec(int(min(n, 10_000)))); err != nil {
			return struct{}{}, err
		}
	}
	// What is measured is not to pay for writing this to the disk.
	f, err := os.OpenFile(a.Database, os.O_RDWR, 0)
	if err != nil {
		return struct{}{}, err
	}
	return struct{}{}, errors.Join(f.Sync(), f.Close())
})
