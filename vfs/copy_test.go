package vfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/segment"
)

// record keeps what the engine takes of a database that began empty, and makes
// any state of it again.
type record struct {
	w       *world
	entries []*segment.Entry // with mu of w
	emitted uint64
	more    chan struct{}
	// write is called by each copy that writes a block, with how many there were.
	write func(n int) error
}

// newCopyWorld is a world whose copies read so many bytes in a pass.
func newCopyWorld(t testing.TB, base string, copyBytes int) (*world, *record) {
	opts := Options{Base: base}
	opts.hooks.limits = func(o *capture.Options) { o.CopyBytes = copyBytes }
	w := newWorld(t, opts)
	if base != "" {
		overBase(w, base)
	}
	h := &record{w: w, more: make(chan struct{}, 1)}
	w.each = func(e *segment.Entry) error {
		kept := *e
		body := make([]byte, e.BodySize())
		if len(body) > 0 {
			if n, err := e.Body.ReadAt(body, 0); n < len(body) {
				return err
			}
		}
		kept.Body = segment.BytesBody(body)
		h.entries = append(h.entries, &kept)
		h.emitted += e.Count
		select {
		case h.more <- struct{}{}:
		default:
		}
		return nil
	}
	return w, h
}

// until waits until the engine has taken what was emitted, and returns the entries
// beyond a state.
func (h *record) until(ctx context.Context, after, emitted uint64) ([]*segment.Entry, error) {
	for {
		h.w.mu.Lock()
		all, now, err := h.entries, h.emitted, h.w.fail
		h.w.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if now >= emitted {
			for len(all) > 0 && after > 0 {
				after -= all[0].Count
				all = all[1:]
			}
			return all, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-h.more:
		}
	}
}

// copyOf is the image that a copy makes.
type copyOf struct {
	local.Copied
	image []byte
	pages int
}

// request is that of a copy of what changed since another one; nil: of everything.
func (h *record) request(since *copyOf, pages map[uint64][]byte, final *uint64) local.CopyRequest {
	calls := 0
	dec := segment.NewBlockDecoder()
	return local.CopyRequest{
		Pages: func(ctx context.Context, emitted uint64) (*local.PageSet, error) {
			if since == nil {
				return nil, nil
			}
			entries, err := h.until(ctx, since.Emitted, emitted)
			if err != nil {
				return nil, err
			}
			var set local.PageSet
			for _, e := range entries {
				for no := min(e.MinCommit, e.PreCommit) + 1; no <= e.Commit; no++ {
					set.Add(no)
				}
				for _, b := range e.Blocks {
					for _, p := range b.Pages {
						set.Add(p.No)
					}
				}
			}
			return &set, nil
		},
		Final: func(emitted uint64) { *final = emitted },
		Write: func(b segment.Block, stored []byte) error {
			if calls++; h.write != nil {
				if err := h.write(calls); err != nil {
					return err
				}
			}
			for size := uint32(segment.MinPageSize); ; size *= 2 {
				plain, err := dec.Decode(nil, &b, stored, size, nil)
				if err == nil {
					for i, p := range b.Pages {
						page := plain[i*int(size) : (i+1)*int(size)]
						if segment.PageHash(p.No, page) != p.Hash {
							return fmt.Errorf("page %d doesn't have its hash", p.No)
						}
						pages[p.No] = bytes.Clone(page)
					}
					return nil
				}
				if size == 65536 {
					return err
				}
			}
		},
	}
}

func (w *world) capture() *capture.DB {
	w.t.Helper()
	dbs := w.databases()
	if len(dbs) != 1 {
		w.t.Fatalf("%d databases", len(dbs))
	}
	return dbs[0].capture
}

// copy copies the world's database.
func (h *record) copy(ctx context.Context, since *copyOf) (*copyOf, error) {
	pages := map[uint64][]byte{}
	var final uint64
	got, err := h.w.capture().Copy(ctx, h.request(since, pages, &final))
	if err != nil {
		return nil, err
	}
	if got.Emitted != final {
		return nil, fmt.Errorf("the copy is at %d, the last that was to be final at %d", got.Emitted, final)
	}
	c := &copyOf{Copied: got, pages: len(pages), image: make([]byte, got.Commit*uint64(got.PageSize))}
	if since != nil {
		copy(c.image, since.image)
	}
	for no, p := range pages {
		if no <= got.Commit {
			copy(c.image[(no-1)*uint64(got.PageSize):], p)
		}
	}
	return c, nil
}

// check compares copies, in the order in which they were made, with the states
// that the entries lead to.
func (h *record) check(copies []*copyOf) {
	h.w.t.Helper()
	m := mirror.New()
	at := uint64(0)
	entries := h.entries
	for i, c := range copies {
		var last *segment.Entry
		for at < c.Emitted && len(entries) > 0 {
			last = entries[0]
			entries = entries[1:]
			must(h.w.t, m.Apply(last))
			at += last.Count
		}
		want, size := m.Image()
		sum, _ := m.Checksum()
		if at != c.Emitted || sum != c.Checksum || uint64(len(want)) != c.Commit*uint64(c.PageSize) {
			h.w.t.Fatalf("copy %d is of %d with %016x over %d pages, the entries lead to %d with %016x", i, c.Emitted, c.Checksum, c.Commit, at, sum)
		}
		if last != nil && (c.WAL != last.WAL || c.LastRaw != last.LastRaw || c.LastMono > last.LastMono) {
			h.w.t.Errorf("copy %d: %+v, the entry %+v", i, c.Copied, last)
		}
		if err := mirror.Compare(want, c.image, size); err != nil {
			h.w.t.Fatalf("copy %d: %v", i, err)
		}
	}
}

// TestCopy: while a random workload runs, in each journal mode, what is copied is
// at each time the state after the entry that the copy says.
func TestCopy(t *testing.T) {
	n := 0
	for _, base := range []string{"", "adiantum"} {
		for _, journal := range []string{"wal", "wal", "wal", "delete", "truncate", "persist", "memory"} {
			size := 512 << (n * 3 % 8)
			n++
			if testing.Short() && n != 2 && n != 10 {
				continue
			}
			t.Run(fmt.Sprintf("%s%s/%d", base, journal, size), func(t *testing.T) {
				copyRound(t, rand.New(rand.NewPCG(*flagSeed, uint64(n))), journal, size, base)
			})
		}
	}
}

func copyRound(t *testing.T, r *rand.Rand, journal string, size int, base string) {
	// A writer that never pauses leaves a reader few moments to begin in
	// rollback-journal modes.
	passPages, rounds := 32, 12
	if journal != "wal" {
		passPages, rounds = 256, 6
	}
	w, h := newCopyWorld(t, base, passPages*size)
	params := []string{"_pragma=page_size(" + fmt.Sprint(size) + ")", "_pragma=auto_vacuum(" + fmt.Sprint(r.IntN(3)) + ")",
		"_pragma=journal_mode(" + journal + ")", "_pragma=cache_size(10)"}
	c := w.open(params...)
	exec(t, c, "BEGIN; "+schema+" COMMIT")

	ctx := t.Context()
	var stop atomic.Bool
	var commits, rolled atomic.Int64
	wrote, more := make(chan error, 1), make(chan struct{}, 1)
	go func() {
		for !stop.Load() {
			switch err := oneOperation(r, c, 0, &rolled); {
			case err == nil, err == errReopen:
			case errors.Is(err, sqlite3.BUSY): // a checkpoint beside a reader
			default:
				wrote <- err
				return
			}
			commits.Add(1)
			select {
			case more <- struct{}{}:
			default:
			}
		}
		wrote <- nil
	}()
	var copies []*copyOf
	var last *copyOf
	pages := 0
	for i := 0; i < rounds || commits.Load() < 60; i++ {
		select { // a checkpoint waits for readers: one copy after the other would starve it
		case <-more:
		case err := <-wrote:
			t.Fatal("it writes no more: ", err)
		}
		if i%3 == 0 {
			last = nil
		}
		got, err := h.copy(ctx, last)
		must(t, err)
		last = got
		pages += got.pages
		copies = append(copies, got)
	}
	stop.Store(true)
	must(t, <-wrote)
	// Transactions that were rolled back change free pages in rollback-journal modes.
	exec(t, c, "UPDATE acc SET pad=hex(randomblob(9)) WHERE id=1")
	w.sync()
	h.check(copies)
	w.finish(c)
	t.Logf("%d copies of %d pages, %d pages in all, beside %d operations", len(copies), last.Commit, pages, commits.Load())
}
