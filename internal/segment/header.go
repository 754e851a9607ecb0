package segment

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
)

const (
	magic = "OUTWASH\x01"

	headerFixed = 192     // length before the extensions
	headerMin   = 200     // with the check value
	headerMax   = 1 << 16 // longest

	flagExternal = 1 << 0
	flagReplaces = 1 << 1
	flagClaim    = 1 << 2
	flagsKnown   = flagExternal | flagReplaces | flagClaim

	hashXXH64   = 1 // page hash algorithm
	hashSHA256  = 1 // object hash algorithm
	encryptNone = 0

	extPadding = 0x0001
	extOwner   = 0x0002

	maxOwner = 512
)

// append appends the header. padding is the length of the padding extension's
// value, or −1 for none.
func (h *Header) append(dst []byte, padding int) ([]byte, error) {
	start := len(dst)
	var flags byte
	if h.External {
		flags |= flagExternal
	}
	if h.Replaces {
		flags |= flagReplaces
	}
	if h.Claim {
		flags |= flagClaim
	}
	dst = append(dst, magic...)
	dst = append(dst, byte(h.Kind), flags, hashXXH64, hashSHA256, encryptNone, 0, 0, 0)
	dst = appendU32(dst, 0) // length, below
	dst = appendU32(dst, h.PageSize)
	dst = append(dst, h.Database[:]...)
	dst = append(dst, h.Session[:]...)
	for _, v := range []uint64{
		h.MinTXID, h.MaxTXID, h.Pre, h.Post, h.PreCommit, h.MinCommit, h.Commit,
		uint64(h.FirstMono), uint64(h.LastMono),
	} {
		dst = appendU64(dst, v)
	}
	dst = appendWAL(dst, h.WAL)
	dst = appendU64(dst, h.Entries)
	dst = append(dst, h.PrevChain[:]...)
	if padding >= 0 {
		dst = appendExtension(dst, extPadding, make([]byte, padding))
	}
	if h.Owner != nil {
		dst = appendExtension(dst, extOwner, h.Owner.marshal())
	}
	prev := extOwner
	for _, x := range h.Extensions {
		if int(x.Type) <= prev || x.Critical() {
			return nil, invalidf("header extension 0x%04x: types must ascend, and no critical one is known", x.Type)
		}
		prev = int(x.Type)
		dst = appendExtension(dst, x.Type, x.Value)
	}
	h.Length = len(dst) - start + 8
	if h.Length > headerMax {
		return nil, invalidf("header of %d bytes, at most %d", h.Length, headerMax)
	}
	binary.BigEndian.PutUint32(dst[start+16:], uint32(h.Length))
	return appendU64(dst, xxhash.Sum64(dst[start:])), nil
}

func appendWAL(dst []byte, p WALPosition) []byte {
	dst = appendU32(appendU32(dst, p.Salt[0]), p.Salt[1])
	dst = appendU64(dst, p.Frame)
	return appendU32(appendU32(dst, p.Checksum[0]), p.Checksum[1])
}

func (c *cursor) wal() (p WALPosition) {
	const what = "WAL position"
	p.Salt = [2]uint32{c.u32(what), c.u32(what)}
	p.Frame = c.u64(what)
	p.Checksum = [2]uint32{c.u32(what), c.u32(what)}
	return p
}

// ParseHeader decodes the header at the beginning of an object, of which b is a
// prefix. If b is too short the error is a [*NeedMoreError].
func ParseHeader(b []byte) (*Header, error) {
	// What is there is checked before more is asked for.
	if n := min(len(b), len(magic)); string(b[:n]) != magic[:n] {
		if n == len(magic) && string(b[:n-1]) == magic[:n-1] {
			return nil, unknownf("format version %d, this Outwash knows %d", b[n-1], Version)
		}
		return nil, corruptf("not an Outwash object: it begins with %q", b[:n])
	}
	if len(b) < headerMin {
		return nil, &NeedMoreError{headerMin}
	}
	if k := Kind(b[8]); k == KindData {
		return nil, corruptf("header: a data object, expected log, pages or snapshot")
	} else if k < KindLog || k > KindData {
		return nil, unknownf("object %v", k)
	}
	if u := b[9] &^ flagsKnown; u != 0 {
		return nil, unknownf("header flags 0x%02x", u)
	}
	if err := checkAlgorithms(b); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(b[16:])
	if n < headerMin || n > headerMax {
		return nil, corruptf("header length is %d, expected %d to %d", n, headerMin, headerMax)
	}
	if len(b) < int(n) {
		return nil, &NeedMoreError{int(n)}
	}
	b = b[:n]
	if err := checkXXH64(b, "header"); err != nil {
		return nil, err
	}
	h := &Header{
		Kind:     Kind(b[8]),
		External: b[9]&flagExternal != 0,
		Replaces: b[9]&flagReplaces != 0,
		Claim:    b[9]&flagClaim != 0,
		Length:   int(n),
	}
	c := cursor{b: b, off: 20}
	h.PageSize = c.u32("page size")
	copy(h.Database[:], c.bytes(16, "database ID"))
	copy(h.Session[:], c.bytes(16, "session ID"))
	for _, p := range []*uint64{&h.MinTXID, &h.MaxTXID, &h.Pre, &h.Post, &h.PreCommit, &h.MinCommit, &h.Commit} {
		*p = c.u64("header")
	}
	h.FirstMono, h.LastMono = int64(c.u64("header")), int64(c.u64("header"))
	h.WAL = c.wal()
	h.Entries = c.u64("header")
	copy(h.PrevChain[:], c.bytes(32, "previous chain value"))
	if err := h.parseExtensions(b[headerFixed : n-8]); err != nil {
		return nil, err
	}
	if err := h.check(); err != nil {
		return nil, corruptf("header: %w", err)
	}
	return h, nil
}

// checkAlgorithms checks what segments and data objects have in common from
// offset 10 on.
func checkAlgorithms(b []byte) error {
	switch {
	case b[10] != hashXXH64:
		return unknownf("page hash algorithm %d", b[10])
	case b[11] != hashSHA256:
		return unknownf("object hash algorithm %d", b[11])
	case b[12] != encryptNone:
		return unknownf("encryption %d", b[12])
	case b[13]|b[14]|b[15] != 0:
		return corruptf("header: reserved bytes are %x, expected zeros", b[13:16])
	}
	return nil
}

func checkXXH64(b []byte, what string) error {
	n := len(b) - 8
	if got, want := xxhash.Sum64(b[:n]), binary.BigEndian.Uint64(b[n:]); got != want {
		return corruptf("%s: check value is %016x, its bytes have %016x", what, want, got)
	}
	return nil
}

func (h *Header) parseExtensions(b []byte) error {
	err := walkExtensions(b, func(x Extension) error {
		switch {
		case x.Type == extPadding:
			for i, v := range x.Value {
				if v != 0 {
					return corruptf("header: padding byte %d is 0x%02x, expected zero", i, v)
				}
			}
		case x.Type == extOwner:
			h.Owner = parseOwner(x.Value)
		case x.Critical():
			return unknownf("header extension 0x%04x", x.Type)
		default:
			h.Extensions = append(h.Extensions, Extension{x.Type, bytes.Clone(x.Value)})
		}
		return nil
	})
	if err != nil && !isKnown(err) {
		err = corruptf("header: %w", err)
	}
	return err
}

// check holds the rules of a header alone; encoders and decoders share it.
func (h *Header) check() error {
	if h.Kind < KindLog || h.Kind > KindSnapshot {
		return fmt.Errorf("%v, expected log, pages or snapshot", h.Kind)
	}
	if err := checkPageSize(h.PageSize); err != nil {
		return err
	}
	most := uint64(math.MaxInt64) / uint64(h.PageSize)
	switch {
	case h.Database.IsZero():
		return fmt.Errorf("no database ID")
	case h.Session.IsZero():
		return fmt.Errorf("no session ID")
	case h.MinTXID < 1 || h.MaxTXID < h.MinTXID || h.MaxTXID > MaxTXID:
		return fmt.Errorf("TXIDs are %d to %d, expected 1 or more, in order, at most %d", h.MinTXID, h.MaxTXID, uint64(MaxTXID))
	case h.Commit > most || h.MinCommit > h.Commit || h.PreCommit > math.MaxInt64/MinPageSize:
		return fmt.Errorf("commit sizes are %d before, %d at least, %d after; expected least ≤ after ≤ %d", h.PreCommit, h.MinCommit, h.Commit, most)
	case h.PreCommit == 0 && h.Pre != 0:
		return fmt.Errorf("checksum before is %016x with no pages, expected 0", h.Pre)
	case h.Commit == 0 && h.Post != 0:
		return fmt.Errorf("checksum after is %016x with no pages, expected 0", h.Post)
	case h.FirstMono < 0 || h.LastMono < h.FirstMono:
		return fmt.Errorf("times are %d to %d, expected 0 or more, in order", h.FirstMono, h.LastMono)
	case h.Entries < 1 || h.Entries > MaxEntries || h.Entries-1 > h.MaxTXID-h.MinTXID:
		return fmt.Errorf("%d entries for TXIDs %d to %d, expected 1 to %d", h.Entries, h.MinTXID, h.MaxTXID, min(MaxEntries, h.MaxTXID-h.MinTXID+1))
	case h.MinTXID == 1 && (h.PreCommit != 0 || h.WAL != WALPosition{} && h.Kind == KindLog):
		return fmt.Errorf("TXID 1 after a state of %d pages and WAL position %v, expected none", h.PreCommit, h.WAL)
	case (h.Kind == KindLog && h.MinTXID == 1) != (h.PrevChain == Hash{}):
		return fmt.Errorf("previous chain value is %v in a %v segment from TXID %d: only log segment 1 has none", h.PrevChain, h.Kind, h.MinTXID)
	case h.Kind == KindLog && h.MinTXID == 1 && !h.Claim:
		return fmt.Errorf("TXID 1 is not a claim")
	case h.Kind != KindLog && h.Entries != 1:
		return fmt.Errorf("%d entries in a %v segment, expected 1", h.Entries, h.Kind)
	case h.Kind == KindSnapshot && (h.MinTXID != 1 || h.Replaces || h.MinCommit != h.Commit):
		return fmt.Errorf("a snapshot of TXIDs %d to %d, smallest commit size %d of %d, expected TXIDs from 1 and one size", h.MinTXID, h.MaxTXID, h.MinCommit, h.Commit)
	}
	if h.Claim && (h.Kind != KindLog || h.External || h.Replaces || h.Entries != 1 || h.MinTXID != h.MaxTXID ||
		h.Pre != h.Post || h.PreCommit != h.Commit || h.MinCommit != h.Commit || h.FirstMono != h.LastMono) {
		return fmt.Errorf("the claim of TXID %d does not repeat the state before it", h.MinTXID)
	}
	return nil
}

func checkPageSize(n uint32) error {
	if n < MinPageSize || n > MaxPageSize || n&(n-1) != 0 {
		return fmt.Errorf("page size is %d, expected a power of two from %d to %d", n, MinPageSize, MaxPageSize)
	}
	return nil
}

type ownerJSON struct {
	Host    string `json:"host"`
	PID     int    `json:"pid"`
	Program string `json:"program"`
	Since   string `json:"since"`
}

// marshal never exceeds maxOwner: what people don't need to see is cut.
func (o *Owner) marshal() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	// Encoding strings and a number can't fail.
	_ = enc.Encode(ownerJSON{printable(o.Host, 100), o.PID, printable(o.Program, 100), o.Since.UTC().Format(time.RFC3339)})
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// parseOwner returns nil for what it doesn't understand: nothing is decided by
// an owner, so nothing must fail because of one. What could deceive on a terminal
// is left out; which characters those are changes with the version of Unicode.
func parseOwner(b []byte) *Owner {
	var j ownerJSON
	if len(b) > maxOwner || !utf8.Valid(b) || json.Unmarshal(b, &j) != nil {
		return nil
	}
	since, err := time.Parse(time.RFC3339, j.Since)
	if err != nil {
		return nil
	}
	return &Owner{Host: printable(j.Host, maxOwner), PID: j.PID, Program: printable(j.Program, maxOwner), Since: since}
}

// printable returns the printable characters of s, at most n bytes.
func printable(s string, n int) string {
	var b []byte
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			continue
		}
		if len(b)+utf8.RuneLen(r) > n {
			break
		}
		b = utf8.AppendRune(b, r)
	}
	return string(b)
}
