package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"unicode/utf8"
)

const (
	demoMaxFile = 256 << 10 // longer files are left out: one would be a whole second of work
	demoMaxText = 64 << 20  // of all files
)

// sourceFile is a file for the demo to load.
type sourceFile struct {
	path string // relative to the tree
	size int64
}

// goSource finds the source of the Go installation.
func goSource(ctx context.Context) (string, error) {
	root := os.Getenv("GOROOT")
	if out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output(); err == nil {
		root = strings.TrimSpace(string(out))
	}
	if root != "" {
		src := filepath.Join(root, "src")
		if st, err := os.Stat(filepath.Join(src, "fmt")); err == nil && st.IsDir() {
			return src, nil
		}
	}
	return "", usagef("there is no Go installation whose source could be loaded: give any directory of text files with -source DIR")
}

// walkSource lists the text files below dir that the demo loads, in a fixed
// order which mixes packages, so that a part of it is as good as the whole.
func walkSource(dir string) ([]sourceFile, error) {
	st, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir() {
		return nil, usagef("-source %s is not a directory", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("-source: %w", err)
	}
	var list []sourceFile
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if path == dir {
				return err
			}
			return nil // what can't be read is not loaded
		}
		if d.IsDir() {
			if name := d.Name(); path != dir && (name == ".git" || name == "testdata" || name == "node_modules") {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil || !d.Type().IsRegular() || info.Size() == 0 || info.Size() > demoMaxFile {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		list = append(list, sourceFile{filepath.ToSlash(rel), info.Size()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("-source: %w", err)
	}
	sort.Slice(list, func(i, j int) bool { return mix(list[i].path) < mix(list[j].path) })
	total := int64(0)
	for i, f := range list {
		if total += f.size; total > demoMaxText {
			list = list[:i]
			break
		}
	}
	if len(list) == 0 {
		return nil, usagef("-source %s has no files to load (up to %s each)", dir, size(demoMaxFile))
	}
	return list, nil
}

// mix is FNV-1a: an order that is the same on every machine.
func mix(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}

// readSource returns a file's text; ok is false for what isn't text.
func readSource(dir string, f sourceFile) (text string, ok bool) {
	b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.path)))
	if err != nil || bytes.IndexByte(b, 0) >= 0 || !utf8.Valid(b) {
		return "", false
	}
	return string(b), true
}
