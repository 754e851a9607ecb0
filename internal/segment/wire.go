package segment

import (
	"encoding/binary"
	"fmt"
)

// cursor reads fields from the front of b. The first failure sticks; reads after
// it return zeros, so that callers check once per record.
type cursor struct {
	b   []byte
	off int
	err error
}

func (c *cursor) fail(format string, a ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, a...)
	}
}

func (c *cursor) left() int { return len(c.b) - c.off }

func (c *cursor) bytes(n int, what string) []byte {
	if c.err != nil || n < 0 || n > c.left() {
		c.fail("%s at offset %d needs %d bytes, %d are left", what, c.off, n, c.left())
		return nil
	}
	c.off += n
	return c.b[c.off-n : c.off : c.off]
}

func (c *cursor) u8(what string) uint8 {
	if b := c.bytes(1, what); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u32(what string) uint32 {
	if b := c.bytes(4, what); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) u64(what string) uint64 {
	if b := c.bytes(8, what); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// uvarint reads a number ≤ limit in its shortest form.
func (c *cursor) uvarint(what string, limit uint64) uint64 {
	if c.err != nil {
		return 0
	}
	v, n := binary.Uvarint(c.b[c.off:])
	switch {
	case n == 0:
		c.fail("%s at offset %d is cut off", what, c.off)
	case n < 0:
		c.fail("%s at offset %d exceeds 64 bits", what, c.off)
	case n > 1 && c.b[c.off+n-1] == 0:
		c.fail("%s at offset %d is not in its shortest form", what, c.off)
	case v > limit:
		c.fail("%s is %d, at most %d expected", what, v, limit)
	default:
		c.off += n
		return v
	}
	return 0
}

func (c *cursor) svarint(what string) int64 {
	u := c.uvarint(what, 1<<64-1)
	return int64(u>>1) ^ -int64(u&1)
}

func appendU32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }

func appendU64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

// appendExtension appends one extension: type, length, value.
func appendExtension(b []byte, typ uint16, value []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, typ)
	b = appendU32(b, uint32(len(value)))
	return append(b, value...)
}

const extensionHeader = 6

// walkExtensions calls f for each extension in b; values are sections of b.
func walkExtensions(b []byte, f func(Extension) error) error {
	c := cursor{b: b}
	prev := -1
	for c.left() > 0 {
		head := c.bytes(2, "extension type")
		n := c.u32("extension length")
		if c.err != nil {
			return c.err
		}
		typ := binary.BigEndian.Uint16(head)
		if int64(n) > int64(c.left()) {
			return fmt.Errorf("extension 0x%04x of %d bytes, %d are left", typ, n, c.left())
		}
		if int(typ) <= prev {
			return fmt.Errorf("extension 0x%04x after 0x%04x: types must ascend", typ, prev)
		}
		prev = int(typ)
		if err := f(Extension{Type: typ, Value: c.bytes(int(n), "extension")}); err != nil {
			return err
		}
	}
	return nil
}
