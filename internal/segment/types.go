package segment

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"
)

// Limits and constants of the format.
const (
	Version        = 1         // the version this package reads and writes
	ClaimSize      = 1024      // length of a claim, and of no other log segment
	MaxBlockPages  = 64        // most pages in a block
	MaxBlockPlain  = 256 << 10 // most bytes of pages in a block
	MaxInline      = 64 << 20  // longest inline segment a reader accepts
	MaxEntries     = 65536     // most entries in a segment
	MaxBlocks      = 262144    // most blocks in an inline segment
	MaxTXID        = 1<<63 - 1 // last TXID of a line
	MinPageSize    = 512       // smallest page size of SQLite
	MaxPageSize    = 65536     // largest page size of SQLite
	DataHeaderSize = 64        // length of a data object's header
)

// ID identifies a database or a session; random.
type ID [16]byte

// NewID returns a random ID.
func NewID() ID {
	var id ID
	rand.Read(id[:]) // never fails
	return id
}

// ParseID is the inverse of [ID.String].
func ParseID(s string) (ID, error) {
	var id ID
	if !lowerHex(s, 2*len(id)) {
		return ID{}, fmt.Errorf("not an ID of 32 lower-case hex digits: %.40q", s)
	}
	hex.Decode(id[:], []byte(s))
	return id, nil
}

// String returns id as 32 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id is the zero ID, which names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Hash is a SHA-256.
type Hash [32]byte

// String returns h as 64 lower-case hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Kind says what an object is.
type Kind uint8

// The kinds of objects.
const (
	KindLog      Kind = 1 // entries in order, the line itself
	KindPages    Kind = 2 // last image of every page changed in min..max
	KindSnapshot Kind = 3 // every page at one TXID
	KindData     Kind = 4 // blocks of a segment too large to carry them
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case KindLog:
		return "log"
	case KindPages:
		return "pages"
	case KindSnapshot:
		return "snapshot"
	case KindData:
		return "data"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// EntryKind says how an entry came about.
type EntryKind uint8

// The kinds of entries.
const (
	Transaction EntryKind = 1 // one commit
	Merge       EntryKind = 2 // many commits, last image of each page
	Repair      EntryKind = 3 // pages that differ, because history in between was lost
	Squash      EntryKind = 4 // pages that differ, because history in between was dropped
	Adopt       EntryKind = 5 // a database with content was taken over
	Claim       EntryKind = 6 // no pages; opens a session
	Snapshot    EntryKind = 7 // every page
	Pages       EntryKind = 8 // every page changed since another segment
)

// String returns the kind's name.
func (k EntryKind) String() string {
	switch k {
	case Transaction:
		return "transaction"
	case Merge:
		return "merge"
	case Repair:
		return "repair"
	case Squash:
		return "squash"
	case Adopt:
		return "adopt"
	case Claim:
		return "claim"
	case Snapshot:
		return "snapshot"
	case Pages:
		return "pages"
	}
	return fmt.Sprintf("entry kind %d", uint8(k))
}

// Codec says how a block's pages are stored.
type Codec uint8

// The codecs.
const (
	CodecRaw  Codec = 0 // the pages
	CodecZstd Codec = 1 // one zstd frame
	CodecZero Codec = 2 // nothing: every byte of every page is zero
)

// Base says what a block's zstd frame was compressed against.
type Base uint8

// The base rules.
const (
	BaseNone  Base = 0 // nothing: the block stands alone
	BasePatch Base = 1 // the versions of its pages before the entry
)

// WALPosition names a frame of a WAL: the last one of an entry.
type WALPosition struct {
	Salt     [2]uint32
	Frame    uint64 // from 1; 0: none
	Checksum [2]uint32
}

// Page is a page's number and its hash (see [PageHash]).
type Page struct{ No, Hash uint64 }

// Block says where up to 64 pages of one entry are stored and how.
type Block struct {
	Codec  Codec
	Base   Base
	Stored uint32 // length of the stored bytes
	Pages  []Page // in ascending order of their numbers
	Sum    Hash   // SHA-256 of the stored bytes; data objects only
	Offset int64  // of the stored bytes in the object that has them; set by decoders
}

// First returns the number of the block's first page.
func (b *Block) First() uint64 { return b.Pages[0].No }

// Last returns the number of the block's last page.
func (b *Block) Last() uint64 { return b.Pages[len(b.Pages)-1].No }

// Extension is a typed value that a later version may add to a header or an
// entry.
type Extension struct {
	Type  uint16 // bit 15: critical
	Value []byte
}

// Critical reports whether a reader that doesn't know x must refuse the object.
func (x Extension) Critical() bool { return x.Type&0x8000 != 0 }

// Body is the stored bytes of an entry's blocks, concatenated in order.
type Body interface {
	io.ReaderAt
	Size() int64
}

// BytesBody returns a Body that reads b.
func BytesBody(b []byte) Body { return bytesBody(b) }

type bytesBody []byte

func (b bytesBody) Size() int64 { return int64(len(b)) }

func (b bytesBody) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("segment: negative offset")
	}
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Entry is what one segment says of the TXIDs MinTXID..MaxTXID.
type Entry struct {
	Kind EntryKind
	// NeedsBase: the entry carries no pages; the line can be restored only from
	// a snapshot at this TXID or later. Adopt only.
	NeedsBase bool
	// Whole: the state before counts for nothing; the entry has every page that
	// isn't zero, and no patch. Necessary where the page size changes.
	Whole bool
	// Unordered: blocks came in the order in which pages were copied and can
	// repeat a page: the last one counts. Data objects only; set by [DataWriter]
	// and decoders.
	Unordered bool
	// PageSize of the pages: that of the segment. 0 leaves it unsaid.
	PageSize uint32

	Count     uint64 // TXIDs covered: 1 unless Merge, Snapshot or Pages
	Commit    uint64 // pages of the database after the entry
	MinCommit uint64 // fewest pages after any of the commits covered
	Post      uint64 // checksum of the state after the entry

	// The state before the entry. Not stored in a segment (it is the previous
	// entry's); carried along to be checked.
	Pre, PreCommit uint64

	// Times of the first and last commit in µs since 1970. Mono never decreases
	// along the line; Raw is what the clock said.
	FirstMono, LastMono, FirstRaw, LastRaw int64

	// WAL position after the entry. A segment stores only its last entry's, in
	// the header.
	WAL WALPosition

	Extensions []Extension // ignorable ones, in ascending order of their types
	Blocks     []Block
	// Body is the stored bytes of Blocks. It can be nil if there are none; Parse
	// always sets it.
	Body Body

	MinTXID, MaxTXID uint64 // set when the segment is encoded or decoded
}

// LiftTimes raises the monotone times to at least floor and to one another.
func (e *Entry) LiftTimes(floor int64) {
	e.FirstMono = max(e.FirstMono, floor)
	e.LastMono = max(e.LastMono, e.FirstMono)
}

// BodySize returns the length of the stored bytes of e's blocks.
func (e *Entry) BodySize() int64 {
	var n int64
	for i := range e.Blocks {
		n += int64(e.Blocks[i].Stored)
	}
	return n
}

// Owner tells people who wrote a segment. Nothing is decided by it.
type Owner struct {
	Host    string
	PID     int
	Program string
	Since   time.Time
}

// Header is a segment's header: what the segment as a whole says.
type Header struct {
	Kind     Kind
	External bool // the blocks are in a data object
	Replaces bool // the first entry doesn't build on the state before
	Claim    bool // a claim
	PageSize uint32
	Database ID
	Session  ID

	MinTXID, MaxTXID    uint64
	Pre, Post           uint64 // checksums before MinTXID, after MaxTXID
	PreCommit           uint64 // pages before MinTXID
	MinCommit           uint64 // fewest pages after any commit in min..max
	Commit              uint64 // pages after MaxTXID
	FirstMono, LastMono int64  // µs
	WAL                 WALPosition
	Entries             uint64      // number of them
	PrevChain           Hash        // of the log segment before; pages, snapshot: of the one that holds MaxTXID
	Owner               *Owner      // nil: none, or none that is understood
	Extensions          []Extension // others than owner and padding
	Length              int         // of the header in bytes; set by encoders and decoders
}

// DataHeader is what a data object says of itself.
type DataHeader struct {
	Name     ID   // random; the key is its hex form
	Kind     Kind // of the segment that will name it
	PageSize uint32
	Database ID
	Session  ID
}

// Frame says where an index frame is and what it holds.
type Frame struct {
	Stored  uint32 // length of the structure as stored
	Plain   uint32 // length of the structure
	Hashes  uint32 // length of the hashes, which follow the structure
	Offset  int64  // in the object that has the frame
	MinPage uint64 // smallest and largest page in it; data objects only; 0: none
	MaxPage uint64
	Sum     Hash // SHA-256 of the frame; data objects only
}

// Size returns the length of the frame.
func (f *Frame) Size() int64 { return int64(f.Stored) + int64(f.Hashes) }

// Root says where the index frames are: of an inline segment in itself, of an
// external one in its data object.
type Root struct {
	Data   ID    // the data object; external only
	Size   int64 // of the data object; external only
	Frames []Frame

	// By DataWriter: what it was given, for EncodeExternal to compare.
	kind              Kind
	pageSize          uint32
	database, session ID
	entries           []Entry
}

// Object is a decoded segment.
type Object struct {
	Header  *Header
	Entries []*Entry // inline only; Blocks' Body is a section of the object
	Root    *Root
	Chain   Hash
	Size    int64
}

func lowerHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
