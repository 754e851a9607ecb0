package replicate

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/outwash/outwash/internal/segment"
)

// applier puts log segments into an image, in order, up to the target.
type applier struct {
	line   *line
	im     *image
	target target
	prev   *segment.Header // of the log segment before; nil: none was seen
	chain  segment.Hash
	base   *segment.Object // the snapshot or page segment that was applied last; nil: none
	tail   Tail            // of the state in the image
	end    Tail            // of the log segment before, which may be a claim behind that
	// reached: the target lies in what was applied, or before what follows.
	reached bool
	// after describes the first entry beyond the target; for messages.
	after *segment.Entry
}

// segment verifies that o comes next, and applies what of it is wanted.
func (a *applier) segment(ctx context.Context, o *segment.Object) error {
	key := segment.LogKey(o.Header.MinTXID)
	if err := a.joins(o); err != nil {
		return err
	}
	a.prev, a.chain = o.Header, o.Chain
	var err error
	if o.Header.External {
		err = a.external(ctx, o)
	} else {
		err = a.inline(o)
	}
	if err != nil {
		return fmt.Errorf("replicate: %s: %w", key, err)
	}
	a.end = tailOf(o)
	if a.end.TXID == a.tail.TXID {
		a.tail = a.end
	}
	a.reached = a.reached || a.target.txid != 0 && a.target.txid == a.tail.TXID
	return nil
}

// joins checks that o is the segment after the last one; the first one must
// follow the base or hold its last TXID.
func (a *applier) joins(o *segment.Object) error {
	h := o.Header
	key := segment.LogKey(h.MinTXID)
	switch {
	case a.prev != nil && h.MinTXID > a.prev.MaxTXID+1:
		return missingLog(a.prev.MaxTXID+1, h.MinTXID)
	case a.prev != nil || a.base == nil:
		if err := h.Follows(a.prev, a.chain); err != nil {
			return fmt.Errorf("replicate: %s: %w (%w)", key, err, ErrCorrupt)
		}
		return nil
	case h.MinTXID > a.tail.TXID+1:
		return missingLog(a.tail.TXID+1, h.MinTXID)
	}
	b := a.base.Header
	want, got := b.PrevChain, h.PrevChain
	if h.MinTXID <= b.MaxTXID { // it holds the base's last TXID itself
		got = o.Chain
		if h.MaxTXID < b.MaxTXID {
			return missingLog(h.MaxTXID+1, b.MaxTXID+1)
		}
		if h.MaxTXID > b.MaxTXID { // or the key behind the base would not tell whether the line goes on
			return fmt.Errorf("replicate: %s ends within %s, which goes on to %d: %w", b.Key(), key, h.MaxTXID, ErrCorrupt)
		}
	} else if h.Pre != b.Post || h.PreCommit != b.Commit {
		return fmt.Errorf("replicate: %s follows checksum %016x with %d pages, %s has %016x with %d: %w",
			key, h.Pre, h.PreCommit, b.Key(), b.Post, b.Commit, ErrCorrupt)
	}
	if got != want {
		return fmt.Errorf("replicate: %s is not of the line of %s (chain value %s, expected %s): %w",
			key, b.Key(), got, want, ErrCorrupt)
	}
	return nil
}

// wanted decides about an entry before anything of it is applied.
func (a *applier) wanted(e *segment.Entry) (bool, error) {
	if a.reached || e.MaxTXID <= a.tail.TXID {
		if e.MaxTXID == a.tail.TXID && (e.Post != a.tail.Checksum || e.Commit != a.tail.Commit) {
			return false, fmt.Errorf("TXID %d has checksum %016x here and %016x in %s: %w", e.MaxTXID, e.Post, a.tail.Checksum, a.from(), ErrCorrupt)
		}
		return false, nil
	}
	if e.MinTXID <= a.tail.TXID {
		return false, fmt.Errorf("the %s of TXID %d to %d spans TXID %d, where %s ends: %w", e.Kind, e.MinTXID, e.MaxTXID, a.tail.TXID, a.from(), ErrCorrupt)
	}
	if a.target.beyond(e.MaxTXID, e.LastMono) {
		a.reached, a.after = true, e
		if t := a.target.txid; t >= e.MinTXID {
			before := ""
			if a.tail.Commit > 0 {
				before = at(e.MinTXID-1, a.tail.LastTime) + " or "
			}
			return false, fmt.Errorf("TXID %d is one of %d to %d, which were merged: restore %s%s instead: %w",
				t, e.MinTXID, e.MaxTXID, before, at(e.MaxTXID, e.LastMono), ErrNotRestorable)
		}
		return false, nil
	}
	if e.NeedsBase {
		return false, a.needsBase(e)
	}
	if e.Commit > maxPages {
		return false, tooManyPages(fmt.Sprintf("TXID %d", e.MaxTXID), e.Commit)
	}
	return true, nil
}

// from names what comes before the log.
func (a *applier) from() string {
	if a.base == nil {
		return "the log before"
	}
	return a.base.Header.Key()
}

// needsBase is the error about an entry without pages.
func (a *applier) needsBase(e *segment.Entry) error {
	return fmt.Errorf("TXID %d took over a database; the snapshot that has its pages, %s, is missing: %w",
		e.MaxTXID, segment.SnapshotKey(e.MaxTXID, e.Post), errNoBase)
}

// errNoBase is an ErrCorrupt, unless the snapshot is still to come.
var errNoBase = fmt.Errorf("no base: %w", ErrCorrupt)

// at names a state that can be restored, and how.
func at(txid uint64, us int64) string {
	return fmt.Sprintf("TXID %d (%s; -txid %[1]d)", txid, stamp(us))
}

func stamp(us int64) string { return timeOf(us).Format("2006-01-02T15:04:05.000000Z07:00") }

// done notes that the image has the state after e.
func (a *applier) done(e *segment.Entry) {
	h := a.prev
	a.tail = Tail{
		TXID: e.MaxTXID, Checksum: e.Post, Commit: e.Commit, PageSize: h.PageSize, LastTime: e.LastMono, WAL: e.WAL,
		Database: h.Database, Session: h.Session, Chain: a.chain, Kind: e.Kind,
	}
	if a.target.txid == e.MaxTXID {
		a.reached = true
	}
}

func (a *applier) inline(o *segment.Object) error {
	var stored []byte
	for _, e := range o.Entries {
		ok, err := a.wanted(e)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := a.im.begin(a.prev.PageSize, e, blocksOf(e)); err != nil {
			return err
		}
		var off int64
		for i := range e.Blocks {
			b := &e.Blocks[i]
			stored = grow(stored, int(b.Stored))
			if _, err := readAt(e.Body, stored, off); err != nil {
				return err
			}
			off += int64(b.Stored)
			if err := a.im.block(b, stored); err != nil {
				return fmt.Errorf("TXID %d: %w", e.MaxTXID, err)
			}
		}
		if err := a.im.endEntry(e); err != nil {
			return err
		}
		a.done(e)
	}
	return nil
}

// blocksOf gives the blocks that an entry carries.
func blocksOf(e *segment.Entry) iter.Seq[*segment.Block] {
	return func(yield func(*segment.Block) bool) {
		for i := range e.Blocks {
			if !yield(&e.Blocks[i]) {
				return
			}
		}
	}
}

// external applies a segment whose blocks are in a data object, reading that
// one once from its beginning. Its index frames come after the blocks that they
// describe, so they are read ahead.
func (a *applier) external(ctx context.Context, o *segment.Object) error {
	key := o.DataKey()
	if err := checkDataHeader(ctx, a.line.store, o); err != nil {
		return err
	}
	dec := o.Frames()
	var group []*segment.Block
	for i := range o.Root.Frames {
		recs, err := nextFrame(ctx, a.line.store, o, dec, i)
		if err != nil {
			return err
		}
		// An entry's record comes after its blocks, and says whether they are
		// wanted: they are held until then.
		for len(recs) > 0 {
			n := 0
			for n < len(recs) && recs[n].Entry == nil {
				group = append(group, recs[n].Block)
				n++
			}
			var entry *segment.Entry
			if n < len(recs) {
				entry = recs[n].Entry
				n++
			}
			recs = recs[n:]
			if entry == nil {
				break // it goes on in the next frame
			}
			ok, err := a.wanted(entry)
			if err != nil {
				return err
			}
			if ok {
				if err := a.im.begin(a.prev.PageSize, entry, slices.Values(group)); err != nil {
					return err
				}
				if err := a.blocks(ctx, key, group); err != nil {
					return fmt.Errorf("TXID %d: %w", entry.MaxTXID, err)
				}
				if err := a.im.endEntry(entry); err != nil {
					return err
				}
				a.done(entry)
			}
			group = group[:0]
		}
	}
	return dec.Close()
}

// rangeSize is how much one request for blocks reads at most.
const rangeSize = 8 << 20

// rangeGap is how much between blocks is read for nothing rather than to make
// another request: a round trip's worth.
const rangeGap = 256 << 10

// runs cuts blocks, in the order of their offsets, into runs that lie together, or
// nearly so, and fit into one request.
func runs(blocks []*segment.Block) [][]*segment.Block {
	var all [][]*segment.Block
	for i := 0; i < len(blocks); {
		n, end := 1, blocks[i].Offset+int64(blocks[i].Stored)
		for i+n < len(blocks) {
			b := blocks[i+n]
			next := b.Offset + int64(b.Stored)
			if b.Offset-end > rangeGap || next-blocks[i].Offset > rangeSize {
				break
			}
			end = next
			n++
		}
		all = append(all, blocks[i:i+n])
		i += n
	}
	return all
}

// blocks applies blocks of a data object in order.
func (a *applier) blocks(ctx context.Context, key string, blocks []*segment.Block) error {
	if a.im.f == nil {
		for _, b := range blocks {
			a.im.note(b)
		}
		return nil
	}
	for _, run := range runs(blocks) {
		if err := readRun(ctx, a.line.store, key, run, a.im.block, func() {}); err != nil {
			return err
		}
	}
	return nil
}

// readRun reads blocks of a run and gives each, verified, to f, which must not keep
// it. When reading breaks off it goes on with the block where that happened. Before
// it may wait for the store it calls pause.
func readRun(ctx context.Context, store Store, key string, run []*segment.Block, f func(*segment.Block, []byte) error, pause func()) error {
	return retry(ctx, func() error {
		defer pause()
		first, last := run[0], run[len(run)-1]
		length := last.Offset + int64(last.Stored) - first.Offset
		var from io.Reader = eofReader{}
		if length > 0 {
			body, info, err := store.Get(ctx, key, Range{Offset: first.Offset, Length: length})
			if err != nil {
				return dataError(key, fmt.Errorf("replicate: read %s: %w", key, err))
			}
			defer body.Close()
			if end := first.Offset + length; info.Size < end {
				return fmt.Errorf("replicate: %s has %d bytes, its index says that there are %d or more: %w", key, info.Size, end, ErrCorrupt)
			}
			from = pausingReader{body, pause}
		}
		r := bufio.NewReaderSize(from, int(min(max(length, 1), segment.MaxBlockPlain))) // holds every block
		pos := first.Offset
		for len(run) > 0 {
			b := run[0]
			if b.Offset > pos { // what is between blocks is not wanted
				if _, err := r.Discard(int(b.Offset - pos)); err != nil {
					return fmt.Errorf("replicate: read %s: %w", key, err)
				}
			}
			pos = b.Offset + int64(b.Stored)
			stored, err := r.Peek(int(b.Stored))
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return dataError(key, fmt.Errorf("replicate: read %s: %w", key, err))
			}
			if err := b.Verify(stored); err != nil {
				return fmt.Errorf("replicate: %s: %w", key, err)
			}
			if err := f(b, stored); err != nil {
				return err
			}
			if _, err := r.Discard(len(stored)); err != nil {
				return fmt.Errorf("replicate: read %s: %w", key, err)
			}
			run = run[1:]
		}
		return nil
	})
}

// pausingReader calls pause before each read.
type pausingReader struct {
	r     io.Reader
	pause func()
}

func (p pausingReader) Read(b []byte) (int, error) {
	p.pause()
	return p.r.Read(b)
}

type eofReader struct{}

func (eofReader) Read([]byte) (int, error) { return 0, io.EOF }

func checkDataHeader(ctx context.Context, store Store, o *segment.Object) error {
	key := o.DataKey()
	return retry(ctx, func() error {
		b, err := fetchRange(ctx, store, key, 0, segment.DataHeaderSize)
		if err != nil {
			return dataError(key, err)
		}
		if err := o.VerifyDataHeader(b); err != nil {
			return fmt.Errorf("replicate: %s: %w", key, err)
		}
		return nil
	})
}

// nextFrame reads frame i, the next one of dec.
func nextFrame(ctx context.Context, store Store, o *segment.Object, dec *segment.FrameDecoder, i int) ([]segment.Record, error) {
	b, err := fetchFrame(ctx, store, o, i)
	if err != nil {
		return nil, err
	}
	recs, err := dec.Next(b)
	if err != nil {
		return nil, fmt.Errorf("replicate: %s: %w", o.DataKey(), err)
	}
	return recs, nil
}

func fetchFrame(ctx context.Context, store Store, o *segment.Object, i int) (b []byte, err error) {
	f, key := &o.Root.Frames[i], o.DataKey()
	err = retry(ctx, func() error {
		b, err = fetchRange(ctx, store, key, f.Offset, f.Size())
		return dataError(key, err)
	})
	return b, err
}
