package sidecar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/outwash/outwash/internal/local"
)

// header is what a database begins with (https://sqlite.org/fileformat2.html#the_database_header).
const (
	header     = "SQLite format 3\x00"
	headerSize = 100
)

// Databases lists those that there are now, each file once, by Rel; with an error, those
// that could be found all the same.
func (d Dir) Databases() ([]Found, error) {
	files, err := scan(d, nil, func(string) error { return nil })
	found, _ := choose(files, nil)
	return found, err
}

// scan lists the databases of d. enter is called with each directory before it is
// read, so that what happens there from then on can be noticed. What is in known
// isn't looked into again. Of what can't be read, the rest is listed all the same.
func scan(d Dir, known map[string]Found, enter func(dir string) error) ([]Found, error) {
	var found []Found
	var errs []error
	var walk func(rel string) error
	walk = func(rel string) error {
		dir := filepath.Join(d.Path, filepath.FromSlash(rel))
		if err := enter(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		list, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range list {
			below := path.Join(rel, e.Name())
			switch {
			case e.IsDir() && d.enters(e.Name()):
				if err := walk(below); err != nil && !errors.Is(err, fs.ErrNotExist) {
					errs = append(errs, err)
				}
			case !e.IsDir() && d.takes(e.Name()):
				f, ok, err := look(filepath.Join(dir, e.Name()), below, e.Type()&fs.ModeSymlink != 0, known)
				if err != nil {
					errs = append(errs, err)
				}
				if ok {
					found = append(found, f)
				}
			}
		}
		return nil
	}
	if err := walk(""); err != nil {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return found, fmt.Errorf("sidecar: list the databases of %s: %w", d.Path, err)
	}
	return found, nil
}

// look finds out whether a file is a database.
func look(name, rel string, link bool, known map[string]Found) (f Found, ok bool, err error) {
	f = Found{Path: name, Rel: rel, link: link}
	if link {
		real, err := filepath.EvalSymlinks(name)
		if err != nil { // leads nowhere
			return f, false, nil
		}
		f.Path = real
	}
	fi, err := os.Stat(f.Path)
	if err != nil || !fi.Mode().IsRegular() { // opening a pipe would wait
		return f, false, nil
	}
	f.identity = local.Identity(f.Path)
	if old, ok := known[rel]; ok && old.Path == f.Path {
		return f, true, nil
	}
	file, err := os.Open(f.Path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return f, false, err
	}
	defer file.Close()
	var b [headerSize]byte
	_, err = io.ReadFull(file, b[:])
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return f, false, nil
	}
	if err != nil {
		return f, false, err
	}
	if fi, err = file.Stat(); err != nil { // after the header was read: it only grows
		return f, false, err
	}
	return f, isDatabase(b[:], fi.Size()), nil
}

// isDatabase tells a database by its header and its size. One that is being copied
// here isn't whole yet: what the header says of its size counts if it was written
// with the change counter, as by all versions of SQLite since 3.7.0.
func isDatabase(b []byte, size int64) bool {
	be := binary.BigEndian
	page := int64(be.Uint16(b[16:]))
	if page == 1 {
		page = 65536
	}
	whole := int64(be.Uint32(b[28:])) * page
	return string(b[:len(header)]) == header && (be.Uint32(b[24:]) != be.Uint32(b[92:]) || size >= whole)
}
