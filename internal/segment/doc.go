// Package segment implements the replica format, version 1: what Outwash writes
// into a bucket, byte by byte, as docs/FORMAT.md describes it.
//
// A segment is one object that records what happened to a database in the TXIDs
// min..max of its line:
//
//	+--------+--------+--------------+------+--------+
//	| header | blocks | index frames | root | footer |   inline
//	+--------+--------+--------------+------+--------+
//
//	+--------+------+--------+      +--------+--------+-------+--------+-------+---
//	| header | root | footer | ---> | header | blocks | frame | blocks | frame | …
//	+--------+------+--------+      +--------+--------+-------+--------+-------+---
//	  external: a descriptor …        … and the data object that its root names
//
//	index frame: | structure, zstd or plain | hashes |
//	structure:   | block record … entry record | block record … entry record | …
//
// A block holds up to 64 pages of one entry as one zstd frame (RFC 8878). A
// patch block is compressed with the versions its pages replace as raw
// dictionary. Page numbers, commit sizes and the lock page are SQLite's
// (https://www.sqlite.org/fileformat2.html).
//
// The footer holds the object's chain value, a SHA-256 over everything the
// object says; the next log segment repeats it, which makes the log a chain.
//
// Everything a decoder is given is taken to be hostile: sizes are checked
// before memory is allocated for them, every byte is covered by a check value,
// and only the shortest form of a number is accepted. Errors wrap [ErrCorrupt]
// or [ErrVersion].
package segment
