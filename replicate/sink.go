package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// sink takes the blocks of an export: as long as they are few it keeps them, and the
// export is one object; else they go to a data object as they come.
type sink struct {
	ctx  context.Context
	e    *Engine
	h    segment.Header
	most int64 // bytes at most, as far as can be told
	room int64 // bytes that it keeps at most, stored; of pages, four times as many

	kept     []keptBlock
	stored   int64
	plain    int64
	ordered  bool   // kept blocks ascend
	lastPage uint64 // of the last block
	maxPage  uint64

	upload *exportUpload // once there is a data object
}

type keptBlock struct {
	segment.Block
	stored []byte
}

// write takes a block.
func (s *sink) write(b segment.Block, stored []byte) error {
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	s.maxPage = max(s.maxPage, b.Last())
	if s.upload != nil {
		return s.upload.send(exportItem{block: b, stored: stored})
	}
	s.ordered = b.First() > s.lastPage && (s.ordered || len(s.kept) == 0)
	s.lastPage = b.Last()
	s.stored += int64(len(stored))
	s.plain += int64(len(b.Pages)) * int64(s.h.PageSize)
	b.Pages = slices.Clone(b.Pages)
	s.kept = append(s.kept, keptBlock{b, bytes.Clone(stored)})
	if s.stored <= s.room && s.plain <= 4*s.room {
		return nil
	}
	s.upload = s.begin()
	for _, k := range s.kept {
		if err := s.upload.send(exportItem{block: k.Block, stored: k.stored}); err != nil {
			return err
		}
	}
	s.kept = nil
	return nil
}

// finish returns the object that makes the blocks an export, and the size of its
// data object.
func (s *sink) finish(h segment.Header, en *segment.Entry) (object []byte, data int64, err error) {
	if s.upload == nil {
		if object, err = s.inline(h, en); err != nil {
			return nil, 0, fmt.Errorf("replicate: %s: encode an export: %w", s.e.opts.Database, err)
		}
		return object, 0, nil
	}
	if s.maxPage > en.Commit {
		return nil, 0, fmt.Errorf("replicate: the database shrank to %d pages after page %d was copied: %w", en.Commit, s.maxPage, local.ErrCopyLost)
	}
	if err := s.upload.send(exportItem{entry: en}); err != nil {
		return nil, 0, err
	}
	u := s.upload
	<-u.done
	if u.err != nil {
		return nil, 0, u.err
	}
	object, _, err = segment.EncodeExternal(h, []*segment.Entry{en}, u.root)
	if err != nil {
		return nil, 0, fmt.Errorf("replicate: %s: encode an export: %w", s.e.opts.Database, err)
	}
	return object, u.size, nil
}

// inline returns a segment that carries the blocks itself. There they ascend.
func (s *sink) inline(h segment.Header, en *segment.Entry) ([]byte, error) {
	if !s.ordered && len(s.kept) > 0 || s.maxPage > en.Commit {
		if err := s.sort(en.Commit); err != nil {
			return nil, err
		}
	}
	var body []byte
	for _, k := range s.kept {
		en.Blocks = append(en.Blocks, k.Block)
		body = append(body, k.stored...)
	}
	en.Body = segment.BytesBody(body)
	object, _, err := segment.Encode(h, []*segment.Entry{en})
	return object, err
}

// sort makes new blocks of the last image of each page up to commit.
func (s *sink) sort(commit uint64) error {
	dec, enc, size := segment.NewBlockDecoder(), segment.NewBlockEncoder(), int(s.h.PageSize)
	images := map[uint64][]byte{}
	var pages []segment.Page
	for i := len(s.kept) - 1; i >= 0; i-- { // the last image counts
		k := &s.kept[i]
		plain, err := dec.Decode(nil, &k.Block, k.stored, s.h.PageSize, nil)
		if err != nil {
			return err
		}
		for j, p := range k.Pages {
			if images[p.No] == nil && p.No <= commit {
				images[p.No] = plain[j*size : (j+1)*size]
				pages = append(pages, p)
			}
		}
		k.stored = nil
	}
	slices.SortFunc(pages, func(a, b segment.Page) int {
		if a.No < b.No {
			return -1
		}
		return 1
	})
	s.kept = s.kept[:0]
	for part := range slices.Chunk(pages, min(segment.MaxBlockPages, segment.MaxBlockPlain/size)) {
		var plain []byte
		for _, p := range part {
			plain = append(plain, images[p.No]...)
		}
		k := keptBlock{Block: segment.Block{Pages: part}}
		k.stored, k.Codec, k.Base = enc.Encode(nil, plain, nil)
		k.Stored = uint32(len(k.stored))
		s.kept = append(s.kept, k)
	}
	return nil
}

// exportUpload is the upload of an export's data object: its blocks come from where
// they are copied, one by one.
type exportUpload struct {
	items chan exportItem
	taken chan struct{} // an item's bytes are no longer needed
	quit  context.CancelFunc
	done  chan struct{}

	root *segment.Root
	size int64
	err  error
}

// exportItem is a block, or the entry that ends the upload.
type exportItem struct {
	block  segment.Block
	stored []byte
	entry  *segment.Entry
}

func (s *sink) begin() *exportUpload {
	ctx, cancel := context.WithCancel(s.ctx)
	u := &exportUpload{items: make(chan exportItem), taken: make(chan struct{}), quit: cancel, done: make(chan struct{})}
	h := segment.DataHeader{Name: segment.NewID(), Kind: s.h.Kind, PageSize: s.h.PageSize, Database: s.h.Database, Session: s.h.Session}
	s.e.group.Go(func() error {
		defer close(u.done)
		defer cancel()
		u.root, u.size, u.err = uploadData(ctx, s.e.opts.Store, h, 0, s.most, func(dw *segment.DataWriter) error {
			return u.take(ctx, dw)
		})
		return nil
	})
	return u
}

// take writes items until the entry comes.
func (u *exportUpload) take(ctx context.Context, dw *segment.DataWriter) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case it := <-u.items:
			if it.entry != nil {
				return dw.EndEntry(it.entry)
			}
			if err := dw.WriteBlock(it.block, it.stored); err != nil {
				return err
			}
			u.taken <- struct{}{}
		}
	}
}

// send hands over an item, whose bytes are the caller's again when it returns.
func (u *exportUpload) send(it exportItem) error {
	select {
	case u.items <- it:
	case <-u.done:
		return u.ended()
	}
	if it.entry != nil {
		return nil
	}
	select {
	case <-u.taken:
		return nil
	case <-u.done:
		return u.ended()
	}
}

func (u *exportUpload) ended() error {
	if u.err != nil {
		return u.err
	}
	return errors.New("replicate: the upload of an export ended early")
}

// abort ends the upload if it isn't over, and waits for that.
func (s *sink) abort() {
	if s.upload == nil {
		return
	}
	s.upload.quit()
	<-s.upload.done
}
