package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/replicate"
)

var inspectVerb = &verb{
	name:  "inspect",
	args:  "OBJECT-OR-FILE",
	brief: "show what is in an object of a replica, and what is broken about it",
	help: `Decodes and verifies one object: the replica's root, a log segment or claim, a
page segment, a snapshot, a data object; or the spool beside a database. The
argument is a file, the URL of an object, or - for standard input; with -config
what the file says of the object's replica is used, credentials for instance. For a segment
whose blocks are in a data object, that one's index is verified too, and with
-full every block.

Patch blocks are verified as far as is possible without the pages they build on:
their stored bytes. Restore verifies the rest.

Examples:
  outwash inspect s3://my-bucket/app/log/0000000000000001
  outwash inspect -l 's3://my-bucket/app/log/00000000000001f4?region=eu-1'
  outwash inspect -full /var/backups/app/snapshot/00000000000001f4-2cc41f3e7a1b0955
  outwash inspect app.db-replicated/spool
  outwash inspect -json - < object
`,
	codes: []int{codeOK, codeFailed, codeUsage, codeNothing, codeCorrupt, codeAccess, codeVersion, codeInterrupted},
	flags: func(fs *flag.FlagSet) runner {
		var f inspectFlags
		f.declare(fs)
		fs.BoolVar(&f.long, "l", false, "list every block, with its pages and their hashes")
		fs.BoolVar(&f.full, "full", false, "read and verify the blocks in data objects, too")
		fs.BoolVar(&f.json, "json", false, "print JSON, blocks included")
		return f.run
	},
}

type inspectFlags struct {
	replicaFlags
	long, full, json bool
}

func (f *inspectFlags) run(ctx context.Context, u *ui, args []string) error {
	arg, err := oneArg("inspect", "the object or file to inspect", args)
	if err != nil {
		return err
	}
	obj, err := f.openObject(ctx, u, arg)
	if err != nil {
		return err
	}
	r := &report{Object: obj.name, Size: obj.size}
	bar := u.progress("reading", f.json)
	x := &inspector{ctx: ctx, obj: obj, r: r, full: f.full, blocks: f.json || f.long, bar: bar}
	err = x.inspect()
	bar.done()
	if err != nil && r.Kind == "" {
		return fmt.Errorf("%s: %w", obj.name, err)
	}
	// What could be read is worth showing in any case.
	if err != nil {
		r.Problem = plainMessage(err)
	}
	if f.json {
		if jerr := u.json(r); jerr != nil {
			return jerr
		}
	} else {
		r.print(u, f.long)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", obj.name, err)
	}
	return err
}

// object is what is to be inspected, with the store it is in, where the data
// object of a segment may be found.
type object struct {
	store objstore.Store
	key   string
	name  string // for people
	size  int64
}

// openObject finds what the argument names.
func (f *inspectFlags) openObject(ctx context.Context, u *ui, arg string) (*object, error) {
	var err error
	o := &object{name: arg}
	switch {
	case arg == "-":
		const most = segment.MaxInline + 1
		b, err := io.ReadAll(io.LimitReader(u.in, most))
		if err != nil {
			return nil, fmt.Errorf("read standard input: %w", err)
		}
		if len(b) == most {
			return nil, usagef("standard input is longer than any segment; save it as a file to inspect it")
		}
		o.name, o.key, o.store = "standard input", "stdin", objstore.NewMem()
		if err := o.store.Create(ctx, o.key, b); err != nil {
			return nil, err
		}
	case strings.Contains(arg, "://"):
		storeURL, key, err := splitObjectURL(arg)
		if err != nil {
			return nil, err
		}
		o.key = key
		if o.store, err = f.open(ctx, storeURL); err != nil {
			return nil, err
		}
		o.name = o.store.String() + "/" + key
		if base, query, ok := strings.Cut(o.store.String(), "?"); ok {
			o.name = base + "/" + key + "?" + query
		}
	default:
		path, err := filepath.Abs(arg)
		if err != nil {
			return nil, err
		}
		if st, err := os.Stat(path); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return nil, fmt.Errorf("%s: %w", arg, replicate.ErrNotExist)
			}
			return nil, err
		} else if !st.Mode().IsRegular() {
			return nil, usagef("%s is no file; \"outwash ls file://%s\" lists a replica", arg, filepath.ToSlash(path))
		}
		dir, key := splitKey(filepath.ToSlash(path))
		o.key = key
		if o.store, err = objstore.NewFile(filepath.FromSlash(dir)); err != nil {
			return nil, err
		}
	}
	body, info, err := o.store.Get(ctx, o.key, objstore.Range{Length: 1})
	if err != nil {
		return nil, err
	}
	body.Close()
	o.size = info.Size
	return o, nil
}

// splitObjectURL separates an object's URL into its replica's and the key.
func splitObjectURL(raw string) (storeURL, key string, err error) {
	path, query, hasQuery := strings.Cut(raw, "?")
	scheme, rest, _ := strings.Cut(path, "://")
	if i := strings.IndexByte(rest, '/'); i < 0 || i == len(rest)-1 {
		return "", "", usagef("%s names no object: expected the URL of a replica followed by a key such as log/0000000000000001", objstore.Redact(raw))
	}
	dir, key := splitKey(rest)
	storeURL = scheme + "://" + dir
	if hasQuery {
		storeURL += "?" + query
	}
	return storeURL, key, nil
}

// splitKey takes the key off a path: two components if they are one of a
// replica's, otherwise one.
func splitKey(path string) (dir, key string) {
	parts := strings.Split(path, "/")
	n := 1
	if len(parts) > 2 {
		key := parts[len(parts)-2] + "/" + parts[len(parts)-1]
		_, log := segment.ParseLogKey(key)
		_, _, _, pages := segment.ParsePagesKey(key)
		_, _, snapshot := segment.ParseSnapshotKey(key)
		_, _, data := segment.ParseDataKey(key)
		if log || pages || snapshot || data {
			n = 2
		}
	}
	dir = strings.Join(parts[:len(parts)-n], "/")
	if dir == "" {
		dir = "/"
	}
	return dir, strings.Join(parts[len(parts)-n:], "/")
}

// read returns n bytes from off on; fewer only at the end.
func (o *object) read(ctx context.Context, off, n int64) ([]byte, error) {
	if n <= 0 || off >= o.size {
		return nil, nil
	}
	body, _, err := o.store.Get(ctx, o.key, objstore.Range{Offset: off, Length: n})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b := make([]byte, min(n, o.size-off))
	if _, err := io.ReadFull(body, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", o.name, err)
	}
	return b, nil
}
