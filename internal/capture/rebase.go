package capture

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// Begin starts to emit entries; see replicate.Source.
func (d *DB) Begin(ctx context.Context, start local.Start, tail local.Tail) error {
	d.passes.Lock()
	defer d.passes.Unlock()
	d.base(tail)
	switch start {
	case local.StartEmpty:
		d.mu.Lock()
		defer d.mu.Unlock()
		d.setPhase(live)
		return nil
	case local.StartRepair:
		return d.compare(ctx, segment.Repair, tail)
	case local.StartAdopt:
		return d.compare(ctx, segment.Adopt, tail)
	}
	return d.resume(ctx, tail)
}

// compare begins with the pages that differ from the replica's tail, or from where
// the spool leads.
func (d *DB) compare(ctx context.Context, kind segment.EntryKind, tail local.Tail) error {
	if err := d.startCompare(tail); err != nil {
		return err
	}
	return d.rebase(ctx, differing{as: kind, sound: tail.Commit > 0})
}

func (d *DB) startCompare(tail local.Tail) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t, err := pagesAfter(tail, d.found.entries)
	if err != nil {
		return err
	}
	if tail.Commit > 0 {
		if err := d.notePending(); err != nil {
			return err
		}
	}
	d.pushSpooled()
	d.table = t
	d.setPhase(tracking) // gates stay open: what they destroy is compared
	return nil
}

// pushSpooled queues what the spool has beyond the replica's tail.
func (d *DB) pushSpooled() {
	for _, r := range d.found.entries {
		d.queue.push(&queued{entry: r.Entry, before: r.Before, size: r.Entry.BodySize(), inFile: true})
		d.emitted.Add(r.Entry.Count)
		d.lastMono, d.lastRaw = max(d.lastMono, r.Entry.LastMono), r.Entry.LastRaw
	}
	d.lastPos = d.found.state.pos
}

// base forgets what was captured and says what the next entry follows.
func (d *DB) base(tail local.Tail) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.table, d.mark, d.last = table{}, mark{}, map[uint32]uint32{}
	d.lastPos, d.lastMono = tail.WAL, tail.LastTime
	d.emptied, d.identity = "", ""
	d.emitted.Store(0)
	d.settled.Store(0)
	d.queue.reset()
	d.durable.unknown()
	d.setPhase(idle)
}

func (d *DB) setPhase(p phase) {
	d.phase = p
	if p == live {
		d.unseen.Store(0)
	} else {
		d.loseCopy(local.ErrCopyLost)
	}
	d.cond.Broadcast()
}

// resume continues a line: what the spool has, then what was committed beyond.
func (d *DB) resume(ctx context.Context, tail local.Tail) error {
	d.mu.Lock()
	f := &d.found
	d.pushSpooled()
	if f.lost {
		d.forgetStored()
	}
	s := f.state
	if c := f.clean; c != nil && c.fingerprint == fingerprint(d.opts.Path) {
		d.table = c.table
		if err := d.atClean(c); err != nil {
			d.mu.Unlock()
			return err
		}
		d.emptied = c.fingerprint
		d.identify()
		d.setPhase(live)
		d.mu.Unlock()
		d.Signal()
		return nil
	}
	d.mu.Unlock()
	if _, err := os.Stat(d.opts.Path); errors.Is(err, fs.ErrNotExist) {
		return nil // only the spool is left
	}
	r := &since{from: s, found: f}
	if tail.Pages != nil || tail.Commit == 0 { // of nothing, no page needs to be asked for
		t, err := pagesAfter(tail, f.entries)
		if err != nil {
			return err
		}
		r.base = &t
	}
	err := d.rebase(ctx, r)
	if tail.Commit == 0 && errors.Is(err, local.ErrDamaged) {
		// There is nothing to restore in the database's place: it is taken over as it
		// is, behind what the spool has, like any that comes to an empty line. The
		// note keeps its log from being the proof again.
		d.mu.Lock()
		defer d.mu.Unlock()
		return errors.Join(fmt.Errorf("%w: %w", err, local.ErrChanged), d.notePending())
	}
	return err
}

// rule says which pages of the database a rebase emits, and as what.
type rule interface {
	kind() segment.EntryKind
	// prepare is called with mu held. It returns the state that the entry
	// follows and how many transactions it covers; 0: emit nothing if nothing
	// is wanted.
	prepare(d *DB, v *view) (before state, txids uint64, err error)
	// want reports whether page no, whose hash was old in the table, is emitted.
	want(no, old, hash uint64) bool
	// check is called with the new table, before it counts.
	check(now *table) error
	// mustBeSound reports whether a damaged database is refused.
	mustBeSound() bool
}

// rebase reads the whole database in one pinned pass, makes its table, emits the
// pages that the rule wants as one entry of whole pages, and goes live. Gates
// that would lose log content wait meanwhile: about a second per gigabyte.
func (d *DB) rebase(ctx context.Context, r rule) error {
	d.stats.passes.Add(1)
	p, err := d.openPin()
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.begin(); err != nil {
		return err
	}
	defer p.end()
	if r.mustBeSound() {
		if err := p.sound(); err != nil {
			return fmt.Errorf("capture: %s: %w", d.opts.Path, err)
		}
	}

	d.mu.Lock()
	if d.phase == behind { // given up meanwhile: the engine begins anew
		d.mu.Unlock()
		return errLost
	}
	phaseBefore, tableBefore := d.phase, d.table
	if phaseBefore != repairing {
		d.setPhase(rebasing)
	}
	d.pass = true
	v, b, err := d.startRebase(r)
	d.mu.Unlock()

	var now table
	if err == nil {
		defer v.close()
		now, err = b.readAll(ctx, r, v)
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	d.pass = false
	defer d.releaseBuffers()
	if b != nil {
		defer b.abort()
	}
	if err == nil {
		err = r.check(&now)
	}
	if err != nil {
		d.table = tableBefore
		d.setPhase(phaseBefore)
		return err
	}
	d.identity = local.Identity(d.opts.Path)
	d.durable.unknown() // others may have written what was read
	d.table, d.mark, d.last = now, v.mark, v.frames
	d.emptied = v.emptied(d.opts.Path)
	d.sawEmpty(v)
	if len(b.e.Blocks) > 0 || b.txids > 0 || b.e.PreCommit != b.e.Commit || b.e.Whole {
		d.enqueue(b)
	}
	if v.onlyFile {
		d.settled.Store(d.emitted.Load())
	}
	d.setPhase(live)
	d.forgetPending() // of what went by before, if nothing differs
	d.Signal()        // what was committed during the pass
	return nil
}

func (d *DB) startRebase(r rule) (*view, *builder, error) {
	v, err := d.look()
	if err != nil {
		return nil, nil, err
	}
	before, txids, err := r.prepare(d, v)
	if err != nil {
		v.close()
		return nil, nil, err
	}
	whole := d.table.size() > 0 && d.table.pageSize != v.pageSize
	if whole { // no page is what it was
		d.table = table{}
	}
	d.table.pageSize = v.pageSize
	b := d.newBuilder(&segment.Entry{
		Kind: r.kind(), Whole: whole, Count: max(1, txids), Commit: v.size, MinCommit: v.minSize, WAL: v.pos,
	})
	b.e.Pre, b.e.PreCommit = before.checksum, before.commit
	b.txids = txids
	return v, b, nil
}

// readAll hashes every page of the view, adds those that the rule wants, and
// completes the entry. It doesn't hold DB.mu.
func (b *builder) readAll(ctx context.Context, r rule, v *view) (table, error) {
	now := table{pageSize: v.pageSize, hashes: make([]uint64, v.size)}
	lock := segment.LockPage(v.pageSize)
	page := make([]byte, v.pageSize)
	for no := uint64(1); no <= v.size; no++ {
		if no == lock {
			continue
		}
		if no%1024 == 0 && ctx.Err() != nil {
			return now, ctx.Err()
		}
		if err := v.read(no, page); err != nil {
			return now, err
		}
		hash := segment.PageHash(no, page)
		now.set(no, hash)
		if !r.want(no, b.d.table.get(no), hash) {
			continue
		}
		if err := b.add(no, hash, page); err != nil {
			return now, err
		}
	}
	return now, b.finish(func(*segment.Entry) uint64 { return now.sum }, b.d.pending.Swap(0))
}

// repair compares the database with the last emitted state and emits the pages
// that differ.
func (d *DB) repair(ctx context.Context) error {
	if !d.passes.TryLock() {
		return nil // the engine begins anew, or is about to
	}
	defer d.passes.Unlock()
	if !d.needsRepair() {
		return nil
	}
	if d.Replaced() {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.fail(fmt.Errorf("capture: %s: %w", d.opts.Path, ErrReplaced))
	}
	err := d.rebase(ctx, differing{as: segment.Repair})
	if errors.Is(err, errLost) {
		return nil
	}
	if err == nil {
		d.log.Info("repaired: the changes that were not captured are one entry", "database", d.opts.Path)
	}
	return err
}

type differing struct {
	as    segment.EntryKind
	sound bool
}

func (r differing) kind() segment.EntryKind { return r.as }
func (r differing) mustBeSound() bool       { return r.sound }

func (differing) prepare(d *DB, _ *view) (state, uint64, error) {
	d.forgetStored()
	return state{checksum: d.table.sum, commit: d.table.size()}, 0, nil
}

func (differing) want(_, old, hash uint64) bool { return old != hash }
func (differing) check(*table) error            { return nil }

// since emits the pages of the commits after a known state, as one merge entry.
type since struct {
	from  state
	found *found
	dirty local.PageSet
	base  *table // what the pages were; nil: the log is trusted to have all that changed
}

func (*since) kind() segment.EntryKind     { return segment.Merge }
func (*since) mustBeSound() bool           { return false }
func (s *since) want(no, _, _ uint64) bool { return s.dirty.Has(no) }

func (s *since) prepare(_ *DB, v *view) (state, uint64, error) {
	if s.from.commit > 0 && s.found.pageSize != v.pageSize {
		return s.from, 0, fmt.Errorf("capture: page size %d, the replica's is %d: %w", v.pageSize, s.found.pageSize, local.ErrChanged)
	}
	from, err := s.found.frame(s.from, v)
	if err != nil {
		return s.from, 0, err
	}
	var n uint64
	for _, c := range v.commits {
		if c.frame > from {
			n++
			v.minSize = min(v.minSize, uint64(c.pages))
		}
	}
	if n == 0 {
		// A loss of power can leave a file longer than its header says. SQLite goes on
		// from its length in commits, and so what is restored has that.
		if s.found.long && len(v.commits) == 0 {
			v.size, v.minSize = s.from.commit, s.from.commit
		}
		return s.from, 0, nil
	}
	for _, no := range v.pages[from:v.mark.frame] {
		s.dirty.Add(uint64(no))
	}
	// What a shrink and a growth did to the pages between is not in the log.
	for no := min(v.minSize, s.from.commit) + 1; no <= v.size; no++ {
		s.dirty.Add(no)
	}
	return s.from, n, nil
}

func (s *since) check(now *table) error {
	if s.base != nil {
		for no := uint64(1); no <= now.size(); no++ {
			if !s.dirty.Has(no) && now.get(no) != s.base.get(no) {
				return fmt.Errorf("capture: page %d is not what was committed: %w: writes were lost with the power", no, local.ErrDamaged)
			}
		}
	}
	if s.dirty.Len() > 0 || now.sum == s.from.checksum && now.size() == s.from.commit {
		return nil
	}
	return fmt.Errorf("capture: checksum %016x over %d pages, the replica's is %016x over %d: %w",
		now.sum, now.size(), s.from.checksum, s.from.commit, local.ErrChanged)
}
