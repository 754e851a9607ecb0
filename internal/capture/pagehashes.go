package capture

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/outwash/outwash/internal/segment"
)

// lookAttempts is how often a database that others write is looked at.
const lookAttempts = 50

// PageHashes returns the page size of the database in path and the hash of each of
// its pages, page 1's first; the lock page's is 0. It holds a read transaction
// meanwhile, and writes nothing: neither to the database nor to its log.
func PageHashes(ctx context.Context, path string) (pageSize uint32, hashes []uint64, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return 0, nil, fmt.Errorf("capture: %w", err)
	}
	d := &DB{opts: Options{Path: path, Params: url.Values{"mode": {"ro"}}}}
	p, err := d.openPin()
	if err != nil {
		return 0, nil, err
	}
	defer p.close()
	defer func() {
		for _, f := range []File{d.wal, d.shm} {
			if f != nil {
				f.Close()
			}
		}
	}()
	var v *view
	for try := 1; ; try++ {
		if err := p.begin(); err != nil {
			return 0, nil, err
		}
		if v, err = d.look(); err == nil {
			break
		}
		p.end()
		// A log that is all in the file can begin anew while it is looked at: nothing
		// keeps its writers from that here.
		if try == lookAttempts || ctx.Err() != nil {
			return 0, nil, err
		}
	}
	defer p.end()
	defer v.close()
	page := make([]byte, v.pageSize)
	lock := segment.LockPage(v.pageSize)
	hashes = make([]uint64, 0, v.size)
	for no := uint64(1); no <= v.size; no++ {
		if no%1024 == 0 && ctx.Err() != nil {
			return 0, nil, context.Cause(ctx)
		}
		if no == lock {
			hashes = append(hashes, 0)
			continue
		}
		if err := v.read(no, page); err != nil {
			return 0, nil, fmt.Errorf("capture: read page %d of %s: %w", no, path, err)
		}
		hashes = append(hashes, segment.PageHash(no, page))
	}
	return v.pageSize, hashes, nil
}
