package replicate

import (
	"context"
	"fmt"
	"io"

	"github.com/outwash/outwash/internal/segment"
)

// fileImage is a restored database that is written to a data object.
type fileImage struct {
	f        io.ReaderAt
	pageSize uint32
	hashes   []uint64 // by page number − 1
	wrote    func(done int64)
}

type storedBlock struct {
	b      segment.Block
	stored []byte
}

// encodeParallelism is how many blocks are compressed at once.
const encodeParallelism = 8

// write gives all pages to dw, each proven by its hash, which together must make
// the checksum sum.
func (m *fileImage) write(ctx context.Context, dw *segment.DataWriter, sum uint64) error {
	perBlock := uint64(min(segment.MaxBlockPages, segment.MaxBlockPlain/int(m.pageSize)))
	commit := uint64(len(m.hashes))
	encoders := make(chan *segment.BlockEncoder, encodeParallelism)
	for range encodeParallelism {
		encoders <- segment.NewBlockEncoder()
	}
	err := inOrder(ctx, ahead[storedBlock]{
		n: int((commit + perBlock - 1) / perBlock), parallel: encodeParallelism,
		size: func(int) int64 { return 2 * int64(perBlock) * int64(m.pageSize) },
		fetch: func(_ context.Context, i int) (storedBlock, error) {
			enc := <-encoders
			defer func() { encoders <- enc }()
			first := uint64(i)*perBlock + 1
			return m.block(enc, first, min(first+perBlock-1, commit))
		},
	}, func(i int, s storedBlock) error {
		if len(s.b.Pages) == 0 {
			return nil
		}
		if err := dw.WriteBlock(s.b, s.stored); err != nil {
			return err
		}
		for _, p := range s.b.Pages {
			sum ^= p.Hash
		}
		m.wrote(int64(s.b.Last()) * int64(m.pageSize))
		return nil
	})
	if err != nil {
		return err
	}
	if sum != 0 {
		return fmt.Errorf("replicate: the pages of the rebuilt database don't make the checksum of its state: %w", ErrCorrupt)
	}
	return nil
}

// block encodes the pages first..last, without the lock page.
func (m *fileImage) block(enc *segment.BlockEncoder, first, last uint64) (s storedBlock, err error) {
	plain := make([]byte, int(last-first+1)*int(m.pageSize))
	if _, err := readAt(m.f, plain, int64(first-1)*int64(m.pageSize)); err != nil {
		return s, fmt.Errorf("replicate: read the rebuilt database: %w", err)
	}
	lock := segment.LockPage(m.pageSize)
	kept := plain[:0]
	for no := first; no <= last; no++ {
		page := plain[int(no-first)*int(m.pageSize):][:m.pageSize]
		if no == lock {
			continue
		}
		hash := segment.PageHash(no, page)
		if hash != m.hashes[no-1] {
			return s, fmt.Errorf("replicate: page %d of the rebuilt database has changed (hash %016x, expected %016x): %w",
				no, hash, m.hashes[no-1], errWrite)
		}
		s.b.Pages = append(s.b.Pages, segment.Page{No: no, Hash: hash})
		kept = append(kept, page...)
	}
	if len(kept) == 0 {
		return s, nil
	}
	s.stored, s.b.Codec, s.b.Base = enc.Encode(nil, kept, nil)
	s.b.Stored = uint32(len(s.stored))
	return s, nil
}
