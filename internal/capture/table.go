package capture

import "github.com/outwash/outwash/internal/segment"

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

var zeroPage [65536]byte

// bitmap is a growing set of page numbers.
type bitmap struct {
	words []uint64
	n     int
}

func (b *bitmap) add(no uint64) {
	for uint64(len(b.words)) <= no/64 {
		b.words = append(b.words, make([]uint64, max(1, len(b.words)))...)
	}
	if m := uint64(1) << (no % 64); b.words[no/64]&m == 0 {
		b.words[no/64] |= m
		b.n++
	}
}

func (b *bitmap) has(no uint64) bool {
	return no/64 < uint64(len(b.words)) && b.words[no/64]&(1<<(no%64)) != 0
}

func (b *bitmap) remove(no uint64) {
	if b.has(no) {
		b.words[no/64] &^= 1 << (no % 64)
		b.n--
	}
}
