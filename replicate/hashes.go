package replicate

import (
	"context"
	"fmt"
	"log/slog"
)

// restoreParallelism is how many requests of a restore run at once by default.
const restoreParallelism = 8

// pageHashes returns the hash of each page of the state at the line's end, page
// i+1 at i, from indexes alone: it is a restore that writes no pages. So it costs
// about 12 bytes for each page of the base, and the log since then.
func (l *line) pageHashes(ctx context.Context, end *lineEnd) ([]uint64, error) {
	if end.Commit == 0 {
		return nil, nil
	}
	r := &restorer{
		store: &readingStore{Store: l.store},
		log:   slog.New(slog.DiscardHandler), target: target{txid: end.TXID},
	}
	r.line = &line{r.store, l.database}
	r.meter.store = r.store
	if err := r.attempts(ctx, func() error { return r.rebuild(ctx, nil) }); err != nil {
		return nil, fmt.Errorf("replicate: page hashes of TXID %d: %w", end.TXID, err)
	}
	im := r.a.im
	if im.sum != end.Checksum || im.commit != end.Commit || im.pageSize != end.PageSize {
		return nil, fmt.Errorf("replicate: the indexes make checksum %016x with %d pages of %d bytes at TXID %d, the line ends with %016x, %d, %d: %w",
			im.sum, im.commit, im.pageSize, end.TXID, end.Checksum, end.Commit, end.PageSize, ErrCorrupt)
	}
	return im.hashes, nil
}
