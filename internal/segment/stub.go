package segment

import (
	"errors"
	"io"
)

var errTodo = errors.New("segment: not implemented yet")

// ParseHeader decodes the header at the beginning of an object, of which b is a
// prefix. If b is too short the error is a [*NeedMoreError].
func ParseHeader(b []byte) (*Header, error) { return nil, errTodo }

// Follows checks that h is the log segment after prev, whose chain value is
// prevChain. With a nil prev, h must begin the line. Errors wrap [ErrChain].
func (h *Header) Follows(prev *Header, prevChain Hash) error { return errTodo }

// Encode returns an inline segment. Of h it uses Kind, PageSize, Database,
// Session, MinTXID, PrevChain, Owner and Extensions; everything else comes from
// the entries, whose TXIDs it sets. Entries must chain: Pre and PreCommit of
// each are Post and Commit of the one before.
func Encode(h Header, entries []*Entry) (object []byte, chain Hash, err error) {
	return nil, Hash{}, errTodo
}

// EncodeClaim returns a claim. Of h it uses what Encode does and besides Pre,
// PreCommit, WAL and LastMono: the state that the claim repeats, and the time.
func EncodeClaim(h Header) (object []byte, chain Hash, err error) { return nil, Hash{}, errTodo }

// EncodeExternal returns the descriptor of a segment whose blocks are in the
// data object that a DataWriter has written. entries are those given to its
// EndEntry.
func EncodeExternal(h Header, entries []*Entry, root *Root) (object []byte, chain Hash, err error) {
	return nil, Hash{}, errTodo
}

// DataWriter writes a data object as a stream: the blocks of an entry, then the
// entry. Its memory is bounded whatever is written.
type DataWriter struct{}

// NewDataWriter returns a DataWriter that writes to w.
func NewDataWriter(w io.Writer, h DataHeader) *DataWriter { return &DataWriter{} }

// WriteBlock writes a block of the entry that the next EndEntry closes. Stored
// and Sum are filled in.
func (w *DataWriter) WriteBlock(b Block, stored []byte) error { return errTodo }

// EndEntry closes the entry that the blocks since the last EndEntry belong to.
// Its Blocks and Body are ignored.
func (w *DataWriter) EndEntry(e *Entry) error { return errTodo }

// Close writes what is buffered. It doesn't close the underlying writer.
func (w *DataWriter) Close() (*Root, error) { return nil, errTodo }

// Parse decodes and verifies a segment, of which b is the whole. An inline
// segment is verified to the last byte; of an external one, whatever can be
// without the data object.
func Parse(b []byte) (*Object, error) { return nil, errTodo }

// Record is a block or an entry of a data object: exactly one field is set. An
// entry comes after its blocks.
type Record struct {
	Block *Block
	Entry *Entry
}

// FrameDecoder decodes the index frames of a data object in order.
type FrameDecoder struct{}

// Frames returns a decoder for the index frames of o's data object.
func (o *Object) Frames() *FrameDecoder { return &FrameDecoder{} }

// Next verifies and decodes the next frame, of which stored is the whole: see
// Root.Frames. Nothing returned refers to stored.
func (d *FrameDecoder) Next(stored []byte) ([]Record, error) { return nil, errTodo }

// Close checks that the index was complete.
func (d *FrameDecoder) Close() error { return errTodo }

// ParseFrame verifies and decodes frame i alone, to find a page without reading
// the whole index. It returns the blocks in it, in order.
func (o *Object) ParseFrame(i int, stored []byte) ([]Block, error) { return nil, errTodo }

// VerifyDataHeader checks the first DataHeaderSize bytes of o's data object.
func (o *Object) VerifyDataHeader(b []byte) error { return errTodo }

// Verify checks the stored bytes of a block of a data object against its Sum.
func (b *Block) Verify(stored []byte) error { return errTodo }

// BlockEncoder compresses blocks. It is reusable and not safe for concurrent use.
type BlockEncoder struct{}

// NewBlockEncoder returns a BlockEncoder.
func NewBlockEncoder() *BlockEncoder { return &BlockEncoder{} }

// Encode appends the stored form of plain, the pages of one block, to dst. dict
// is the concatenation of the versions that the pages replace, empty if the
// block is to stand alone. plain and dict are not kept.
func (e *BlockEncoder) Encode(dst, plain, dict []byte) (out []byte, codec Codec, base Base) {
	return dst, CodecRaw, BaseNone
}

// BlockDecoder decodes blocks. It is reusable and not safe for concurrent use.
type BlockDecoder struct{}

// NewBlockDecoder returns a BlockDecoder.
func NewBlockDecoder() *BlockDecoder { return &BlockDecoder{} }

// Decode appends b's pages to dst and verifies the hash of each. dict is what
// the encoder was given; it must be empty unless b.Base is BasePatch.
func (d *BlockDecoder) Decode(dst []byte, b *Block, stored []byte, pageSize uint32, dict []byte) ([]byte, error) {
	return nil, errTodo
}

// AppendEntry appends a self-contained record of e without its body, for the
// local spool. It is no part of the replica format and carries no check value.
func AppendEntry(dst []byte, e *Entry) []byte { return dst }

// ParseEntry decodes a record of [AppendEntry] at the beginning of b and returns
// what follows it.
func ParseEntry(b []byte) (e *Entry, rest []byte, err error) { return nil, nil, errTodo }
