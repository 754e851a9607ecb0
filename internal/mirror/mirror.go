// Package mirror rebuilds a database from entries, page by page and without any
// code of the restore: the second opinion that tests compare with.
package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/segment"
)

// Mirror is a database made of entries. It is safe for concurrent use.
type Mirror struct {
	mu       sync.Mutex
	pageSize uint32
	pages    [][]byte // page i+1
	hashes   []uint64 // of each: hashing all of them for each entry can take minutes
	sum      uint64
	entries  int
	kinds    map[segment.EntryKind]int
	txids    uint64
	dec      *segment.BlockDecoder
}

// New returns an empty mirror.
func New() *Mirror {
	return &Mirror{dec: segment.NewBlockDecoder(), kinds: map[segment.EntryKind]int{}}
}

// Apply applies the next entry and checks that it leads from the state before to
// the checksum that it claims.
func (m *Mirror) Apply(e *segment.Entry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.Pre != m.sum || e.PreCommit != uint64(len(m.pages)) {
		return fmt.Errorf("mirror: entry %d (%s) follows %016x/%d, the state is %016x/%d",
			m.entries+1, e.Kind, e.Pre, e.PreCommit, m.sum, len(m.pages))
	}
	if m.pageSize == 0 || e.Whole {
		m.pageSize, m.pages, m.hashes = e.PageSize, nil, nil
	}
	if e.PageSize != m.pageSize {
		return fmt.Errorf("mirror: page size %d, was %d", e.PageSize, m.pageSize)
	}
	size := int(m.pageSize)
	changed := map[uint64][]byte{}
	var off int64
	for i := range e.Blocks {
		b := &e.Blocks[i]
		stored := make([]byte, b.Stored)
		if len(stored) > 0 {
			if _, err := e.Body.ReadAt(stored, off); err != nil {
				return fmt.Errorf("mirror: body: %w", err)
			}
		}
		off += int64(b.Stored)
		var dict []byte
		if b.Base == segment.BasePatch {
			for _, p := range b.Pages {
				if p.No <= uint64(len(m.pages)) {
					dict = append(dict, m.pages[p.No-1]...)
				}
			}
		}
		plain, err := m.dec.Decode(nil, b, stored, m.pageSize, dict)
		if err != nil {
			return fmt.Errorf("mirror: entry %d (%s): %w", m.entries+1, e.Kind, err)
		}
		for j, p := range b.Pages {
			if _, twice := changed[p.No]; twice && !e.Unordered {
				return fmt.Errorf("mirror: page %d twice in an entry", p.No)
			}
			changed[p.No] = bytes.Clone(plain[j*size : (j+1)*size])
		}
	}
	for uint64(len(m.pages)) > e.MinCommit {
		m.pages, m.hashes = m.pages[:len(m.pages)-1], m.hashes[:len(m.hashes)-1]
	}
	for uint64(len(m.pages)) < e.Commit {
		m.add(make([]byte, size))
	}
	for no, p := range changed {
		if no > e.Commit {
			return fmt.Errorf("mirror: page %d beyond %d", no, e.Commit)
		}
		m.pages[no-1], m.hashes[no-1] = p, m.hash(no, p)
	}
	m.sum = 0
	for _, h := range m.hashes {
		m.sum ^= h
	}
	if m.sum != e.Post {
		return fmt.Errorf("mirror: entry %d (%s) leads to %016x, claims %016x", m.entries+1, e.Kind, m.sum, e.Post)
	}
	m.entries++
	m.kinds[e.Kind]++
	m.txids += e.Count
	return nil
}

func (m *Mirror) add(p []byte) {
	m.pages = append(m.pages, p)
	m.hashes = append(m.hashes, m.hash(uint64(len(m.pages)), p))
}

// hash is what a page gives to the checksum: nothing if it is the lock page.
func (m *Mirror) hash(no uint64, p []byte) uint64 {
	if no == segment.LockPage(m.pageSize) {
		return 0
	}
	return segment.PageHash(no, p)
}

// Load makes the mirror an image, as after a restore.
func (m *Mirror) Load(image []byte, pageSize int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pageSize, m.pages, m.hashes, m.sum = uint32(pageSize), nil, nil, 0
	for ; len(image) > 0; image = image[pageSize:] {
		m.add(bytes.Clone(image[:pageSize]))
		m.sum ^= m.hashes[len(m.hashes)-1]
	}
}

// Write takes a block of an export and its stored bytes.
type Write = func(segment.Block, []byte) error

// Export runs an export that writes to write, and loads the pages that go there, of
// which the last ones count.
func (m *Mirror) Export(write Write, export func(Write) (*segment.Entry, error)) (*segment.Entry, error) {
	dec := segment.NewBlockDecoder()
	pages := map[uint64][]byte{}
	e, err := export(func(b segment.Block, stored []byte) error {
		for size := 512; size <= 65536; size *= 2 { // the entry, which says it, comes last
			if plain, err := dec.Decode(nil, &b, stored, uint32(size), nil); err == nil {
				for i, p := range b.Pages {
					pages[p.No] = bytes.Clone(plain[i*size : (i+1)*size])
				}
				break
			}
		}
		return write(b, stored)
	})
	if err != nil {
		return e, err
	}
	image := make([]byte, int(e.Commit)*int(e.PageSize))
	for no, p := range pages {
		if no <= e.Commit {
			copy(image[int(no-1)*len(p):], p)
		}
	}
	m.Load(image, int(e.PageSize))
	return e, nil
}

// Image returns the database and its page size.
func (m *Mirror) Image() ([]byte, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Join(m.pages, nil), int(m.pageSize)
}

// Checksum returns the state's checksum and how many transactions made it.
func (m *Mirror) Checksum() (sum, txids uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sum, m.txids
}

// String counts what was applied.
func (m *Mirror) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("%d entries %v, %d transactions, %d pages", m.entries, m.kinds, m.txids, len(m.pages))
}

// Compare names the first page in which two images differ.
func Compare(want, got []byte, pageSize int) error {
	if len(want) != len(got) {
		return fmt.Errorf("mirror: sizes differ: want %d bytes, got %d", len(want), len(got))
	}
	for i := 0; i < len(want); i += pageSize {
		a, b := want[i:i+pageSize], got[i:i+pageSize]
		if bytes.Equal(a, b) {
			continue
		}
		for k := range a {
			if a[k] != b[k] {
				return fmt.Errorf("mirror: page %d differs at byte %d", i/pageSize+1, k)
			}
		}
	}
	return nil
}

// Query opens an image with the plain driver.
func Query(image []byte, f func(c *sqlite3.Conn) error) error {
	if len(image) == 0 {
		return errors.New("mirror: an empty image has no tables")
	}
	dir := ""
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() {
		dir = "/dev/shm"
	}
	file, err := os.CreateTemp(dir, "mirror*.db")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	image = bytes.Clone(image)
	image[18], image[19] = 1, 1 // a WAL-mode image can't be opened immutable
	if _, err := file.Write(image); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	c, err := sqlite3.OpenFlags("file:"+file.Name()+"?immutable=1", sqlite3.OPEN_READONLY|sqlite3.OPEN_URI)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// Check runs queries on an image that must return 0, and integrity_check if full.
func Check(image []byte, full bool, zero ...string) error {
	return Query(image, func(c *sqlite3.Conn) error { return CheckConn(c, full, zero...) })
}

// CheckConn is Check for an open connection.
func CheckConn(c *sqlite3.Conn, full bool, zero ...string) error {
	if full {
		s, err := Text(c, "PRAGMA integrity_check(3)")
		if err != nil || s != "ok" {
			return fmt.Errorf("mirror: integrity_check: %s %w", s, err)
		}
	}
	for _, q := range zero {
		if s, err := Text(c, q); err != nil || s != "0" && s != "0.0" {
			return fmt.Errorf("mirror: %s = %s (%w)", q, s, err)
		}
	}
	return nil
}

// Text returns the first column of the first row of a query.
func Text(c *sqlite3.Conn, query string) (string, error) {
	s, _, err := c.Prepare(query)
	if err != nil {
		return "", err
	}
	defer s.Close()
	if s.Step() {
		return s.ColumnText(0), nil
	}
	return "", s.Err()
}
