package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outwash/outwash/replicate"
)

// restorePairs restores a replica, and beside it downloads the same objects and
// writes as many bytes, which nothing could do without.
func restorePairs(ctx context.Context, b *bench, what string, a snapshotArgs) error {
	output := filepath.Join(filepath.Dir(a.Database), "restored.db")
	var with []outcome[restoreResult]
	var plain []outcome[rawResult]
	for range b.runs {
		raw, err := plainCopy(ctx, b, a, output)
		if err != nil {
			return err
		}
		got, err := restoreTask(ctx, b, restoreArgs{Replica: a.Replica, Output: output})
		if err != nil {
			return err
		}
		if err := sameContent(output, a.Database); err != nil {
			return fmt.Errorf("the restored database is wrong: %w", err)
		}
		if err := os.Remove(output); err != nil {
			return err
		}
		plain, with = append(plain, raw), append(with, got)
	}
	restored := each(with, func(o outcome[restoreResult]) float64 { return o.Result.Seconds })
	copied := each(plain, func(o outcome[rawResult]) float64 { return o.Result.Download + o.Result.Write })
	b.restores = append(b.restores, row{
		Case: "snapshot", What: "restore of " + what, Unit: "×", Goal: atMost(1.5), Runs: ratios(restored, copied),
		Detail: []string{
			seconds(median(restored)) + "; " + copyTimes(plain),
			fmt.Sprintf("%s read, %s written", size(float64(with[0].Result.Fetched)), size(float64(with[0].Result.Bytes))),
			"CPU " + figure(median(each(with, func(o outcome[restoreResult]) float64 { return o.Result.CPU })), "s"),
			"equal to the database byte for byte",
		},
	})
	b.peaks = append(b.peaks, memoryOf("restore of "+what, plain, with))
	return nil
}

type restoreArgs struct {
	Replica, Output string
	Timestamp       time.Time
}

type restoreResult struct {
	Seconds, CPU   float64
	Fetched, Bytes int64
	Requests       int
}

var restoreTask = task("restore", func(ctx context.Context, a restoreArgs) (r restoreResult, err error) {
	used, start := processorTime(), time.Now()
	got, err := replicate.Restore(ctx, replicate.RestoreOptions{URL: a.Replica, Output: a.Output, Timestamp: a.Timestamp})
	return restoreResult{time.Since(start).Seconds(), (processorTime() - used).Seconds(), got.Fetched, got.Bytes, got.Requests}, err
})

// plainCopy downloads the replica of a's database and writes as many bytes as that has.
func plainCopy(ctx context.Context, b *bench, a snapshotArgs, output string) (outcome[rawResult], error) {
	fi, err := os.Stat(a.Database)
	if err != nil {
		return outcome[rawResult]{}, err
	}
	return rawTask(ctx, b, rawArgs{a.Replica, output, fi.Size()})
}

type rawArgs struct {
	Replica, Output string
	Bytes           int64 // to write
}

// rawResult is in seconds. Like a restore, a download knows no more than the
// replica's URL when it begins: Find is how much of it went by until it knew what
// there is to read.
type rawResult struct{ Download, Find, Write float64 }

var rawTask = task("raw", func(ctx context.Context, a rawArgs) (r rawResult, err error) {
	start := time.Now()
	store, err := replicate.OpenStore(ctx, a.Replica)
	if err != nil {
		return r, err
	}
	objects, err := listStore(ctx, store)
	if err != nil {
		return r, err
	}
	r.Find = time.Since(start).Seconds()
	if err := download(ctx, store, objects); err != nil {
		return r, err
	}
	r.Download = time.Since(start).Seconds()
	start = time.Now()
	err = write(a.Output, a.Bytes)
	r.Write = time.Since(start).Seconds()
	return r, errors.Join(err, os.Remove(a.Output))
})

// copyTimes says what plain copies took.
func copyTimes(plain []outcome[rawResult]) string {
	of := func(f func(rawResult) float64) string {
		return seconds(median(each(plain, func(o outcome[rawResult]) float64 { return f(o.Result) })))
	}
	return fmt.Sprintf("download %s, of which %s to open and list, + write and fsync %s",
		of(func(r rawResult) float64 { return r.Download }), of(func(r rawResult) float64 { return r.Find }), of(func(r rawResult) float64 { return r.Write }))
}

// download reads objects as a restore does: 8 ranges of up to 8 MiB at a time.
func download(ctx context.Context, store replicate.Store, objects []replicate.ObjectInfo) error {
	const part, parallel = 8 << 20, 8
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, o := range objects {
		for off := int64(0); off < o.Size; off += part {
			g.Go(func() error {
				body, _, err := store.Get(ctx, o.Key, replicate.Range{Offset: off, Length: min(part, o.Size-off)})
				if err != nil {
					return err
				}
				defer body.Close()
				_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{body}, make([]byte, 256<<10))
				return err
			})
		}
	}
	return g.Wait()
}

func write(path string, n int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	b := make([]byte, 1<<20)
	rand.Read(b)
	for ; n > 0; n -= int64(len(b)) {
		if _, err := f.Write(b[:min(n, int64(len(b)))]); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(f.Sync(), f.Close())
}
