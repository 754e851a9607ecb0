// Package doctor finds out whether a store is good for replication or for restores,
// and says of what is not what it is and what to do.
//
// Examine tries everything and notes what came of it: facts. Judge, a pure
// function, makes findings and a verdict of them. The remedies are the store's own
// (s3store.Explain), the same that replication and restore show.
package doctor

import (
	"time"

	"github.com/outwash/outwash/s3store"
)

// Facts are what Examine has seen. A nil Try was not made.
type Facts struct {
	URL      string   // of the store
	Name     []string // arguments by which commands name it; nil: the URL
	ReadOnly bool     // only reads were asked for

	Target      *s3store.Target // nil: not in S3
	Credentials *s3store.Credentials
	Identity    *Try // getting the credentials
	Connection  *s3store.Connection

	List     *Try // what is at the path
	Missing  *Try // reading what does not exist
	Create   *Try // conditionally
	Plain    *Try // without condition, if the server refuses them
	Again    *Try // a second time, with other content
	Read     *Try // the whole, and compare
	Ranged   *Try // a part, and compare
	Large    *Try // a multipart upload; elsewhere a write that replaces
	Abort    *Try // of a multipart upload
	Small    *Try // one more object
	Listing  *Try // of what was written
	Delete   *Try
	Deletes  *Try // of several objects
	Vanished *Try // a listing after that

	Replica *Replica // nil: not looked at
	Left    []string // objects of this examination that could not be removed, in full

	Interrupted bool // by its context
}

// A Try is one thing that was tried.
type Try struct {
	Err  error
	Took time.Duration
}

// Replica is what is at the path, at first sight.
type Replica struct {
	Err      error // of reading it: ErrNotExist if there is none
	Database string
	Created  time.Time
	TXID     uint64    // newest
	Time     time.Time // of its commit
	Writer   string    // of the newest session, if it could be found at a glance
	Empty    bool      // there is no log yet
	Foreign  []string  // a few keys that are not Outwash's
	Scratch  []string  // a few that other examinations wrote
}
