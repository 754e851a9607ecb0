package capture

import (
	"slices"

	"github.com/outwash/outwash/internal/segment"
)

// table has the hash of every page of the last emitted state: 8 bytes a page. It
// makes the checksum of each position incremental, repair a comparison, and
// proves that what was read as a page's old version is that version.
type table struct {
	pageSize uint32
	hashes   []uint64 // of page i+1
	sum      uint64   // XOR of them: the state's checksum
}

func (t *table) size() uint64 { return uint64(len(t.hashes)) }

func (t *table) get(no uint64) uint64 {
	if no > t.size() {
		return 0
	}
	return t.hashes[no-1]
}

// set puts the hash of a page within the size.
func (t *table) set(no, hash uint64) {
	t.sum ^= t.hashes[no-1] ^ hash
	t.hashes[no-1] = hash
}

// resize drops the pages of a shrink, or adds zero pages.
func (t *table) resize(n uint64) {
	for t.size() > n {
		t.sum ^= t.hashes[t.size()-1]
		t.hashes = t.hashes[:t.size()-1]
	}
	lock := segment.LockPage(t.pageSize)
	for no := t.size() + 1; no <= n; no++ {
		h := uint64(0)
		if no != lock {
			h = segment.PageHash(no, zeroPage[:t.pageSize])
		}
		t.sum ^= h
		t.hashes = append(t.hashes, h)
	}
}

// apply makes the table that of the state after e.
func (t *table) apply(e *segment.Entry) {
	if e.Whole {
		*t = table{}
	}
	t.pageSize = e.PageSize
	t.resize(e.MinCommit)
	t.resize(e.Commit)
	for i := range e.Blocks {
		for _, p := range e.Blocks[i].Pages {
			t.set(p.No, p.Hash)
		}
	}
}

// tableOf makes a table of page hashes.
func tableOf(pageSize uint32, hashes []uint64) table {
	t := table{pageSize: pageSize, hashes: slices.Clone(hashes)}
	for _, h := range hashes {
		t.sum ^= h
	}
	return t
}

var zeroPage [65536]byte
