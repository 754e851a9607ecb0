package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/outwash/outwash/replicate"
)

// demoResult is what the demo found out, as it is printed in JSON.
type demoResult struct {
	OK           bool       `json:"ok"`
	Seconds      float64    `json:"seconds"`
	Source       string     `json:"source"`
	Replica      string     `json:"replica"`
	Dir          string     `json:"dir"`
	Database     string     `json:"database"`
	Kept         bool       `json:"kept"`
	OwnReplica   bool       `json:"own_replica"` // -replica was given
	Files        int        `json:"files"`
	Text         int64      `json:"text_bytes"`
	Early        bool       `json:"stopped_early"`
	Transactions int64      `json:"transactions"`
	Killed       int64      `json:"killed_after"`  // as far as it had said
	Resumed      int64      `json:"resumed_after"` // what the database had
	Reads        int64      `json:"queries"`
	PageSize     uint32     `json:"page_size"`
	Pages        int64      `json:"changed_pages"`
	Changed      int64      `json:"changed_bytes"`
	Uploaded     int64      `json:"uploaded_bytes"`
	Objects      int        `json:"objects"`
	Ratio        float64    `json:"ratio"`
	LagP50       float64    `json:"lag_p50"`
	LagP99       float64    `json:"lag_p99"`
	LagSamples   int        `json:"lag_samples"`
	Newest       comparison `json:"newest"`
	Earlier      comparison `json:"earlier"`
}

// comparison is a restored database beside its original.
type comparison struct {
	TXID     uint64  `json:"txid"`
	Path     string  `json:"path"`
	Seconds  float64 `json:"seconds"`
	Bytes    int64   `json:"bytes"`
	Pages    int64   `json:"pages"`
	Problem  string  `json:"problem,omitempty"`
	original string
}

// verify restores both states, compares, and counts what the replica has.
func (d *demo) verify(ctx context.Context) error {
	if err := checkpoint(d.r.Database); err != nil {
		return fmt.Errorf("checkpoint %s: %w", d.r.Database, err)
	}
	if err := d.account(ctx); err != nil {
		return err
	}
	d.restore(ctx, &d.r.Newest, 0, "newest.db")
	d.restore(ctx, &d.r.Earlier, d.r.Earlier.TXID, "earlier.db")
	if err := ctx.Err(); err != nil {
		return err
	}
	d.r.OK = d.r.Newest.Problem == "" && d.r.Earlier.Problem == ""
	return nil
}

// account counts what is stored, and what it stands for: it decodes every log
// segment.
func (d *demo) account(ctx context.Context) error {
	h, err := replicate.ReadHistory(ctx, d.store)
	if err != nil {
		return err
	}
	d.r.PageSize, d.r.Uploaded, d.r.Objects = h.PageSize, h.Bytes, h.Objects
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, s := range h.Segments {
		g.Go(func() error {
			obj := &object{store: d.store, key: s.Key, name: s.Key, size: s.Bytes}
			r := &report{}
			x := &inspector{ctx: ctx, obj: obj, r: r, bar: &progress{u: d.u}}
			if err := x.inspect(); err != nil {
				return fmt.Errorf("%s: %w", s.Key, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, e := range r.Entries {
				d.r.Pages += int64(e.Pages)
				d.r.Changed += int64(e.Pages) * int64(r.PageSize)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if d.r.Uploaded > 0 {
		d.r.Ratio = float64(d.r.Changed) / float64(d.r.Uploaded)
	}
	return nil
}

// restore rebuilds the state after txid (0: the newest) and compares it with its
// original. What is wrong goes into c: the rest is worth doing all the same.
func (d *demo) restore(ctx context.Context, c *comparison, txid uint64, name string) {
	c.Path = filepath.Join(d.r.Dir, name)
	start := time.Now()
	res, err := replicate.Restore(ctx, replicate.RestoreOptions{Store: d.store, Output: c.Path, TXID: txid})
	c.Seconds = time.Since(start).Seconds()
	if err != nil {
		c.Problem = "restore: " + plainMessage(err)
		return
	}
	c.Bytes, c.Pages = res.Bytes, int64(res.Pages)
	switch {
	case res.TXID != c.TXID:
		c.Problem = fmt.Sprintf("TXID %d was restored, but %d was acknowledged", res.TXID, c.TXID)
	default:
		if err := compareDatabases(c.original, c.Path, int64(res.PageSize)); err != nil {
			c.Problem = err.Error()
		} else if err := checkDatabase(c.Path, checkFull); err != nil {
			c.Problem = plainMessage(err)
		}
	}
}

// compareDatabases compares two database files page by page.
func compareDatabases(original, restored string, pageSize int64) error {
	a, err := os.Open(original)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := os.Open(restored)
	if err != nil {
		return err
	}
	defer b.Close()
	x, y := make([]byte, pageSize), make([]byte, pageSize)
	for page := int64(1); ; page++ {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		switch {
		case errA == io.EOF && errB == io.EOF:
			return nil
		case errA == io.EOF:
			return fmt.Errorf("the restored database is longer than the original, which ends after page %d", page-1)
		case errB == io.EOF:
			return fmt.Errorf("the restored database ends after page %d, the original goes on", page-1)
		case errA != nil || errB != nil:
			return errors.Join(errA, errB)
		case n != m || !bytes.Equal(x, y):
			return fmt.Errorf("page %d differs from the original", page)
		}
	}
}

func (r *demoResult) print(u *ui) {
	rest := ""
	if r.Early {
		rest = " (as much as there was time for)"
	}
	lag := "not measured"
	if r.LagSamples > 0 {
		lag = fmt.Sprintf("%s median, %s for 99 of 100: from commit to acknowledgement", seconds(r.LagP50), seconds(r.LagP99))
	}
	u.printf("\n")
	u.fields("  ",
		"loaded", fmt.Sprintf("%s, %s of text%s", plural(r.Files, "file", "files"), size(r.Text), rest),
		"transactions", fmt.Sprintf("%s, with %s meanwhile", count(r.Transactions), plural(r.Reads, "query", "queries")),
		"killed", fmt.Sprintf("by SIGKILL; went on after transaction %s", count(r.Resumed)),
		"changed pages", fmt.Sprintf("%s (%s of %d bytes)", size(r.Changed), plural(r.Pages, "page", "pages"), r.PageSize),
		"uploaded", fmt.Sprintf("%s in %s", size(r.Uploaded), plural(r.Objects, "object", "objects")),
		"ratio", fmt.Sprintf("%.1f to 1", r.Ratio),
		"lag", lag,
		"restored newest", r.Newest.String(),
		"restored earlier", r.Earlier.String(),
		"took", seconds(r.Seconds))
	if r.OK {
		u.printf("\nVerdict: good. Both restored databases equal their originals, page for page,\nand SQLite's integrity_check finds them sound.\n")
	} else {
		u.printf("\nVerdict: BAD. See above.\n")
	}
	if r.Kept {
		u.printf("\nEverything is in %s.\n", r.Dir)
	}
	if r.OwnReplica {
		u.printf("\nThe replica stays at %s until you delete it. Look at it:\n  outwash ls '%s'\n", r.Replica, r.Replica)
	}
}

func (c *comparison) String() string {
	if c.Problem != "" {
		return fmt.Sprintf("TXID %d: %s", c.TXID, c.Problem)
	}
	return fmt.Sprintf("TXID %d, %s in %s: %s identical", c.TXID, size(c.Bytes), seconds(c.Seconds), plural(c.Pages, "page", "pages"))
}
