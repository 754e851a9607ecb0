// Package objstore defines what Outwash asks of an object store, and implements
// it for a directory ("file") and for memory ("mem").
//
// A store knows bytes, keys and conditions; it knows nothing of databases.
package objstore

import (
	"context"
	"errors"
	"io"
	"iter"
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
	// ErrNoBucket: the bucket (or directory's parent) does not exist.
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
type Range struct {
	Offset int64 // from the start; if negative, the last -Offset bytes (Length is ignored)
	Length int64 // 0: to the end; a range that reaches beyond the end is cut there
	// IfMatch, if set, is the ETag the object must still have (ErrChanged).
	IfMatch string
}

// Store holds the objects below one path. It is safe for concurrent use.
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

	// Upload writes an object of any size under a key that nobody else uses,
	// reading r to its end, with memory bounded by the implementation. It
	// returns the number of bytes. On error nothing is left under the key.
	Upload(ctx context.Context, key string, r io.Reader) (int64, error)

	// Get reads an object or a part of it. The caller closes the body. A body
	// that ends early fails with io.ErrUnexpectedEOF, never with a silent EOF.
	// An offset at or beyond the end gives an empty body.
	Get(ctx context.Context, key string, r Range) (io.ReadCloser, Info, error)

	// List yields the objects whose key starts with prefix and is greater than
	// after, in byte order of their keys. ETag may be empty. It stops at the
	// first error, which it yields.
	List(ctx context.Context, prefix, after string) iter.Seq2[Info, error]

	// Delete removes objects; missing ones are no error.
	Delete(ctx context.Context, keys ...string) error

	// String is the store's URL without secrets, for messages.
	String() string
}
