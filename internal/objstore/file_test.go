package objstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func newFile(t *testing.T) (*fileStore, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "replica")
	s, err := NewFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s.(*fileStore), dir
}

func TestFileModes(t *testing.T) {
	s, dir := newFile(t)
	if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Upload(t.Context(), "data/1", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, tempDir)); len(left) != 0 {
		t.Errorf("temporary files left: %v", left)
	}
}

func TestFileTempsAreSweptAndNeverListed(t *testing.T) {
	s, dir := newFile(t)
	tmp := filepath.Join(dir, tempDir)
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	old, young := filepath.Join(tmp, "old"), filepath.Join(tmp, "young")
	for _, name := range []string{old, young} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-tempAge - time.Hour)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	for info, err := range s.List(t.Context(), "", "") {
		t.Errorf("listed %+v, %v", info, err)
	}
	if err := s.Create(t.Context(), "log/1", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a crashed writer's file is still there: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Errorf("a file that may be in use is gone: %v", err)
	}
}

// The directory may vanish under a store that remembers having made it.
func TestFileDirectoryRemoved(t *testing.T) {
	s, dir := newFile(t)
	for range 2 {
		if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, "log")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	s.durable.Clear()
	if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil {
		t.Errorf("after removing the whole directory: %v", err)
	}
}

// The whole store is removed while a program has it open, and written to again.
func TestFileStoreRemoved(t *testing.T) {
	s, dir := newFile(t)
	for n := range 3 {
		if err := s.Create(t.Context(), "log/1", nil); err != nil {
			t.Fatalf("write %d: %v", n, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFileShrinkingBody(t *testing.T) {
	s, dir := newFile(t)
	if err := s.Create(t.Context(), "log/1", make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	body, _, err := s.Get(t.Context(), "log/1", Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if err := os.Truncate(filepath.Join(dir, "log", "1"), 10); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(body); !errors.Is(err, io.ErrUnexpectedEOF) || len(data) != 10 {
		t.Errorf("%d bytes and %v, want 10 and unexpected EOF", len(data), err)
	}
}

func TestFileBodyEndsWithContext(t *testing.T) {
	s, _ := newFile(t)
	if err := s.Create(t.Context(), "log/1", make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	body, _, err := s.Get(ctx, "log/1", Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	cancel()
	if _, err := io.ReadAll(body); !errors.Is(err, context.Canceled) {
		t.Errorf("read after cancel: %v", err)
	}
}

// Errors of the system become the store's, and name the file.
func TestFileErrors(t *testing.T) {
	s, dir := newFile(t)
	for _, tt := range []struct {
		sys  error
		want error
	}{
		{syscall.EACCES, ErrDenied},
		{syscall.EROFS, ErrDenied},
		{syscall.ENOTDIR, ErrConfig},
		{syscall.ENOSPC, syscall.ENOSPC},
		{syscall.EEXIST, ErrExist},
		{ErrUnsupported, ErrUnsupported},
	} {
		s.link = func(from, to string) error { return &os.LinkError{Op: "link", Old: from, New: to, Err: tt.sys} }
		err := s.Create(t.Context(), "log/1", []byte("x"))
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "log/1") {
			t.Errorf("%v became %v", tt.sys, err)
		}
		if Permanent(err) != (tt.sys != syscall.ENOSPC) {
			t.Errorf("%v: Permanent is %v", err, Permanent(err))
		}
	}
	if left, _ := os.ReadDir(filepath.Join(dir, tempDir)); len(left) != 0 {
		t.Errorf("temporary files left: %v", left)
	}

	blocked := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	below, err := NewFile(filepath.Join(blocked, "replica"))
	if err != nil {
		t.Fatal(err)
	}
	if err := below.Create(t.Context(), "log/1", nil); !errors.Is(err, ErrConfig) {
		t.Errorf("a replica below a file: %v, want ErrConfig", err)
	}
	if _, err := NewFile("rel"); !errors.Is(err, ErrConfig) {
		t.Errorf("a relative directory: %v", err)
	}
}

func TestFileSymlinkedDirectory(t *testing.T) {
	s, dir := newFile(t)
	elsewhere := t.TempDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(dir, "data")); err != nil {
		t.Skip(err)
	}
	if err := s.Create(t.Context(), "data/1", []byte("x")); err != nil {
		t.Fatal(err)
	}
	n := 0
	for info, err := range s.List(t.Context(), "data/", "") {
		if err != nil || info.Key != "data/1" {
			t.Errorf("listed %+v, %v", info, err)
		}
		n++
	}
	if n != 1 {
		t.Errorf("%d objects listed behind the link", n)
	}
}

func TestRangeBoundsStayInside(t *testing.T) {
	for _, size := range []int64{0, 1, 10} {
		for _, off := range []int64{-1 << 62, -11, -10, -1, 0, 1, 9, 10, 11, 1 << 62} {
			for _, n := range []int64{0, 1, 10, 1<<63 - 1} {
				from, length := Range{Offset: off, Length: n}.Bounds(size)
				if from < 0 || length < 0 || from+length > size {
					t.Errorf("%d+%d of %d bytes: %d+%d", off, n, size, from, length)
				}
			}
		}
	}
}

// Without hard links there is a second way, which must refuse to replace too.
func TestFileWithoutHardLinks(t *testing.T) {
	s, _ := newFile(t)
	s.link = renameNewForTest
	if err := s.Create(t.Context(), "log/1", []byte("first")); errors.Is(err, ErrUnsupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), "log/1", []byte("second")); !errors.Is(err, ErrExist) {
		t.Errorf("second create: %v, want ErrExist", err)
	}
	body, _, err := s.Get(t.Context(), "log/1", Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, _ := io.ReadAll(body); !bytes.Equal(got, []byte("first")) {
		t.Errorf("the object is now %q", got)
	}
}
