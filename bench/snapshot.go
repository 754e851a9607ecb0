package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/outwash/outwash/vfs"
)

// snapshot measures how a database with content is taken over, and restored.
func snapshot(ctx context.Context, b *bench) error {
	template, err := b.template(ctx, &b.large, b.database)
	if err != nil {
		return err
	}
	stores := []string{"file"}
	if b.s3 != "" {
		stores = append(stores, "s3")
	}
	for _, store := range stores {
		for _, rate := range []int{0, b.rate} {
			if err := snapshotPairs(ctx, b, template, store, rate); err != nil {
				return err
			}
		}
	}
	return nil
}

func snapshotPairs(ctx context.Context, b *bench, template, store string, rate int) error {
	what := fmt.Sprintf("%.0f MB, %s, idle", float64(b.database)/1e6, store)
	if rate > 0 {
		what = fmt.Sprintf("%.0f MB, %s, %d transactions a second", float64(b.database)/1e6, store, rate)
	}
	var plain, with []outcome[snapshotResult]
	for i := range min(b.runs, 3) {
		last := i == min(b.runs, 3)-1
		w, p, err := snapshotRun(ctx, b, template, store, rate, func(a snapshotArgs) error {
			if !last {
				return nil
			}
			return restorePairs(ctx, b, what, a)
		})
		if err != nil {
			return err
		}
		plain, with = append(plain, p), append(with, w)
	}
	res := func(f func(snapshotResult) float64) func(outcome[snapshotResult]) float64 {
		return func(o outcome[snapshotResult]) float64 { return f(o.Result) }
	}
	r := row{
		Case: "snapshot", What: "first snapshot of " + what, Unit: "s",
		Runs: each(with, res(func(r snapshotResult) float64 { return r.Seconds })),
		Detail: []string{
			fmt.Sprintf("%s sent", size(median(each(with, res(func(r snapshotResult) float64 { return float64(r.Uploaded) }))))),
			"CPU " + figure(median(each(with, res(func(r snapshotResult) float64 { return r.CPU }))), "s"),
		},
	}
	if rate > 0 {
		r.Detail = append(r.Detail,
			"largest WAL "+pair(plain, with, "B", res(func(r snapshotResult) float64 { return float64(r.WAL) })),
			"commits "+pair(plain, with, "a second", res(func(r snapshotResult) float64 { return float64(r.Commits) / r.Seconds })),
			"p99 of a commit "+pair(plain, with, "s", res(func(r snapshotResult) float64 { return r.P99 })),
			"longest "+pair(plain, with, "s", res(func(r snapshotResult) float64 { return r.Longest })))
	}
	b.add(r)
	// The restore's figures were taken in the last round.
	for _, r := range b.restores {
		b.add(r)
	}
	b.restores = nil
	b.peaks = append(b.peaks, memoryOf("first snapshot of "+what, plain, with))
	return nil
}

// snapshotRun takes over a copy of the template, and lets the plain driver do for
// as long what it did besides. then is called while the replica exists.
func snapshotRun(ctx context.Context, b *bench, template, store string, rate int, then func(snapshotArgs) error) (with, plain outcome[snapshotResult], err error) {
	dir, remove, err := b.scratch()
	if err != nil {
		return with, plain, err
	}
	defer remove()
	a := snapshotArgs{Rows: b.sizes.rows, Rate: rate}
	a.Database, a.Sync = filepath.Join(dir, "plain.db"), "normal"
	if err := copyFile(a.Database, template); err != nil {
		return with, plain, err
	}
	// The replicated side comes first: it says how long the other one is to write.
	r := a
	r.Database, r.Replica = filepath.Join(dir, "replicated.db"), b.replica(store, dir, "snapshot")
	if err := copyFile(r.Database, template); err != nil {
		return with, plain, err
	}
	if with, err = snapshotTask(ctx, b, r); err != nil {
		return with, plain, err
	}
	a.For = time.Duration(with.Result.Seconds * float64(time.Second))
	if plain, err = snapshotTask(ctx, b, a); err != nil {
		return with, plain, err
	}
	os.Remove(a.Database)
	return with, plain, then(r)
}

type snapshotArgs struct {
	target
	Rows int           `json:"rows"`
	Rate int           `json:"rate"` // of the writer; 0: none
	For  time.Duration `json:"for"`  // how long without a replica
}

type snapshotResult struct {
	Seconds  float64 `json:"seconds"` // until all was in the replica
	Uploaded int64   `json:"uploaded"`
	CPU      float64 `json:"cpu"`
	WAL      int64   `json:"wal"` // largest
	Commits  int     `json:"commits"`
	P99      float64 `json:"p99"`
	Longest  float64 `json:"longest"`
}

var snapshotTask = task("snapshot", func(ctx context.Context, a snapshotArgs) (r snapshotResult, err error) {
	used, start := processorTime(), time.Now()
	c, err := a.open(nil)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.Close(), a.end()) }()
	if _, err := number(c, "SELECT count(*) FROM sqlite_schema"); err != nil {
		return r, err
	}
	done := make(chan error, 1)
	go func() { done <- a.await(ctx) }()
	w, err := newWriter(c, a.Rows)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	var took []float64
	p := pacer{rate: a.Rate}
	for waiting := true; waiting; {
		if a.Rate > 0 {
			p.wait(ctx)
			began := time.Now()
			if err := w.transaction(); err != nil {
				return r, err
			}
			took = append(took, time.Since(began).Seconds())
		}
		if fi, err := os.Stat(a.Database + "-wal"); err == nil {
			r.WAL = max(r.WAL, fi.Size())
		}
		if a.Rate == 0 {
			err, waiting = <-done, false
			continue
		}
		select {
		case err = <-done:
			waiting = false
		default:
		}
	}
	if err != nil {
		return r, err
	}
	r.Seconds, r.CPU = time.Since(start).Seconds(), (processorTime() - used).Seconds()
	r.Commits, r.P99, r.Longest = len(took), percentile(took, 99), percentile(took, 100)
	if s, err := vfs.Stat(a.Database); err == nil {
		r.Uploaded = s.Uploaded
	}
	_, err = a.sync(ctx)
	return r, err
})

// await returns when the database is in the replica; without one when the time
// is up.
func (a snapshotArgs) await(ctx context.Context) error {
	if a.replicated() {
		_, err := a.sync(ctx)
		return err
	}
	if a.Rate > 0 {
		select {
		case <-time.After(a.For):
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// sameContent compares files, to know that what was timed was right.
func sameContent(a, b string) error {
	fa, err := os.Open(a)
	if err != nil {
		return err
	}
	defer fa.Close()
	fb, err := os.Open(b)
	if err != nil {
		return err
	}
	defer fb.Close()
	bufA, bufB := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); ; off += int64(len(bufA)) {
		n, errA := fa.ReadAt(bufA, off)
		m, errB := fb.ReadAt(bufB, off)
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return fmt.Errorf("%s and %s differ at %d or later", a, b, off)
		}
		if errA != nil || errB != nil {
			if errA == io.EOF && errB == io.EOF {
				return nil
			}
			return errors.Join(errA, errB)
		}
	}
}
