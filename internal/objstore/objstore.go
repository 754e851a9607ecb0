// Package objstore defines what Outwash asks of an object store, and implements
// it for a directory ("file") and for memory ("mem").
//
// A store knows bytes, keys and conditions; it knows nothing of databases.
package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"
	"time"
)

// Errors that callers decide on. Implementations wrap them with the object's
// name and, where they know one, the remedy.
var (
	// ErrNotExist: no object has this key.
	ErrNotExist = errors.New("object does not exist")
	// ErrExist: an object with this key exists already.
	ErrExist = errors.New("object exists already")
	// ErrChanged: the object is not the one that Range.IfMatch names any more.
	ErrChanged = errors.New("object changed while it was read")
	// ErrDenied: credentials are missing, wrong, or lack a permission.
	ErrDenied = errors.New("access denied")
	// ErrNoBucket: the bucket does not exist. (A directory is made by the first
	// write; before that it reads as empty.)
	ErrNoBucket = errors.New("bucket does not exist")
	// ErrConfig: the store was described wrongly; no retry can help.
	ErrConfig = errors.New("invalid store configuration")
	// ErrUnsupported: the server refuses an operation that Outwash needs.
	ErrUnsupported = errors.New("not supported by this store")
)

// Permanent reports whether err can't be expected to go away by trying again.
func Permanent(err error) bool {
	for _, e := range []error{ErrNotExist, ErrExist, ErrChanged, ErrDenied, ErrNoBucket, ErrConfig, ErrUnsupported} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Info describes an object.
type Info struct {
	Key      string    // relative to the store's path, slash-separated
	Size     int64     // bytes
	Modified time.Time // the store's clock; to the second on some stores
	ETag     string    // opaque version, "" if the store has none
}

// Range selects a part of an object. The zero value is the whole object.
//
// Length 0 means "to the end": an empty range cannot be asked for.
type Range struct {
	Offset int64 // from the start; if negative, the last -Offset bytes (Length is ignored)
	Length int64 // 0: to the end; a range that reaches beyond the end is cut there
	// IfMatch, if set, is the ETag the object must still have (ErrChanged).
	IfMatch string
}

// Bounds returns where r lies in an object of size bytes.
func (r Range) Bounds(size int64) (offset, length int64) {
	if r.Offset < 0 {
		return max(0, size+r.Offset), min(size, -r.Offset)
	}
	offset = min(r.Offset, size)
	length = size - offset
	if r.Length > 0 {
		length = min(length, r.Length)
	}
	return offset, length
}

// CheckKey refuses keys that could leave the store's path or that no store could
// keep apart. It is laxer than what Outwash itself writes, so that foreign
// objects can be read and deleted too.
func CheckKey(key string) error {
	if key == "." || !fs.ValidPath(key) || strings.ContainsAny(key, "\\\x00") {
		return fmt.Errorf("objstore: %q is not an object key: %w", key, ErrConfig)
	}
	return nil
}

type sizeHint struct{}

// WithSizeHint tells Upload an upper bound, in bytes, of what the reader will
// yield. Stores that cut an upload into a limited number of equal parts need it
// for objects of tens of gigabytes; others ignore it.
func WithSizeHint(ctx context.Context, bytes int64) context.Context {
	return context.WithValue(ctx, sizeHint{}, bytes)
}

// SizeHint returns what WithSizeHint put into ctx, or 0.
func SizeHint(ctx context.Context) int64 {
	n, _ := ctx.Value(sizeHint{}).(int64)
	return n
}

// Store holds the objects below one path. It is safe for concurrent use. Errors
// that are not Permanent mean that the outcome of a write is unknown.
//
// Keys are relative, slash-separated, of [a-z0-9/-], never empty, and never a
// prefix of another key at a slash ("a" and "a/b" do not occur together).
// Methods retry what is worth retrying, within the bounds of ctx.
type Store interface {
	// Create writes a small object unless the key is taken (ErrExist): of any
	// number of concurrent calls for one key exactly one succeeds, and a reader
	// sees the whole object or none. When it returns nil the object is durable.
	//
	// After a lost reply Create finds out whether an earlier attempt of its own
	// succeeded: if the object that exists has exactly these bytes, it returns nil.
	Create(ctx context.Context, key string, data []byte) error

	// Put writes a small object whatever the key holds, and removes nothing when
	// it fails. It is for servers that lack the condition which Create rests on,
	// after a look whether the key is free, and for nothing else.
	Put(ctx context.Context, key string, data []byte) error

	// Upload writes an object of any size under a key that nobody else uses,
	// reading r to its end, with memory bounded by the implementation. It
	// returns the number of bytes. A reader sees the whole object or none. On
	// error nothing is left under the key, as far as the store can be reached.
	// Errors of r are wrapped. What the key held before is replaced.
	Upload(ctx context.Context, key string, r io.Reader) (int64, error)

	// Get reads an object or a part of it. The caller closes the body, which
	// lives no longer than ctx. A body that ends early fails with
	// io.ErrUnexpectedEOF, never with a silent EOF. An offset at or beyond the
	// end gives an empty body. Info.Size is the whole object's.
	Get(ctx context.Context, key string, r Range) (io.ReadCloser, Info, error)

	// List yields the objects whose key starts with prefix and is greater than
	// after, in byte order of their keys. ETag may be empty. It stops at the
	// first error, which it yields. Objects written meanwhile may be missing.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]

	// Delete removes objects; missing ones are no error.
	Delete(ctx context.Context, keys ...string) error

	// String is the store's URL without secrets, for messages.
	String() string
}

// A Sweeper is a Store whose interrupted uploads, those of a process that was
// killed, can leave something behind that List doesn't show.
type Sweeper interface {
	// SweepUploads removes what is left of uploads under keys that start with
	// prefix and are ours, if they began longer than age ago by the store's clock.
	// It makes one listing, with bounds, and ends at the first error, which may
	// well be ErrDenied or ErrUnsupported: replicas need nothing of this. It
	// returns how many uploads it removed.
	SweepUploads(ctx context.Context, prefix string, age time.Duration, ours func(key string) bool) (int, error)
}

// A Listed is a Store that a configuration file lists. Commands that are shown to
// people name its replica by the file and the database: what else the file says,
// such as credentials, is not in the URL.
type Listed interface {
	ListedIn() (file string) // "": in none
}

// A Configured is a Store that comes with what a configuration file says of its
// database, as keys of a DSN: how long history is kept, for one.
type Configured interface {
	Params() []string // key=value
}
