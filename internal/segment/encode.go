package segment

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
)

// Encode returns an inline segment. Of h it uses Kind, PageSize, Database,
// Session, MinTXID, PrevChain, Owner and Extensions; everything else comes from
// the entries, whose TXIDs it sets. Entries must chain: Pre and PreCommit of
// each are Post and Commit of the one before. Without room for it the error is
// [ErrTooLarge].
func Encode(h Header, entries []*Entry) (object []byte, chain Hash, err error) {
	h.External = false
	if err := h.derive(entries); err != nil {
		return nil, Hash{}, err
	}
	r := newRules(&h)
	var frames [][]byte
	var root Root
	var f frameBuilder
	var body, index, plain int64
	blocks := 0
	add := func(last bool) {
		if f.full() || last && !f.empty() {
			plain += int64(len(f.structure))
			fr, b := f.take()
			root.Frames = append(root.Frames, fr)
			frames = append(frames, b)
			index += fr.Size()
		}
	}
	for i, e := range entries {
		for j := range e.Blocks {
			b := &e.Blocks[j]
			if err := r.block(b); err != nil {
				return nil, Hash{}, invalidf("entry %d, block %d: %w", i, j, err)
			}
			body += int64(b.Stored)
			if blocks++; blocks > MaxBlocks || body > MaxInline {
				return nil, Hash{}, tooLarge(blocks, body)
			}
			f.block(b)
			add(false)
		}
		last := r.last
		if i == 0 {
			last = h.FirstMono
		}
		if err = r.entry(e); err == nil {
			err = f.appendEntry(e, last)
		}
		if err != nil {
			return nil, Hash{}, invalidf("entry %d: %w", i, err)
		}
		add(i == len(entries)-1)
	}
	if err := r.finish(&h); err != nil {
		return nil, Hash{}, invalidf("%w", err)
	}
	if plain > maxStructures || body+index > MaxInline {
		return nil, Hash{}, tooLarge(blocks, body+index)
	}
	tail := int(index) + len(root.append(nil, false, Hash{}))
	head, err := h.appendPadded(int(body) + tail + footerSize)
	if err != nil {
		return nil, Hash{}, err
	}
	size := len(head) + int(body) + tail + footerSize
	if size > MaxInline {
		return nil, Hash{}, tooLarge(blocks, int64(size))
	}
	b := make([]byte, len(head), size)
	copy(b, head)
	for i, e := range entries {
		if b, err = appendBody(b, e); err != nil {
			return nil, Hash{}, fmt.Errorf("segment: entry %d: %w", i, err)
		}
	}
	first := len(b)
	sum := Hash(sha256.Sum256(b[len(head):]))
	for _, fr := range frames {
		b = append(b, fr...)
	}
	rootAt := len(b)
	b = root.append(b, false, sum)
	b, chain = seal(b, len(head), first, rootAt)
	return b, chain, nil
}

func tooLarge(blocks int, size int64) error {
	return fmt.Errorf("%w: %d bytes or more and %d blocks or more, at most %d and %d", ErrTooLarge, size, blocks, MaxInline, MaxBlocks)
}

// derive fills in what the entries say, and the entries' TXIDs.
func (h *Header) derive(entries []*Entry) error {
	if len(entries) == 0 || len(entries) > MaxEntries {
		return invalidf("%d entries, expected 1 to %d", len(entries), MaxEntries)
	}
	first, last := entries[0], entries[len(entries)-1]
	h.Entries = uint64(len(entries))
	h.Pre, h.PreCommit = first.Pre, first.PreCommit
	h.Post, h.Commit = last.Post, last.Commit
	h.FirstMono, h.LastMono = first.FirstMono, last.LastMono
	h.WAL = last.WAL
	h.Claim = first.Kind == Claim
	h.Replaces = first.Whole || first.NeedsBase
	h.MinCommit = math.MaxUint64
	txid, post, commit := h.MinTXID, h.Pre, h.PreCommit
	for i, e := range entries {
		if e.Pre != post || e.PreCommit != commit {
			return invalidf("entry %d: checksum before is %016x, %d pages; the entry before left %016x, %d", i, e.Pre, e.PreCommit, post, commit)
		}
		if e.NeedsBase && h.External {
			return invalidf("entry %d: needs a base, but is external", i)
		}
		if e.PageSize != 0 && e.PageSize != h.PageSize {
			return invalidf("entry %d: page size %d in a segment of page size %d", i, e.PageSize, h.PageSize)
		}
		if e.Count < 1 || txid < 1 || txid > MaxTXID || e.Count > MaxTXID-txid+1 {
			return invalidf("entry %d: %d TXIDs from %d", i, e.Count, txid)
		}
		e.MinTXID, e.MaxTXID = txid, txid+e.Count-1
		txid += e.Count
		post, commit = e.Post, e.Commit
		h.MinCommit = min(h.MinCommit, e.MinCommit)
	}
	h.MaxTXID = txid - 1
	if err := h.check(); err != nil {
		return invalidf("%w", err)
	}
	return nil
}

// appendPadded returns the header of an object that has rest bytes besides,
// padded so that claims, and only they among log segments, are ClaimSize long.
func (h *Header) appendPadded(rest int) ([]byte, error) {
	b, err := h.append(nil, -1)
	if err != nil || h.Kind != KindLog {
		return b, err
	}
	size := len(b) + rest
	switch {
	case h.Claim && size != ClaimSize:
		if size+extensionHeader > ClaimSize {
			return nil, invalidf("claim of %d bytes, at most %d", size, ClaimSize-extensionHeader)
		}
		return h.append(b[:0], ClaimSize-size-extensionHeader)
	case !h.Claim && size == ClaimSize:
		return h.append(b[:0], 0)
	}
	return b, nil
}

func appendBody(b []byte, e *Entry) ([]byte, error) {
	n := e.BodySize()
	if n == 0 && e.Body == nil {
		return b, nil
	}
	if e.Body == nil || e.Body.Size() != n {
		return nil, invalidf("its body does not have the %d bytes that its blocks say", n)
	}
	at := len(b)
	b = b[:at+int(n)] // within the capacity: sizes were added up
	m, err := e.Body.ReadAt(b[at:], 0)
	if int64(m) == n {
		return b, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return nil, fmt.Errorf("read its body: %w", err)
}

// seal appends the footer with the chain value.
func seal(b []byte, header, first, root int) ([]byte, Hash) {
	b = footer{int64(first), int64(root), int64(len(b) + footerSize)}.append(b)
	chain := chainValue(b, header, first)
	return append(b, chain[:]...), chain
}

func chainValue(b []byte, header, first int) (h Hash) {
	s := sha256.New()
	s.Write(b[:header])
	s.Write(b[first:])
	s.Sum(h[:0])
	return h
}

// EncodeClaim returns a claim. Of h it uses what [Encode] does and besides Pre,
// PreCommit, WAL and LastMono: the state that the claim repeats, and the time.
func EncodeClaim(h Header) (object []byte, chain Hash, err error) {
	h.Kind = KindLog
	return Encode(h, []*Entry{{
		Kind: Claim, Count: 1, WAL: h.WAL,
		Pre: h.Pre, Post: h.Pre, PreCommit: h.PreCommit, Commit: h.PreCommit, MinCommit: h.PreCommit,
		FirstMono: h.LastMono, LastMono: h.LastMono, FirstRaw: h.LastMono, LastRaw: h.LastMono,
	}})
}

// EncodeExternal returns the descriptor of a segment whose blocks are in the
// data object that a [DataWriter] has written. entries are those given to its
// EndEntry; what h is used for says [Encode].
func EncodeExternal(h Header, entries []*Entry, root *Root) (object []byte, chain Hash, err error) {
	h.External = true
	if err := h.derive(entries); err != nil {
		return nil, Hash{}, err
	}
	if root.kind != 0 {
		if err := root.matches(&h, entries); err != nil {
			return nil, Hash{}, invalidf("data object: %w", err)
		}
	}
	rb := root.append(nil, true, Hash{})
	if len(rb) > maxRoot {
		return nil, Hash{}, fmt.Errorf("%w: root of %d bytes, at most %d", ErrTooLarge, len(rb), maxRoot)
	}
	if _, _, err := parseRoot(rb, true, 0, 0); err != nil {
		return nil, Hash{}, invalidf("%w", err)
	}
	b, err := h.appendPadded(len(rb) + footerSize)
	if err != nil {
		return nil, Hash{}, err
	}
	header := len(b)
	b, chain = seal(append(b, rb...), header, header, header)
	return b, chain, nil
}
