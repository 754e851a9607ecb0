package vfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cespare/xxhash/v2"
	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/mirror"
	"github.com/outwash/outwash/internal/wal"
	"github.com/outwash/outwash/replicate"
)

// history has every committed state of a life: a tree, because a machine that was
// taken over from, or that lost its newest commits, leaves a branch behind.
// States are told apart by the whole database, byte by byte.
type history struct {
	nodes []node
	bySum map[uint64]int
	keep  bool // images, to say in which page two states differ
	// ends: what is behind the size that a database's header says is no part of it.
	// A loss of power can leave a file with that; SQLite never reads it, but says its
	// length in commits to the WAL: then the same state has two lengths.
	// https://sqlite.org/fileformat2.html#in_header_database_size
	ends bool
}

type node struct {
	parent int // of node 0, the empty database: 0
	depth  int
	pages  int
	what   string
	image  []byte // if kept
}

const empty = 0 // the node of no database

func newHistory(keep bool) *history {
	return &history{keep: keep, nodes: []node{{what: "nothing"}}, bySum: map[uint64]int{xxhash.Sum64(nil): empty}}
}

func (h *history) sum(image []byte) uint64 {
	if h.ends {
		image = alone(image)
	}
	return xxhash.Sum64(image)
}

// find returns the node of an image; -1 if there is none.
func (h *history) find(image []byte) int {
	if i, ok := h.bySum[h.sum(image)]; ok {
		return i
	}
	return -1
}

// add returns the node of an image, which follows parent if it is new.
func (h *history) add(parent int, image []byte, what string) int {
	sum := h.sum(image)
	if i, ok := h.bySum[sum]; ok {
		return i
	}
	n := node{parent: parent, depth: h.nodes[parent].depth + 1, what: what, pages: len(image) / max(1, pageSizeOf(image))}
	if h.keep {
		n.image = image
	}
	h.nodes = append(h.nodes, n)
	h.bySum[sum] = len(h.nodes) - 1
	return len(h.nodes) - 1
}

// alias makes an image one of a node's, too.
func (h *history) alias(i int, image []byte) { h.bySum[h.sum(image)] = i }

// within reports whether node b is a or came after a.
func (h *history) within(a, b int) bool {
	for h.nodes[b].depth > h.nodes[a].depth {
		b = h.nodes[b].parent
	}
	return a == b
}

func (h *history) text(i int) string {
	if i < 0 {
		return "a state that never was"
	}
	return fmt.Sprintf("state %d (%s, %d pages)", i, h.nodes[i].what, h.nodes[i].pages)
}

// compare says in what an image differs from a node.
func (h *history) compare(i int, image []byte) string {
	if i < 0 || h.nodes[i].image == nil || len(image) == 0 {
		return ""
	}
	return fmt.Sprintf("against %s: %v", h.text(i), mirror.Compare(h.nodes[i].image, image, pageSizeOf(image)))
}

func pageSizeOf(image []byte) int {
	if len(image) < 100 {
		return 0
	}
	if n := int(binary.BigEndian.Uint16(image[16:])); n != 1 {
		return n
	}
	return 65536
}

// committed reads the committed state of a database from its files. With index,
// the WAL-index says how far the log goes, as for connections that are open;
// without, the log's checksums do, as for who opens it next.
func committed(path string, index bool) ([]byte, error) {
	file, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(file) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	log, err := os.ReadFile(path + "-wal")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	idx, known := wal.Index{}, false
	if shm, err := os.Open(path + "-shm"); err == nil && index {
		idx, err = wal.ReadIndex(shm)
		known = err == nil
		shm.Close()
	}
	h, err := wal.ParseHeader(log)
	if err != nil || known && idx.MaxFrame == 0 {
		return alone(file), nil
	}
	if known && idx.Salt != h.Salt {
		return nil, fmt.Errorf("the WAL-index has salts %08x, the WAL %08x", idx.Salt, h.Salt)
	}
	size, sum := int(wal.FrameSize(h.PageSize)), h.Checksum
	ps := int(h.PageSize)
	last, pages := 0, 0
	frames := log[wal.HeaderSize:]
	var numbers []int
	for b := frames; len(b) >= size && !(known && len(numbers) == int(idx.MaxFrame)); b = b[size:] {
		f := wal.ParseFrame(b)
		sum = wal.Checksum(h.BigEndian, sum, b[:8])
		sum = wal.Checksum(h.BigEndian, sum, b[wal.FrameHeaderSize:size])
		if f.Salt != h.Salt || sum != f.Checksum || f.Page == 0 {
			break
		}
		numbers = append(numbers, int(f.Page))
		if f.Commit != 0 {
			last, pages = len(numbers), int(f.Commit)
		}
	}
	if known && last != int(idx.MaxFrame) {
		return nil, fmt.Errorf("the WAL has %d committed frames, the WAL-index %d", last, idx.MaxFrame)
	}
	if last == 0 {
		return alone(file), nil
	}
	image := make([]byte, pages*ps)
	copy(image, file)
	for i, no := range numbers[:last] {
		if no <= pages {
			copy(image[(no-1)*ps:no*ps], frames[i*size+wal.FrameHeaderSize:])
		}
	}
	return image, nil
}

// recovered is the state that who opens the dead process's database next finds.
func (l *life) recovered() ([]byte, error) {
	path := l.m.path
	if fi, err := os.Stat(path + "-journal"); err != nil || fi.Size() == 0 {
		return committed(path, false)
	}
	dir := l.slot.dir + "/recovered"
	os.RemoveAll(dir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	for _, f := range []string{"", "-wal", "-journal"} {
		if b, err := os.ReadFile(path + f); err == nil {
			if err := os.WriteFile(dir+"/t.db"+f, b, 0o600); err != nil {
				return nil, err
			}
		}
	}
	c, err := sqlite3.Open("file:" + dir + "/t.db")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.Exec("SELECT count(*) FROM sqlite_schema"); err != nil {
		l.say("  it can't be recovered: %v", err)
		return []byte("broken"), nil
	}
	return committed(dir+"/t.db", true)
}

// alone is the database of a file without a log.
func alone(file []byte) []byte {
	h, ok := wal.ParseDatabaseHeader(file)
	if ok && h.Pages > 0 && int(h.Pages)*int(h.PageSize) < len(file) {
		return file[:int(h.Pages)*int(h.PageSize)]
	}
	return file
}

// restore restores a store's newest state, or another, and returns its node and
// image. A line without a state is the empty node.
func (l *life) restore(txid uint64) (int, []byte, error) {
	out := l.slot.dir + "/restored.db"
	defer os.Remove(out)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := replicate.Restore(ctx, replicate.RestoreOptions{Store: l.bucket, Output: out, TXID: txid, Force: true})
	switch {
	case errors.Is(err, replicate.ErrNoReplica), errors.Is(err, replicate.ErrNotRestorable):
		return empty, nil, nil
	case err != nil:
		return -1, nil, fmt.Errorf("restore: %w", err)
	}
	l.counts.add("restores checked", "all")
	image, err := os.ReadFile(out)
	if err != nil {
		return -1, nil, err
	}
	n := l.history.find(image)
	if n < 0 && len(image) == pageSizeOf(image) {
		n = empty // a header, on the way to what the first connection sets up
	}
	return n, image, nil
}

// checkReplica restores and checks that this is a committed state, that it has
// everything acknowledged, and that the replica never goes back.
func (l *life) checkReplica() error {
	n, image, err := l.restore(0)
	if err != nil {
		return err
	}
	l.say("  restore: %s", l.history.text(n))
	switch {
	case n < 0:
		return fmt.Errorf("the restored database is a state that never was; %s; %s", l.history.compare(l.cur, image), l.history.compare(l.acked, image))
	case !l.history.within(l.acked, n):
		return fmt.Errorf("the restored database is %s, but %s was acknowledged", l.history.text(n), l.history.text(l.acked))
	case !l.history.within(l.tail, n):
		return fmt.Errorf("the restored database is %s, but it had been %s", l.history.text(n), l.history.text(l.tail))
	}
	l.tail = n
	return nil
}

// checkSame restores and compares with the database, all of which was synced.
func (l *life) checkSame() error {
	if err := l.checkReplica(); err != nil {
		return err
	}
	if l.tail != l.cur && l.history.nodes[l.cur].parent != empty { // not only the header of a database
		return fmt.Errorf("everything was acknowledged, but the restored database is %s, the database %s", l.history.text(l.tail), l.history.text(l.cur))
	}
	return nil
}
