package segment

import (
	"fmt"
	"math"
)

// rules holds what must be true of the records of an index in their order:
// blocks, then the entry that they belong to. Encoders and decoders share it.
type rules struct {
	kind     Kind
	pageSize uint32
	maxTXID  uint64 // last one a segment can reach

	// The state after the last entry.
	entries   uint64
	txid      uint64
	post      uint64
	commit    uint64
	minCommit uint64 // over all entries
	first     int64
	last      int64
	replaces  bool
	claim     bool // there is one among the entries
	needsBase bool // likewise

	open run
}

// run is the blocks since the last entry.
type run struct {
	blocks    int
	lastPage  uint64 // of the last block
	maxPage   uint64
	unordered bool
	patches   int
	patchMin  uint64 // largest first page of a patch
}

// newRules begins after TXID h.MinTXID−1.
func newRules(h *Header) rules {
	return rules{
		kind: h.Kind, pageSize: h.PageSize, maxTXID: MaxTXID,
		txid: h.MinTXID - 1, post: h.Pre, commit: h.PreCommit, minCommit: math.MaxUint64,
	}
}

func (r *rules) block(b *Block) error {
	if err := checkBlock(b, r.kind, r.pageSize); err != nil {
		return err
	}
	o := &r.open
	if o.blocks > 0 && b.First() <= o.lastPage {
		o.unordered = true
	}
	o.blocks++
	o.lastPage = b.Last()
	o.maxPage = max(o.maxPage, b.Last())
	if b.Base == BasePatch {
		o.patches++
		o.patchMin = max(o.patchMin, b.First())
	}
	return nil
}

// checkBlock holds the rules of a block alone. pageSize 0: not known.
func checkBlock(b *Block, kind Kind, pageSize uint32) error {
	n := len(b.Pages)
	if n < 1 || n > MaxBlockPages {
		return fmt.Errorf("block of %d pages, expected 1 to %d", n, MaxBlockPages)
	}
	for i, p := range b.Pages {
		if p.No == 0 || i > 0 && p.No <= b.Pages[i-1].No {
			return fmt.Errorf("block with page %d at place %d: pages must ascend from 1", p.No, i)
		}
		if pageSize != 0 && p.No == LockPage(pageSize) {
			return fmt.Errorf("block with page %d, the lock page", p.No)
		}
	}
	plain := uint32(MaxBlockPlain)
	if pageSize != 0 {
		plain = uint32(n) * pageSize
		if plain > MaxBlockPlain {
			return fmt.Errorf("block of %d bytes, at most %d expected", plain, MaxBlockPlain)
		}
	}
	switch b.Codec {
	case CodecRaw:
		if pageSize != 0 && b.Stored != plain || b.Stored > plain {
			return fmt.Errorf("raw block of %d stored bytes, expected %d", b.Stored, plain)
		}
	case CodecZstd:
		if b.Stored < minFrame || b.Stored >= plain {
			return fmt.Errorf("zstd block of %d stored bytes, expected %d or more, less than its %d", b.Stored, minFrame, plain)
		}
	case CodecZero:
		if b.Stored != 0 {
			return fmt.Errorf("zero block of %d stored bytes, expected none", b.Stored)
		}
	default:
		return unknownf("block codec %d", b.Codec)
	}
	switch b.Base {
	case BaseNone:
	case BasePatch:
		if b.Codec != CodecZstd || kind != KindLog {
			return fmt.Errorf("patch with codec %d in a %v segment, expected codec %d in a log segment", b.Codec, kind, CodecZstd)
		}
	default:
		return unknownf("block base rule %d", b.Base)
	}
	return nil
}

// entry checks the entry that closes the open run, and moves on.
func (r *rules) entry(e *Entry) error {
	if err := r.checkKind(e); err != nil {
		return err
	}
	if err := checkTimes(e, r.last); err != nil {
		return err
	}
	o := &r.open
	switch {
	case e.Count < 1 || r.maxTXID <= r.txid || e.Count > r.maxTXID-r.txid:
		return fmt.Errorf("%v of %d TXIDs after TXID %d, expected 1 or more up to TXID %d", e.Kind, e.Count, r.txid, r.maxTXID)
	case e.Commit > math.MaxInt64/MinPageSize || r.pageSize != 0 && e.Commit > math.MaxInt64/uint64(r.pageSize):
		return fmt.Errorf("commit size %d is too large", e.Commit)
	case e.MinCommit > e.Commit:
		return fmt.Errorf("smallest commit size %d, expected at most the final one, %d", e.MinCommit, e.Commit)
	case e.Commit == 0 && e.Post != 0:
		return fmt.Errorf("checksum %016x with no pages, expected 0", e.Post)
	case o.maxPage > e.Commit:
		return fmt.Errorf("page %d is beyond the commit size %d", o.maxPage, e.Commit)
	case e.Unordered != o.unordered:
		return fmt.Errorf("unordered is %v with blocks for which it is %v", e.Unordered, o.unordered)
	case o.patches > 0 && (e.Whole || e.Unordered):
		return fmt.Errorf("patch in an entry that is whole or unordered")
	case o.patches > 0 && o.patchMin > r.commit:
		return fmt.Errorf("patch from page %d on, but the state before has %d pages", o.patchMin, r.commit)
	case e.NeedsBase && (e.Kind != Adopt || e.Whole || o.blocks > 0):
		return fmt.Errorf("needs base: a %v with %d blocks, expected an adopt without any", e.Kind, o.blocks)
	}
	if r.entries == 0 {
		r.replaces = e.Whole || e.NeedsBase
		r.first = e.FirstMono
	}
	r.claim = r.claim || e.Kind == Claim
	r.needsBase = r.needsBase || e.NeedsBase
	r.entries++
	r.txid += e.Count
	r.post, r.commit, r.last = e.Post, e.Commit, e.LastMono
	r.minCommit = min(r.minCommit, e.MinCommit)
	r.open = run{}
	return nil
}

func (r *rules) checkKind(e *Entry) error {
	want := KindLog
	switch e.Kind {
	case Transaction, Repair, Squash, Adopt, Merge:
	case Claim:
		if r.open.blocks > 0 || e.Whole || e.Commit != r.commit || e.Post != r.post || e.MinCommit != e.Commit || e.FirstMono != e.LastMono {
			return fmt.Errorf("claim with %d blocks, commit size %d and checksum %016x, expected none, %d and %016x: the state before",
				r.open.blocks, e.Commit, e.Post, r.commit, r.post)
		}
	case Snapshot:
		want = KindSnapshot
		if e.Whole {
			return fmt.Errorf("snapshot marked as whole, which it always is")
		}
	case Pages:
		want = KindPages
	default:
		return unknownf("%v", e.Kind)
	}
	if r.kind != want {
		return fmt.Errorf("%v in a %v segment", e.Kind, r.kind)
	}
	switch e.Kind {
	case Transaction, Snapshot:
		if e.MinCommit != e.Commit {
			return fmt.Errorf("%v with smallest commit size %d, expected the final one, %d", e.Kind, e.MinCommit, e.Commit)
		}
	}
	switch e.Kind {
	case Merge, Snapshot, Pages:
	default:
		if e.Count != 1 {
			return fmt.Errorf("%v of %d TXIDs, expected 1", e.Kind, e.Count)
		}
	}
	return nil
}

func checkTimes(e *Entry, last int64) error {
	if e.FirstMono < last || e.LastMono < e.FirstMono || e.FirstMono < 0 {
		return fmt.Errorf("monotone times %d to %d after %d, expected them in order", e.FirstMono, e.LastMono, last)
	}
	if e.FirstRaw < 0 || e.LastRaw < 0 {
		return fmt.Errorf("times %d, %d, expected 0 or more", e.FirstRaw, e.LastRaw)
	}
	return nil
}

// finish checks the records as a whole against the header.
func (r *rules) finish(h *Header) error {
	if r.open.blocks > 0 {
		return fmt.Errorf("%d blocks after the last entry", r.open.blocks)
	}
	type pair struct {
		what      string
		got, want uint64
	}
	for _, p := range []pair{
		{"number of entries", r.entries, h.Entries},
		{"last TXID", r.txid, h.MaxTXID},
		{"checksum after", r.post, h.Post},
		{"commit size after", r.commit, h.Commit},
		{"smallest commit size", r.minCommit, h.MinCommit},
		{"first time", uint64(r.first), uint64(h.FirstMono)},
		{"last time", uint64(r.last), uint64(h.LastMono)},
	} {
		if p.got != p.want {
			return fmt.Errorf("%s is %d by the entries, %d by the header", p.what, p.got, p.want)
		}
	}
	if r.replaces != h.Replaces {
		return fmt.Errorf("replaces the state before is %v by the entries, %v by the header", r.replaces, h.Replaces)
	}
	if r.needsBase && (r.entries != 1 || h.External) {
		return fmt.Errorf("an entry that needs a base is one of %d, external is %v; expected it alone and inline", r.entries, h.External)
	}
	if r.claim != h.Claim {
		return fmt.Errorf("claim is %v by the entries, %v by the header", r.claim, h.Claim)
	}
	return nil
}
