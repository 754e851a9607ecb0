package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"net/url"
	"slices"
	"strings"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/wal"
)

// pin is a read transaction. While it is held, the WAL is neither reset under the
// frames it sees nor backfilled beyond them:
// https://sqlite.org/wal.html#how_checkpointing_works
type pin struct {
	conn *sqlite3.Conn
	// noisy: what SQLite reads may be noise for a moment; see File.
	noisy bool
}

// openPin opens the connection that pins; it never checkpoints.
func (d *DB) openPin() (*pin, error) {
	if d.opts.Guarded {
		Companions(d.opts.Path)
	}
	// Extensions that a program registers read the database while it is opened, so
	// the timeout can't wait until then.
	q := url.Values{"mode": {"rw"}, "_pragma": {"busy_timeout(10000)"}}
	maps.Copy(q, d.opts.Params)
	if d.opts.VFS != "" {
		q.Set("vfs", d.opts.VFS)
	}
	u := url.URL{Scheme: "file", OmitHost: true, Path: d.opts.Path, RawQuery: EncodeQuery(q)}
	conn, err := sqlite3.Open(u.String())
	if err != nil {
		return nil, fmt.Errorf("capture: open %s to read it: %w", d.opts.Path, locked(err))
	}
	p := &pin{conn, d.opts.OpenFile != nil}
	// Closing it must not do what gates would have to see.
	if _, err := conn.Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, true); err != nil {
		p.close()
		return nil, fmt.Errorf("capture: %w", err)
	}
	return p, nil
}

// EncodeQuery escapes the parameters of a URI for SQLite, which takes a + for a +.
func EncodeQuery(q url.Values) string { return strings.ReplaceAll(q.Encode(), "+", "%20") }

func (p *pin) begin() error {
	// A damaged schema is found by whoever reads it, not by who copies pages.
	err := p.quiet(func() error {
		err := p.conn.Exec("BEGIN; PRAGMA schema_version")
		if err != nil {
			p.end()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("capture: begin to read: %w", locked(err))
	}
	return nil
}

// quiet does again what fails because of noise.
func (p *pin) quiet(f func() error) error {
	for try := 1; ; try++ {
		err := f()
		noise := errors.Is(err, sqlite3.NOTADB) || errors.Is(err, sqlite3.CORRUPT) || errors.Is(err, local.ErrDamaged)
		if !p.noisy || !noise || try == 5 {
			return err
		}
	}
}

// locked says of SQLite's "busy" what it means to who decides.
func locked(err error) error {
	if errors.Is(err, sqlite3.BUSY) {
		return fmt.Errorf("%w: %w", local.ErrLocked, err)
	}
	return err
}

// sound checks the database as it is seen now, as far as SQLite can without the
// collations and functions of its application.
func (p *pin) sound() error { return p.quiet(p.check) }

func (p *pin) check() error {
	// Rows that break a CHECK are their application's business: it may have changed
	// its mind, or its functions.
	said, err := "", p.conn.Exec("PRAGMA ignore_check_constraints=ON")
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	stmt, _, err := p.conn.Prepare("PRAGMA quick_check(1)")
	if err == nil {
		if stmt.Step() {
			said = stmt.ColumnText(0)
		}
		err = stmt.Err()
		stmt.Close()
	}
	switch {
	case errors.Is(err, sqlite3.CORRUPT), errors.Is(err, sqlite3.NOTADB):
		return fmt.Errorf("%w: %w", local.ErrDamaged, err)
	case errors.Is(err, sqlite3.ERROR):
		// "no such collation sequence", for instance: only its application can look
		// into this database, and nothing says that it is damaged.
		return nil
	case err != nil:
		return fmt.Errorf("capture: quick_check: %w", err)
	case said != "ok":
		return fmt.Errorf("%w (quick_check: %s)", local.ErrDamaged, said)
	}
	return nil
}

func (p *pin) end() { p.conn.Exec("ROLLBACK") }

func (p *pin) close() { p.conn.Close() }

// view is the database at the mark, while a pin is held. It has handles of its
// own, so that it can be read without DB.mu.
type view struct {
	path      string
	file, wal File
	pageSize  uint32
	size      uint64              // pages
	minSize   uint64              // fewest pages since whatever the rule starts from
	mark      mark                // where the log was read to
	pos       segment.WALPosition // the same as a position; zero if the log is empty
	frames    map[uint32]uint32   // last frame of each page in the log
	onlyFile  bool                // the file has everything
	empty     bool                // nothing is committed in the log
	pages     []uint32            // page of each frame, from the first
	commits   []commit
}

// noLog reports whether there is no log, or an empty one.
func (v *view) noLog() bool { return v.mark.salt == [2]uint32{} }

// emptied is what DB.emptied is after the view was taken.
func (v *view) emptied(path string) string {
	if v.noLog() {
		return fingerprint(path)
	}
	return ""
}

func (v *view) close() {
	for _, f := range []File{v.file, v.wal} {
		if f != nil {
			f.Close()
		}
	}
}

// read reads a page of the view; the lock page and what is beyond the file's end
// read as zero.
func (v *view) read(no uint64, b []byte) error {
	if no == segment.LockPage(v.pageSize) {
		clear(b)
		return nil
	}
	if frame := v.frames[uint32(no)]; frame != 0 && !v.onlyFile {
		return readFrame(v.wal, frame, b)
	}
	return readAlone(v.file, no, b)
}

// look walks the log from its first frame and returns the view of its committed
// end. A pin must have been taken before. Frames between what the pin sees and
// that end stay, because a pinned log is not restarted; if the pin found
// everything backfilled the log can be restarted, but then the file has all of
// it, and nothing is written to the file, because a checkpoint needs the slot
// that the reader has.
func (d *DB) look() (*view, error) {
	v := &view{path: d.opts.Path, frames: map[uint32]uint32{}}
	err := d.lookInto(v)
	if err != nil {
		v.close()
		return nil, err
	}
	v.minSize = v.size
	return v, nil
}

func (d *DB) lookInto(v *view) (err error) {
	if v.file, err = d.openFile(d.opts.Path); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	h, err := readDatabaseHeader(v.file, d.opts.Path)
	if err != nil {
		return err
	}
	v.pageSize, v.size = h.PageSize, uint64(h.Pages)
	if v.wal, err = d.openFile(d.opts.Path + "-wal"); errors.Is(err, fs.ErrNotExist) {
		v.wal, v.onlyFile, v.empty = nil, true, true
		return nil
	} else if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	idx, known, err := d.readIndex()
	if err != nil {
		return err
	}
	v.empty = idx.MaxFrame == 0
	wh, err := readWALHeader(v.wal)
	if err != nil {
		if idx.MaxFrame > 0 {
			return fmt.Errorf("capture: %s-wal: %w", d.opts.Path, err)
		}
		v.onlyFile = true // empty, or torn by a crash before its first sync
		return nil
	}
	last := idx.MaxFrame
	switch {
	case last > 0 && wh.Salt != idx.Salt:
		return fmt.Errorf("capture: WAL header has salts %08x, WAL-index %08x", wh.Salt, idx.Salt)
	case !known:
		// Whoever pins has read it, so it was there.
		return fmt.Errorf("capture: the WAL-index of %s can't be read while it is in use", d.opts.Path)
	case idx == wal.Index{}:
		// It was made when the log was empty: what the log has by now is of the
		// first transaction, which was not committed when the index was read.
		v.pageSize, v.onlyFile = wh.PageSize, true
		v.mark = mark{salt: wh.Salt, bigEnd: wh.BigEndian, checksum: wh.Checksum}
		return nil
	case last == 0 && wh.Salt != idx.Salt:
		// The index is reset and the header not yet written: all that the log
		// has is in the file. The mark goes to its end.
		last, v.onlyFile = math.MaxUint32, true
	}
	v.pageSize = wh.PageSize
	w, err := walk(v.wal, v.pageSize, mark{salt: wh.Salt, bigEnd: wh.BigEndian, checksum: wh.Checksum}, last, &buffers{})
	if err != nil {
		return err
	}
	v.mark = w.end
	if v.onlyFile {
		return nil
	}
	if w.end.frame != last || last > 0 && w.end.checksum != idx.Checksum {
		if idx.Backfilled < last {
			return fmt.Errorf("%w (frame %d of %d)", ErrBroken, w.end.frame, last)
		}
		// The file has everything, and what is committed next follows the log's end.
		v.mark.frame, v.mark.checksum = last, idx.Checksum
		v.onlyFile, v.size = true, uint64(idx.Pages)
		v.pos = segment.WALPosition{Salt: wh.Salt, Frame: uint64(last), Checksum: idx.Checksum}
		return nil
	}
	if last == 0 {
		v.onlyFile = true
		return nil
	}
	v.size = uint64(idx.Pages)
	v.pos = segment.WALPosition{Salt: wh.Salt, Frame: uint64(last), Checksum: w.end.checksum}
	v.onlyFile = idx.Backfilled >= last
	v.pages, v.commits = slices.Clone(w.pages), slices.Clone(w.commits)
	for i, no := range v.pages {
		v.frames[no] = uint32(i) + 1
	}
	return nil
}
