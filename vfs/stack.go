package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/outwash/outwash/internal/capture"
)

// stack is a base VFS whose files can't be read as they are on disk, such as
// adiantum and xts: capture reads them through it.
//
// A base opens files by names with parameters, among them the key, which only
// SQLite can make. So each file is opened by a connection of which nothing else is
// wanted. The log is opened as if it were a database: SQLite itself would lock the
// one to which it belongs, which can't be had at the last close. probe finds out
// whether a base allows that.
type stack struct {
	base   string
	params url.Values // what the base needs to know
}

// keyParams are those of adiantum and xts.
var keyParams = []string{"key", "hexkey", "textkey"}

// baseParams are the parameters that are neither SQLite's, nor the driver's, nor
// ours, and so the base's.
func baseParams(q url.Values) url.Values {
	p := maps.Clone(q)
	maps.DeleteFunc(p, func(k string, _ []string) bool {
		switch k {
		case "vfs", "mode", "cache", "immutable", "nolock", "psow", "modeof", "replica":
			return true
		}
		return strings.HasPrefix(k, "replica_") || strings.HasPrefix(k, "_")
	})
	return p
}

// newStack looks at the base VFS; nil if its files are plain.
func newStack(base string, params url.Values) (*stack, error) {
	if base == "" {
		for _, k := range keyParams {
			if params.Has(k) {
				return nil, fmt.Errorf("vfs: the DSN has a %s, but nothing encrypts this database: %s", k, stackAdvice)
			}
		}
		return nil, nil
	}
	if _, ok := vfs.Find(base).(*replicated); ok {
		return nil, fmt.Errorf("vfs: base VFS %q replicates itself", base)
	}
	s := &stack{base, params}
	plain, err := s.probe()
	if err != nil || plain {
		return nil, err
	}
	return s, nil
}

// stackAdvice ends errors about encryption that isn't beneath replication.
const stackAdvice = `to encrypt on disk, register a VFS over the one that encrypts: vfs.Register("secure", vfs.Options{Base: "adiantum"}), ` +
	"and open the database with vfs=secure"

// probe writes a file through the base and reads it back as capture reads. It
// reports whether the file is plain.
func (s *stack) probe() (plain bool, err error) {
	fail := func(what string, err error) (bool, error) {
		return false, fmt.Errorf("vfs: base VFS %q %s: %w. What it needs, such as a key, must be in the DSN "+
			"(key=, hexkey= or textkey=): keys given by PRAGMA come too late for what reads the database beside the application", s.base, what, err)
	}
	dir, err := os.MkdirTemp("", "outwash-probe")
	if err != nil {
		return false, fmt.Errorf("vfs: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "probe")
	f, err := s.grab(path, sqlite3.OPEN_READWRITE|sqlite3.OPEN_CREATE)
	if err != nil {
		return fail("doesn't open files", err)
	}
	// As a log is written: a header, then pieces that begin and end anywhere.
	want := bytes.Repeat([]byte("SQLite format 3\x00"), 3<<12/16)
	for off, n := 0, 32; off < len(want) && err == nil; off, n = off+n, 1000 {
		_, err = f.WriteAt(want[off:min(off+n, len(want))], int64(off))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fail("doesn't write files", err)
	}
	onDisk, err := os.ReadFile(path)
	if err == nil && len(onDisk) != len(want) {
		err = fmt.Errorf("%d bytes are %d on disk", len(want), len(onDisk))
	}
	if err != nil {
		return false, fmt.Errorf("vfs: base VFS %q doesn't keep databases in files of their name and size: they can't be replicated (%w)", s.base, err)
	}
	if bytes.Equal(onDisk, want) {
		return true, nil
	}
	r, err := s.open(path)
	if err != nil {
		return fail("doesn't open files again", err)
	}
	defer r.Close()
	got := make([]byte, len(want))
	if _, err := r.ReadAt(got, 0); err != nil && !errors.Is(err, io.EOF) {
		return fail("doesn't read files", err)
	}
	if !bytes.Equal(got, want) {
		return false, fmt.Errorf("vfs: base VFS %q doesn't read what it wrote: databases in it can't be replicated", s.base)
	}
	return false, nil
}

// readable finds out how the database's files are read, and refuses those that
// can't be: nothing of them would ever reach the replica.
func (db *database) readable() (err error) {
	if db.stack, err = newStack(db.opts.Base, db.p.base); err != nil {
		return err
	}
	if db.stack != nil && db.p.restore == RestoreAuto {
		return fmt.Errorf("vfs: replica_restore=auto writes a plain database, and base VFS %q encrypts: restore it with outwash restore, then VACUUM INTO a DSN with vfs=%s and the key", db.opts.Base, db.opts.Base)
	}
	err = capture.CheckReadable(db.path, db.stack.opener())
	if !errors.Is(err, capture.ErrUnreadable) {
		return nil // the rest is found later
	}
	if db.stack != nil {
		return fmt.Errorf("vfs: with this key, and base VFS %q: %w", db.opts.Base, err)
	}
	return fmt.Errorf("vfs: %w; %s", err, stackAdvice)
}

// sameParams refuses a connection that would write what the first one can't read.
func (s *stack) sameParams(p url.Values) error {
	if s == nil || maps.EqualFunc(s.params, p, slices.Equal) {
		return nil
	}
	return fmt.Errorf("vfs: the database is being replicated with other parameters for base VFS %q, a key perhaps: all DSNs must have the same", s.base)
}

// opener is what capture opens files with; nil: os.Open.
func (s *stack) opener() func(string) (capture.File, error) {
	if s == nil {
		return nil
	}
	return s.open
}

// open opens a file to read it.
func (s *stack) open(path string) (capture.File, error) {
	for range 10 {
		plain, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		f, err := s.grab(path, sqlite3.OPEN_READONLY)
		if err != nil {
			plain.Close()
			return nil, fmt.Errorf("vfs: base VFS %q: %w", s.base, err)
		}
		r := &stackFile{base: f, plain: plain}
		now, err := os.Stat(path)
		then, err2 := plain.Stat()
		if err == nil && err2 == nil && os.SameFile(now, then) {
			return r, nil
		}
		_ = r.Close() // replaced meanwhile: they may be two files
	}
	return nil, fmt.Errorf("vfs: %s is replaced again and again", path)
}

var grabs atomic.Int64

// grab opens a file as the base does it for a connection with its parameters.
func (s *stack) grab(path string, flags sqlite3.OpenFlag) (vfs.File, error) {
	g := &grabber{VFS: findBase(s.base)}
	name := fmt.Sprintf("outwash-read-%d", grabs.Add(1))
	vfs.Register(name, g)
	defer vfs.Unregister(name)
	q := maps.Clone(s.params)
	if q == nil {
		q = url.Values{}
	}
	q.Set("vfs", name)
	u := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: capture.EncodeQuery(q)}
	c, err := sqlite3.OpenFlags(u.String(), flags|sqlite3.OPEN_URI)
	if err == nil {
		c.Close()
	}
	switch {
	case g.err != nil:
		return nil, g.err
	case g.file == nil:
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return g.file, nil
}

// grabber keeps what its VFS opens and tells SQLite that it can't be opened.
type grabber struct {
	vfs.VFS
	file vfs.File
	err  error
}

func (g *grabber) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	if g.file == nil {
		g.file, _, g.err = vfsutil.WrapOpenFilename(g.VFS, name, flags)
	}
	return nil, flags, sqlite3.CANTOPEN
}

// errCiphertext: what SQLite has just written isn't SQLite's any more.
var errCiphertext = errors.New("vfs: what is written is encrypted already, by a VFS above the one that replicates: " +
	"its pages and its WAL can't be told apart. " + stackAdvice)

// refuseCiphertext refuses what isn't SQLite's any more, now and from now on.
func (db *database) refuseCiphertext() error {
	db.garbled.Store(true)
	return db.refuse(errCiphertext)
}

// findBase finds a VFS by name, late, because the driver allows VFSes to be
// registered anew; one that fails if there is none.
func findBase(name string) vfs.VFS {
	if v := vfs.Find(name); v != nil {
		return v
	}
	return missingVFS(name)
}

// missingVFS stands for one that nobody has registered.
type missingVFS string

func (v missingVFS) fail() error {
	return vfs.SystemError(fmt.Errorf("vfs: there is no VFS %q to replicate: import the package that registers it", string(v)), sqlite3.CANTOPEN)
}

func (v missingVFS) Open(string, vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	return nil, 0, v.fail()
}
func (v missingVFS) Delete(string, bool) error                   { return v.fail() }
func (v missingVFS) Access(string, vfs.AccessFlag) (bool, error) { return false, v.fail() }
func (v missingVFS) FullPathname(string) (string, error)         { return "", v.fail() }
