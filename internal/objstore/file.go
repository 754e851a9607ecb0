package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// tempDir holds files being written. It lies inside the store, since a link
	// can't cross file systems, and is never listed.
	tempDir = ".outwash-tmp"
	// tempAge is how long a temporary file must have been unchanged before it is
	// taken for a crashed writer's and removed.
	tempAge = 24 * time.Hour
)

// fileStore keeps each object in a file of its own below root.
type fileStore struct {
	root  string
	sweep sync.Once
	// durable remembers directories whose own names are known to be on disk.
	durable sync.Map
	// link is linkNew; tests put file systems without hard links here.
	link func(from, to string) error
}

func openFile(_ context.Context, rawURL string, _ Settings) (Store, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		// The error repeats the URL, which may hold a password.
		return nil, configError(rawURL, "can't be parsed (is a % not followed by two hex digits?)")
	}
	if u.Host != "" && u.Host != "localhost" {
		return nil, configError(rawURL, "has a relative path, or names another host: write file:///ABSOLUTE/DIRECTORY, with three slashes")
	}
	if u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return nil, configError(rawURL, "has parameters, but file URLs take none (a ? or # in a name is written %3F or %23)")
	}
	dir := u.Path
	if runtime.GOOS == "windows" && len(dir) > 2 && dir[2] == ':' {
		dir = dir[1:] // file:///C:/dir
	}
	return NewFile(filepath.FromSlash(dir))
}

// NewFile returns the store in directory dir, an absolute path. The directory is
// made by the first write; until then it reads as empty. Files get mode 0600,
// directories 0700. Every write is on disk (fsync of file and directories) when
// it returns. Leftovers of crashed writers lie in the subdirectory .outwash-tmp
// and are removed by later writers after a day.
//
// Create needs hard links or, on Linux, renameat2; on a file system with neither
// it fails with ErrUnsupported.
func NewFile(dir string) (Store, error) {
	if !filepath.IsAbs(dir) {
		return nil, fmt.Errorf("objstore: directory %q is not an absolute path: %w", dir, ErrConfig)
	}
	return &fileStore{root: filepath.Clean(dir), link: linkNew}, nil
}

// String is the store's URL.
func (s *fileStore) String() string {
	p := filepath.ToSlash(s.root)
	if !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	return (&url.URL{Scheme: "file", Path: p}).String()
}

func (s *fileStore) file(key string) string { return filepath.Join(s.root, filepath.FromSlash(key)) }

// Create implements Store.
func (s *fileStore) Create(ctx context.Context, key string, data []byte) error {
	_, err := s.write(ctx, "create", key, strings.NewReader(string(data)), s.link)
	return err
}

// Put implements Store.
func (s *fileStore) Put(ctx context.Context, key string, data []byte) error {
	_, err := s.write(ctx, "put", key, strings.NewReader(string(data)), os.Rename)
	return err
}

// Upload implements Store.
func (s *fileStore) Upload(ctx context.Context, key string, r io.Reader) (int64, error) {
	return s.write(ctx, "upload", key, r, os.Rename)
}

// write fills a temporary file, makes it durable, and publishes it under its
// final name, so that a reader (or a crash) sees all of it or nothing.
func (s *fileStore) write(ctx context.Context, op, key string, r io.Reader, publish func(from, to string) error) (n int64, err error) {
	if err := CheckKey(key); err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			n, err = 0, s.fail(op, key, err)
		}
	}()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	final := s.file(key)
	tmp, err := s.createTemp()
	if err != nil {
		return 0, err
	}
	// After a rename there is nothing to remove, which is no error.
	defer os.Remove(tmp.Name())
	n, err = io.Copy(tmp, ctxReader{ctx, r})
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return 0, err
	}
	// Once more if someone removed the directory in between.
	for try := 0; ; try++ {
		if err := s.mkdir(filepath.Dir(final)); err != nil {
			return 0, err
		}
		err := publish(tmp.Name(), final)
		if errors.Is(err, fs.ErrNotExist) && try == 0 {
			s.durable.Clear()
			continue
		}
		if err != nil && !(errors.Is(err, fs.ErrExist) && sameFile(tmp.Name(), final)) {
			// (The same file: a link over NFS whose first reply was lost.)
			return 0, err
		}
		return n, syncDir(filepath.Dir(final))
	}
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

func (s *fileStore) createTemp() (*os.File, error) {
	dir := filepath.Join(s.root, tempDir)
	s.sweep.Do(func() { sweepTemp(dir) })
	f, err := os.CreateTemp(dir, "w") // mode 0600
	if errors.Is(err, fs.ErrNotExist) {
		s.durable.Clear() // what was removed has to be made durable again
		if err := s.mkdir(dir); err != nil {
			return nil, err
		}
		f, err = os.CreateTemp(dir, "w")
	}
	return f, err
}

// sweepTemp removes what crashed writers left. It is best effort: leftovers cost
// space and nothing else.
func sweepTemp(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > tempAge {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// mkdir makes dir with its parents and makes their names durable. Directories
// that exist already are synced too, once: whoever made them may have crashed
// before doing so.
func (s *fileStore) mkdir(dir string) error {
	if _, ok := s.durable.Load(dir); ok {
		return nil
	}
	err := os.Mkdir(dir, 0o700)
	parent := filepath.Dir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && parent != dir:
		if err := s.mkdir(parent); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case errors.Is(err, fs.ErrExist):
		if info, err := os.Stat(dir); err != nil {
			return err
		} else if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
	case err != nil:
		return err
	}
	// Above root we may lack the right to open what we did not make.
	if err := syncDir(parent); err != nil && !(errors.Is(err, fs.ErrPermission) && len(dir) <= len(s.root)) {
		return err
	}
	s.durable.Store(dir, true)
	return nil
}

func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories can't be synced there
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}

// Get implements Store.
func (s *fileStore) Get(ctx context.Context, key string, r Range) (io.ReadCloser, Info, error) {
	if err := CheckKey(key); err != nil {
		return nil, Info{}, err
	}
	if err := ctx.Err(); err != nil {
		return nil, Info{}, s.fail("get", key, err)
	}
	f, err := os.Open(s.file(key))
	if err != nil {
		if errors.Is(err, syscall.ENOTDIR) { // a/b where a is an object
			err = ErrNotExist
		}
		return nil, Info{}, s.fail("get", key, err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = ErrNotExist
	}
	if err == nil && r.IfMatch != "" && r.IfMatch != etagOf(st) {
		err = ErrChanged
	}
	offset, length := int64(0), int64(0)
	if err == nil {
		offset, length = r.Bounds(st.Size())
		_, err = f.Seek(offset, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, Info{}, s.fail("get", key, err)
	}
	return &fileBody{ctx: ctx, f: f, left: length}, fileInfo(key, st), nil
}

func fileInfo(key string, st fs.FileInfo) Info {
	return Info{Key: key, Size: st.Size(), Modified: st.ModTime(), ETag: etagOf(st)}
}

type fileBody struct {
	ctx  context.Context
	f    *os.File
	left int64
}

func (b *fileBody) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.f.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // someone cut the file
	}
	return n, err
}

func (b *fileBody) Close() error { return b.f.Close() }

// Delete implements Store. Directories stay: removing one would race with a
// writer that has just made sure of it.
func (s *fileStore) Delete(ctx context.Context, keys ...string) error {
	dirs := map[string]bool{}
	for _, key := range keys {
		if err := CheckKey(key); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return s.fail("delete", key, err)
		}
		err := os.Remove(s.file(key))
		switch {
		case err == nil:
			dirs[filepath.Dir(s.file(key))] = true
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR):
			return s.fail("delete", key, err)
		}
	}
	for dir := range dirs {
		if err := syncDir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s.fail("delete", dir, err)
		}
	}
	return nil
}

// fail names the object and translates what the operating system said.
func (s *fileStore) fail(op, key string, err error) error {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	name := s.String() + "/" + path.Clean(key)
	switch {
	case is(ErrNotExist, ErrExist, ErrChanged, ErrUnsupported):
		return fmt.Errorf("objstore: %s %s: %w", op, name, err)
	case is(fs.ErrNotExist) && op == "get":
		return fmt.Errorf("objstore: %s %s: %w", op, name, ErrNotExist)
	case is(fs.ErrExist):
		return fmt.Errorf("objstore: %s %s: %w", op, name, ErrExist)
	case is(fs.ErrPermission, syscall.EROFS):
		return fmt.Errorf("objstore: %s %s: %w: %w", op, name, ErrDenied, err)
	case is(syscall.ENOTDIR, syscall.EISDIR, syscall.ENAMETOOLONG):
		return fmt.Errorf("objstore: %s %s: %w: %w", op, name, ErrConfig, err)
	default: // a full disk among them: it may be emptied
		return fmt.Errorf("objstore: %s %s: %w", op, name, err)
	}
}
