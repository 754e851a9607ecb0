package replicate

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// exportInfo is a snapshot or page segment, and what was read of it.
type exportInfo struct {
	exportKey
	header *segment.Header // nil: not read yet
	bytes  int64
	void   bool // its data object is missing
	gone   bool // retired since it was listed
	broken error
}

// wholeExport is up to which size an object is read whole for its header: to know the
// size of the data object that it names takes that anyway.
const wholeExport = 64 << 10

// ReadPageSegments reads the page segments that ReadHistory left out, one or two small
// requests each.
func (h *History) ReadPageSegments(ctx context.Context) error {
	if h.unread == 0 {
		return nil
	}
	if err := h.readExports(ctx, len(h.exports)); err != nil {
		return err
	}
	return h.findRanges(ctx)
}

// readExports reads what names times and sizes: of all snapshots, and of the newest
// page segments, most of them.
func (h *History) readExports(ctx context.Context, most int) error {
	database, err := segment.ParseID(h.Database)
	if err != nil {
		return err
	}
	l := &line{h.store, database}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(historyRequests)
	h.unread = 0
	for i := len(h.exports) - 1; i >= 0; i-- {
		x := &h.exports[i]
		if x.kind == segment.KindPages {
			if most--; most < 0 {
				h.unread++
				continue
			}
		}
		if x.header == nil && !x.gone && x.broken == nil {
			g.Go(func() error {
				err := h.readExport(gctx, l, x)
				if isVerdict(err) { // no reason not to list the others
					x.header, x.broken, err = nil, err, nil
				}
				return err
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	h.Snapshots, h.PageSegments, h.Damaged = []SnapshotInfo{}, []PagesInfo{}, nil
	for _, x := range h.exports {
		if x.gone {
			continue
		}
		s := SnapshotInfo{Key: x.key(), TXID: x.max, Checksum: fmt.Sprintf("%016x", x.sum), Bytes: x.bytes, Void: x.void, Damaged: x.broken != nil}
		if s.Damaged {
			h.Damaged = append(h.Damaged, x.broken)
		}
		if x.header != nil {
			s.Time, s.Pages = timeOf(x.header.LastMono), x.header.Commit
		}
		if x.kind == segment.KindSnapshot {
			h.Snapshots = append(h.Snapshots, s)
		} else {
			h.PageSegments = append(h.PageSegments, PagesInfo{s.Key, x.min, x.max, s.Checksum, s.Time, s.Pages, s.Bytes, s.Void, s.Damaged})
		}
	}
	return nil
}

func (h *History) readExport(ctx context.Context, l *line, x *exportInfo) (err error) {
	if x.size > wholeExport {
		if x.header, err = l.header(ctx, x.key(), x.kind); err == nil && !x.header.External {
			return nil
		}
	}
	var o *segment.Object
	if err == nil {
		o, err = l.export(ctx, x.exportKey)
	}
	if errors.Is(err, objstore.ErrNotExist) {
		x.gone = true
		return nil
	}
	if err != nil {
		return err
	}
	x.header = o.Header
	if !o.Header.External {
		return nil
	}
	x.bytes += o.Root.Size
	if !h.data[o.DataKey()] { // it can have been written after the data objects were listed
		_, err = fetchRange(ctx, l.store, o.DataKey(), 0, segment.DataHeaderSize)
		x.void = errors.Is(err, objstore.ErrNotExist)
		if x.void {
			x.bytes, err = x.size, nil
		}
	}
	return err
}

// findRanges says what can be restored: the ends of exports that follow from one
// another, and every TXID from where the log goes on behind one of them, or from the
// line's first commit, if the log still begins with the line.
func (h *History) findRanges(ctx context.Context) error {
	h.Ranges = []TXIDRange{}
	if h.Pages == 0 {
		return nil
	}
	every, err := h.firstCommit(ctx)
	if err != nil {
		return err
	}
	var sound []exportKey
	headers := map[exportKey]*segment.Header{}
	for _, x := range h.exports {
		if !x.void && !x.gone && x.broken == nil && (x.header == nil || x.header.Commit > 0) {
			sound = append(sound, x.exportKey)
			headers[x.exportKey] = x.header
		}
	}
	log := h.logBegins()
	for _, k := range boundaries(sound) {
		point := TXIDRange{From: k.max, To: k.max}
		if header := headers[k]; header != nil {
			point.FromTime = timeOf(header.LastMono)
			point.ToTime = point.FromTime
		}
		switch {
		case every.From == 0 && k.max+1 >= log:
			every = point
		case every.From == 0 || k.max < every.From:
			h.Ranges = append(h.Ranges, point)
		}
	}
	if every.From != 0 {
		every.To, every.ToTime = h.TXID, h.Time
		h.Ranges = append(h.Ranges, every)
	}
	return nil
}

// logBegins returns the first TXID from which on the log is there, as far as keys
// tell: retention leaves claims alone where it has been, which cover one TXID each.
func (h *History) logBegins() uint64 {
	begins := uint64(0)
	for i, s := range h.Segments {
		if i == 0 || h.Segments[i-1].Claim && s.MinTXID != h.Segments[i-1].MinTXID+1 {
			begins = s.MinTXID
		}
	}
	return begins
}

// firstCommit returns the line's first state with pages, if the log begins with the
// line and goes on to there.
func (h *History) firstCommit(ctx context.Context) (first TXIDRange, err error) {
	if h.logBegins() != 1 {
		return first, nil
	}
	database, err := segment.ParseID(h.Database)
	if err != nil {
		return first, err
	}
	l := &line{h.store, database}
	for _, s := range h.Segments { // the first that isn't a claim
		if s.Claim {
			continue
		}
		o, err := l.log(ctx, s.MinTXID)
		if errors.Is(err, objstore.ErrNotExist) { // retired since it was listed
			return first, nil
		}
		if err != nil {
			return first, err
		}
		if o.Header.External {
			return TXIDRange{From: o.Header.MaxTXID, FromTime: timeOf(o.Header.LastMono)}, nil
		}
		for _, e := range o.Entries {
			if e.Commit > 0 {
				if !e.NeedsBase {
					first.From, first.FromTime = e.MaxTXID, timeOf(e.LastMono)
				}
				break
			}
		}
		break
	}
	return first, nil
}
