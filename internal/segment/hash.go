package segment

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// PageHash returns the hash of a page: XXH64 of its number and content. The
// checksum of a state is the XOR over its pages but the lock page.
func PageHash(no uint64, page []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], no)
	d.Write(b[:])
	d.Write(page)
	return d.Sum64()
}

// LockPage returns the number of the page that contains byte 2^30, which SQLite
// never reads or writes: see "The Lock-Byte Page" in its file format.
func LockPage(pageSize uint32) uint64 { return 1<<30/uint64(pageSize) + 1 }

func xxh64(b []byte) uint64 { return xxhash.Sum64(b) }
