package capture

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

const (
	// Commits get an entry each as long as there are no more than mergeRate a
	// second over some time; beyond that capture would take too much of what the
	// application works with, and those that wait go as one merge entry.
	mergeRate = 2000
	// mergeBacklog is how many entries may wait, while the store doesn't answer,
	// until all commits that a look at the log finds share one.
	mergeBacklog = 100_000
	// patchBudget bounds the time an entry's patches may take; the application
	// may be waiting at a gate. Pages beyond it go whole.
	patchBudget = 100 * time.Millisecond
	// inMemory is how large an entry's body may grow before it is written to the
	// spool.
	inMemory = 4 << 20
)

// emit encodes what a walk found and moves the mark to its end.
func (d *DB) emit(w walked, since int64, atGate bool) error {
	if d.phase == tracking {
		d.track(w)
		return nil
	}
	for n := d.entriesFor(len(w.commits), atGate); len(w.commits) > 0; w.commits = w.commits[n:] {
		if d.gates.Load() > 0 && len(w.commits) > d.opts.MergeAtGate {
			n = len(w.commits) // the application waits for this to end
		}
		if err := d.emitOne(w.pages, w.from.frame, w.commits[:n], since); err != nil || d.phase != live {
			return err
		}
	}
	d.identify()
	d.bound()
	return nil
}

// bound keeps what waits within its limits.
func (d *DB) bound() {
	err := d.tryBound()
	if err != nil {
		err = d.giveUp(err)
	}
	if err != nil {
		d.log.Warn("what waits grows beyond its limits", "database", d.opts.Path, "error", err)
	}
}

func (d *DB) tryBound() error {
	if d.queue.backlog().Entries > d.opts.EntryLimit {
		return fmt.Errorf("capture: more than %d entries wait", d.opts.EntryLimit)
	}
	mem := d.queue.memory()
	if mem <= d.opts.MemoryLimit {
		return nil
	}
	err := d.spill(true)
	if err != nil && mem <= 4*d.opts.MemoryLimit { // a disk may be full for a moment
		d.log.Warn("can't write the spool", "database", d.opts.Path, "error", err)
		return nil
	}
	return err
}

// entriesFor says how many of the n commits that wait go into one entry: 1 or n.
func (d *DB) entriesFor(n int, atGate bool) int {
	now := d.opts.Now()
	d.credit = min(mergeRate, d.credit+mergeRate*now.Sub(d.credited).Seconds())
	d.credited = now
	if float64(n) > d.credit || atGate && n > d.opts.MergeAtGate || d.queue.backlog().Entries > mergeBacklog {
		return n
	}
	d.credit -= float64(n)
	return 1
}

// track notes which pages commits changed.
func (d *DB) track(w walked) {
	for _, c := range w.commits {
		for i := d.mark.frame; i < c.frame; i++ {
			no := w.pages[i-w.from.frame]
			d.last[no] = i + 1
			if d.dirty != nil {
				d.dirty.Add(uint64(no))
			}
		}
		d.mark.frame, d.mark.checksum = c.frame, c.checksum
		d.smallest = min(d.smallest, uint64(c.pages))
	}
}

// emitOne queues the entry for one or more commits. pages[i] is the page of
// frame first+1+i.
func (d *DB) emitOne(pages []uint32, first uint32, commits []commit, since int64) error {
	end := commits[len(commits)-1]
	e := &segment.Entry{
		Kind: segment.Transaction, Count: uint64(len(commits)),
		Commit: uint64(end.pages), MinCommit: uint64(end.pages),
		WAL: segment.WALPosition{Salt: d.mark.salt, Frame: uint64(end.frame), Checksum: end.checksum},
	}
	if len(commits) > 1 {
		e.Kind = segment.Merge
	}
	for _, c := range commits {
		e.MinCommit = min(e.MinCommit, uint64(c.pages))
	}
	b := d.newBuilder(e)
	defer b.abort()
	frames := d.lastFrames(pages[d.mark.frame-first:end.frame-first], end.pages)
	if !d.hasGrowth(frames, min(e.PreCommit, e.MinCommit), e.Commit) {
		d.loseTrack("the database grew by pages that the log does not have")
		return nil
	}
	for _, f := range frames {
		if err := b.addFrame(uint64(f>>32), uint32(f)); err != nil {
			return err
		}
	}
	if err := b.finish(d.sumAfter, since); err != nil {
		return err
	}
	// From here on nothing can fail: table, mark and queue move together.
	d.table.apply(e)
	for i := d.mark.frame; i < end.frame; i++ {
		d.last[pages[i-first]] = i + 1
	}
	d.mark.frame, d.mark.checksum = end.frame, end.checksum
	d.enqueue(b)
	return nil
}

// lastFrames returns page<<32|frame for the last frame of each page that is
// within the database, ascending.
func (d *DB) lastFrames(pages []uint32, size uint32) []uint64 {
	lock := segment.LockPage(d.table.pageSize)
	bufs := d.buffers()
	order := bufs.order[:0]
	for i, no := range pages {
		if no <= size && uint64(no) != lock {
			order = append(order, uint64(no)<<32|uint64(d.mark.frame+uint32(i)+1))
		}
	}
	bufs.order = order
	slices.Sort(order)
	n := 0
	for i, v := range order {
		if i+1 == len(order) || order[i+1]>>32 != v>>32 {
			order[n] = v
			n++
		}
	}
	return order[:n]
}

// hasGrowth reports whether every page from kept+1 to size is among frames: SQLite
// writes each page by which a transaction grows the database. If one is missing
// another program has put it there, unseen.
func (d *DB) hasGrowth(frames []uint64, kept, size uint64) bool {
	want := size - min(kept, size)
	if lock := segment.LockPage(d.table.pageSize); kept < lock && lock <= size {
		want--
	}
	i, _ := slices.BinarySearch(frames, (kept+1)<<32)
	return uint64(len(frames)-i) == want
}

// builder makes one entry: it gathers pages, which come in ascending order, into
// blocks, and the blocks into a body in memory or, if it grows large, in the spool.
type builder struct {
	d      *DB
	e      *segment.Entry
	before segment.WALPosition
	start  time.Time
	txids  uint64 // that it covers; 0: only if it has pages

	gather
	body []byte
	file *local.EntryWriter
}

// gather is a block in the making.
type gather struct {
	pages []segment.Page
	plain []byte
	dict  []byte // old versions: the block is a patch
	whole bool   // a page's old version can't be had: the block must stand alone
}

func (d *DB) newBuilder(e *segment.Entry) *builder {
	e.Pre, e.PreCommit, e.PageSize = d.table.sum, d.table.size(), d.table.pageSize
	bufs := d.buffers()
	return &builder{d: d, e: e, before: d.lastPos, start: d.opts.Now(), gather: bufs.gather, body: bufs.body}
}

// addFrame adds the page that a frame has, as a patch if its old version can be
// proven.
func (b *builder) addFrame(no uint64, frame uint32) error {
	page := b.d.buffers().page(b.d.table.pageSize)
	if err := readFrame(b.d.wal, frame, page); err != nil {
		return err
	}
	if no == 1 && page[20] == checksumBytes {
		return b.d.fail(fmt.Errorf("capture: %s: %w", b.d.opts.Path, ErrChecksums))
	}
	hash := segment.PageHash(no, page)
	if no > b.e.PreCommit {
		return b.add(no, hash, page)
	}
	old, err := b.oldVersion(no)
	if err != nil {
		return err
	}
	if old != nil && no <= b.e.MinCommit && bytes.Equal(old, page) {
		return nil // the commit wrote what was there
	}
	if whole := old == nil; len(b.pages) > 0 && (whole && len(b.dict) > 0 || !whole && b.whole) {
		if err := b.flush(); err != nil {
			return err
		}
	}
	b.whole = b.whole || old == nil
	b.dict = append(b.dict, old...)
	return b.add(no, hash, page)
}

// oldVersion returns the page's version before the entry, proven by its hash;
// nil if it can't be had.
func (b *builder) oldVersion(no uint64) ([]byte, error) {
	d := b.d
	if d.opts.Now().Sub(b.start) > patchBudget {
		return nil, nil
	}
	old := d.buffers().oldPage(d.table.pageSize)
	var err error
	if frame := d.last[uint32(no)]; frame != 0 {
		err = readFrame(d.wal, frame, old)
	} else {
		var ok bool
		if ok, err = reopen(&d.file, d.opts.Path, d.openFile); ok {
			err = readPage(d.file, no, old)
		}
	}
	if err != nil || segment.PageHash(no, old) != d.table.get(no) {
		return nil, err
	}
	return old, nil
}

func (b *builder) add(no, hash uint64, page []byte) error {
	b.pages = append(b.pages, segment.Page{No: no, Hash: hash})
	b.plain = append(b.plain, page...)
	if len(b.pages) < blockPages(b.d.table.pageSize) {
		return nil
	}
	return b.flush()
}

// blockPages is how many pages a block has at most.
func blockPages(pageSize uint32) int {
	return min(segment.MaxBlockPages, segment.MaxBlockPlain/int(pageSize))
}

// flush encodes the gathered block.
func (b *builder) flush() error {
	if len(b.pages) == 0 {
		return nil
	}
	n := len(b.body)
	out, codec, base := b.d.enc.Encode(b.body, b.plain, b.dict)
	b.body = out
	b.e.Blocks = append(b.e.Blocks, segment.Block{
		Codec: codec, Base: base, Stored: uint32(len(out) - n), Pages: slices.Clone(b.pages),
	})
	b.reset()
	if len(b.body) <= inMemory {
		return nil
	}
	return b.toFile()
}

func (g *gather) reset() {
	g.pages, g.plain, g.dict, g.whole = g.pages[:0], g.plain[:0], g.dict[:0], false
}

// toFile moves what there is of the body to the spool.
func (b *builder) toFile() error {
	if b.file == nil {
		// The spool's records are in the order of the line.
		if err := b.d.spill(true); err != nil {
			return err
		}
		b.file = b.d.spool.NewEntry()
	}
	_, err := b.file.Write(b.body)
	b.body = b.body[:0]
	return err
}

// finish completes the entry: checksum, times, body.
func (b *builder) finish(post func(*segment.Entry) uint64, since int64) error {
	if err := b.flush(); err != nil {
		return err
	}
	d, e := b.d, b.e
	e.Post = post(e)
	now := d.now()
	e.FirstRaw, e.LastRaw = now, now
	if since != 0 && e.Count > 1 {
		e.FirstRaw = min(since, now)
	}
	e.FirstMono, e.LastMono = e.FirstRaw, e.LastRaw
	e.LiftTimes(d.lastMono)
	if b.file == nil {
		e.Body = segment.BytesBody(slices.Clone(b.body))
		return nil
	}
	if err := b.toFile(); err != nil {
		return err
	}
	body, err := b.file.Commit(e, b.before)
	e.Body = body
	return err
}

// sumAfter computes the checksum after e without changing the table.
func (d *DB) sumAfter(e *segment.Entry) uint64 {
	sum := d.table.sum
	for no := e.MinCommit + 1; no <= e.PreCommit; no++ {
		sum ^= d.table.get(no)
	}
	lock := segment.LockPage(d.table.pageSize)
	zero := func(no uint64) uint64 {
		if no == lock {
			return 0
		}
		return segment.PageHash(no, zeroPage[:d.table.pageSize])
	}
	for no := e.MinCommit + 1; no <= e.Commit; no++ {
		sum ^= zero(no)
	}
	for i := range e.Blocks {
		for _, p := range e.Blocks[i].Pages {
			sum ^= p.Hash
			if p.No > e.MinCommit {
				sum ^= zero(p.No)
			} else {
				sum ^= d.table.get(p.No)
			}
		}
	}
	return sum
}

// abort gives the buffers back.
func (b *builder) abort() {
	b.reset()
	bufs := b.d.buffers()
	bufs.gather, bufs.body = b.gather, b.body[:0]
}

func (d *DB) enqueue(b *builder) {
	d.emitted.Add(b.e.Count)
	d.lastPos, d.lastMono, d.lastRaw = b.e.WAL, b.e.LastMono, b.e.LastRaw
	if d.copying != nil {
		d.copying.note(b.e)
	}
	d.queue.push(&queued{
		entry: b.e, before: b.before, size: b.e.BodySize(),
		inFile: b.file != nil,
	})
}
