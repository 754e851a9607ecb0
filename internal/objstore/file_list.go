package objstore

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
)

// listBatch is how many names are read from a directory at a time.
const listBatch = 1024

// List implements Store. It holds the names of one directory per level of the
// tree, and of those only the ones that can match.
func (s *fileStore) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		// Everything that matches lies in the directory that prefix names.
		dir, _ := path.Split(prefix)
		if dir != "" && CheckKey(strings.TrimSuffix(dir, "/")) != nil {
			return // no key looks like that
		}
		s.walk(ctx, dir, prefix, after, yield)
	}
}

// walk lists below dir ("" or ending in a slash). It reports whether to go on.
func (s *fileStore) walk(ctx context.Context, dir, prefix, after string, yield func(Info, error) bool) bool {
	fail := func(err error) bool {
		yield(Info{}, s.fail("list", prefix, err))
		return false
	}
	names, err := s.names(ctx, dir, prefix, after)
	if err != nil {
		return fail(err)
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		key := dir + name
		if strings.HasSuffix(key, "/") {
			if !s.walk(ctx, key, prefix, after, yield) {
				return false
			}
			continue
		}
		st, err := os.Stat(s.file(key))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since
		}
		if err != nil {
			return fail(err)
		}
		if !yield(fileInfo(key, st), nil) {
			return false
		}
	}
	return true
}

// names returns what dir holds, directories with a slash at the end: sorted like
// that, the walk visits keys in byte order ("a-b" is less than "a/b").
func (s *fileStore) names(ctx context.Context, dir, prefix, after string) ([]string, error) {
	f, err := os.Open(s.file(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for {
		entries, err := f.ReadDir(listBatch)
		for _, e := range entries {
			name, isDir, isFile := e.Name(), e.IsDir(), e.Type().IsRegular()
			if name == tempDir {
				continue
			}
			if e.Type()&fs.ModeSymlink != 0 {
				// Someone moved a part to another disk: writes go there too.
				if st, err := os.Stat(s.file(dir + name)); err == nil {
					isDir, isFile = st.IsDir(), st.Mode().IsRegular()
				}
			}
			key := dir + name
			if isDir {
				name += "/"
				key += "/"
				// All its keys start with key: skip it if none can match.
				if !strings.HasPrefix(key, prefix) && !strings.HasPrefix(prefix, key) ||
					key <= after && !strings.HasPrefix(after, key) {
					continue
				}
			} else if !isFile || !strings.HasPrefix(key, prefix) || key <= after {
				continue
			}
			names = append(names, name)
		}
		if err == io.EOF {
			break
		}
		if dir != "" && errors.Is(err, syscall.ENOTDIR) {
			return nil, nil // an object: nothing is below it
		}
		if err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	slices.Sort(names)
	return names, nil
}
