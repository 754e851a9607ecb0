package replicate

import (
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/outwash/outwash/internal/segment"
)

// file is what an image is written to.
type file interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

// An image is a database while it is restored: the file, the hash of each page,
// and the checksum they make.
type image struct {
	f        file // nil: only the hashes are wanted, which indexes tell
	pageSize uint32
	commit   uint64   // pages after the last entry
	hashes   []uint64 // by page number − 1; 0: no page (or the lock page)
	sum      uint64
	written  uint64 // pages written, for progress
	noted    uint64 // hashes taken from indexes, so far

	dec         *segment.BlockDecoder
	plain, dict []byte
	touched     []pageRun // pages that the open entry has written
}

// pageRun is the pages from first to last.
type pageRun struct{ first, last uint64 }

func newImage(f file, pageSize uint32) *image {
	return &image{f: f, pageSize: pageSize, dec: segment.NewBlockDecoder()}
}

// reset begins anew, with another page size.
func (im *image) reset(pageSize uint32) error {
	im.pageSize, im.commit, im.sum = pageSize, 0, 0
	im.hashes = im.hashes[:0]
	return im.truncate(0)
}

// maxImplied is how many pages may be zero without an index that names them. SQLite
// leaves out pages that one transaction allocates and frees, unless its cache spilled
// them: of 4 KiB, this many are a cache of 64 GiB. Some bytes can say more of them than
// any memory has room for.
const maxImplied = 1 << 24

// bound checks that indexes which name some more pages can be those of a database of
// that size.
func (im *image) bound(pages, more uint64) error {
	if most := im.noted + more + maxImplied; pages > most {
		return fmt.Errorf("a database of %d pages, of which %d at most are stored: the others can't be zero all: %w", pages, most-maxImplied, ErrCorrupt)
	}
	return nil
}

// begin prepares for an entry with these blocks, of a segment with that page size.
func (im *image) begin(pageSize uint32, e *segment.Entry, blocks iter.Seq[*segment.Block]) error {
	pages := uint64(0)
	for b := range blocks {
		pages += uint64(len(b.Pages))
	}
	if err := im.bound(e.Commit, pages); err != nil {
		return fmt.Errorf("replicate: TXID %d: %w", e.MaxTXID, err)
	}
	if im.pageSize != pageSize {
		return im.reset(pageSize)
	}
	return nil
}

func (im *image) truncate(pages uint64) error {
	if im.f == nil {
		return nil
	}
	if err := im.f.Truncate(int64(pages) * int64(im.pageSize)); err != nil {
		return fmt.Errorf("replicate: %w the restored file: %w", errWrite, err)
	}
	return nil
}

func (im *image) set(page, hash uint64) {
	for uint64(len(im.hashes)) < page {
		im.hashes = append(im.hashes, 0)
	}
	im.sum ^= im.hashes[page-1] ^ hash
	im.hashes[page-1] = hash
}

// base reads the versions that b's pages have in the state before the entry.
func (im *image) base(b *segment.Block) ([]byte, error) {
	im.dict = im.dict[:0]
	for _, p := range b.Pages {
		if p.No > im.commit {
			break
		}
		n := len(im.dict)
		im.dict = append(im.dict, make([]byte, im.pageSize)...)
		page := im.dict[n:]
		if m, err := im.f.ReadAt(page, im.offset(p.No)); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("replicate: read the restored file: %w", err)
		} else if m < len(page) {
			clear(page[m:]) // a hole at the end of the file
		}
		if got := segment.PageHash(p.No, page); got != im.hashes[p.No-1] {
			return nil, fmt.Errorf("replicate: page %d of the restored file has changed while it was restored (hash %016x, expected %016x): %w",
				p.No, got, im.hashes[p.No-1], errWrite)
		}
	}
	return im.dict, nil
}

func (im *image) offset(page uint64) int64 { return int64(page-1) * int64(im.pageSize) }

// block applies a block of the open entry.
func (im *image) block(b *segment.Block, stored []byte) error {
	if im.f != nil {
		if err := im.write(b, stored); err != nil {
			return err
		}
	}
	im.note(b)
	return nil
}

// note takes the hashes of a block's pages from its index.
func (im *image) note(b *segment.Block) {
	for _, p := range b.Pages {
		im.set(p.No, p.Hash)
		if n := len(im.touched); n > 0 && im.touched[n-1].last+1 == p.No {
			im.touched[n-1].last++
		} else {
			im.touched = append(im.touched, pageRun{p.No, p.No})
		}
	}
	im.written += uint64(len(b.Pages))
	im.noted += uint64(len(b.Pages))
}

func (im *image) write(b *segment.Block, stored []byte) (err error) {
	var dict []byte
	if b.Base == segment.BasePatch {
		if dict, err = im.base(b); err != nil {
			return err
		}
	}
	if im.plain, err = im.dec.Decode(im.plain[:0], b, stored, im.pageSize, dict); err != nil {
		return err
	}
	return writePages(im.f, b.Pages, im.plain, im.pageSize)
}

// writePages writes pages in place, neighbours together.
func writePages(f io.WriterAt, pages []segment.Page, plain []byte, pageSize uint32) error {
	size := int(pageSize)
	for i := 0; i < len(pages); {
		n := 1
		for i+n < len(pages) && pages[i+n].No == pages[i].No+uint64(n) {
			n++
		}
		if _, err := f.WriteAt(plain[i*size:(i+n)*size], int64(pages[i].No-1)*int64(size)); err != nil {
			return fmt.Errorf("replicate: %w the restored file: %w", errWrite, err)
		}
		i += n
	}
	return nil
}

// endEntry closes the open entry: pages that it dropped go, pages that it left
// out are zero, and the checksum must be right.
func (im *image) endEntry(e *segment.Entry) error {
	before := im.commit
	low := min(before, e.MinCommit) // pages beyond it are new, or were gone in between
	if e.Whole {
		low = 0
	}
	for p := e.Commit + 1; p <= uint64(len(im.hashes)); p++ {
		im.sum ^= im.hashes[p-1]
	}
	if uint64(len(im.hashes)) > e.Commit {
		im.hashes = im.hashes[:e.Commit]
	}
	if e.Commit < before {
		if err := im.truncate(e.Commit); err != nil {
			return err
		}
	}
	im.commit = e.Commit
	if low < e.Commit {
		if err := im.zero(low, min(before, e.Commit)); err != nil {
			return err
		}
	}
	im.touched = im.touched[:0]
	if im.sum != e.Post {
		return fmt.Errorf("replicate: TXID %d: the pages make checksum %016x, expected %016x: %w", e.MaxTXID, im.sum, e.Post, ErrCorrupt)
	}
	return nil
}

// zero clears the pages after low that the open entry did not write. Those
// after old are holes or beyond the file's end, and zero already.
func (im *image) zero(low, old uint64) error {
	seen := make([]uint64, (im.commit-low+63)/64) // a bit for each page after low
	for _, t := range im.touched {
		for p := max(t.first, low+1); p <= min(t.last, im.commit); p++ {
			seen[(p-low-1)/64] |= 1 << ((p - low - 1) % 64)
		}
	}
	zeros := make([]byte, im.pageSize)
	lock := segment.LockPage(im.pageSize)
	for p := low + 1; p <= im.commit; p++ {
		if seen[(p-low-1)/64]>>((p-low-1)%64)&1 != 0 {
			continue
		}
		if p <= old && im.f != nil {
			if err := writePages(im.f, []segment.Page{{No: p}}, zeros, im.pageSize); err != nil {
				return err
			}
		}
		if p == lock {
			im.set(p, 0)
		} else {
			im.set(p, segment.PageHash(p, zeros))
		}
	}
	return nil
}
