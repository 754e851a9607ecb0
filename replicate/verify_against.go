package replicate

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// DatabaseState is what a database has at one moment: its pages' hashes, page 1's
// first; the lock page's is 0.
type DatabaseState struct {
	PageSize uint32
	Hashes   []uint64
}

func (s *DatabaseState) checksum() (sum uint64) {
	for _, h := range s.Hashes {
		sum ^= h
	}
	return sum
}

func (s *DatabaseState) equal(o *DatabaseState) bool {
	return o != nil && s.PageSize == o.PageSize && slices.Equal(s.Hashes, o.Hashes)
}

// AgainstState says how a database and its replica relate.
type AgainstState string

// The ways in which they relate.
const (
	AgainstEqual    AgainstState = "equal"    // the database is the replica's newest state, or was when it was read
	AgainstBehind   AgainstState = "behind"   // it is an earlier state of the replica
	AgainstDiffers  AgainstState = "differs"  // it is no state of the replica's log
	AgainstChanging AgainstState = "changing" // it is written all the time, and none of its states came into the replica
)

// Comparison is a database beside its replica.
type Comparison struct {
	State AgainstState `json:"state"`
	What  string       `json:"what"` // the same in words
	// TXID that the database equals; 0: none.
	TXID uint64 `json:"txid,omitempty"`
	// Newest is the replica's.
	Newest   uint64 `json:"newest"`
	Checksum string `json:"checksum"` // of the database
	Pages    uint64 `json:"pages"`    // of the database
	PageSize uint32 `json:"page_size"`
	// Differing counts the pages that differ from the replica's newest state, and
	// First are the first of them; only where State is differs.
	Differing uint64   `json:"differing,omitempty"`
	First     []uint64 `json:"first,omitempty"`
}

const (
	againstAttempts = 8   // how often a database that is written is looked at
	againstPages    = 10  // how many pages that differ are named
	againstTail     = 256 // how many log segments are followed at once
)

// comparer looks for the state of a database along a line.
type comparer struct {
	read   func(context.Context) (*DatabaseState, error)
	state  *DatabaseState
	sum    uint64
	found  uint64 // TXID of the newest entry that leaves the state
	moving bool   // database or replica have changed meanwhile
	grown  bool   // the replica has, since findings were made
	result *Comparison
}

func (c *comparer) begin(ctx context.Context, read func(context.Context) (*DatabaseState, error)) error {
	c.read = read
	if read == nil {
		return nil
	}
	_, err := c.again(ctx)
	return err
}

// again reads the database, and reports whether it has changed.
func (c *comparer) again(ctx context.Context) (bool, error) {
	s, err := c.read(ctx)
	if err != nil {
		return false, fmt.Errorf("replicate: read the database to compare it: %w", err)
	}
	if s.equal(c.state) {
		return false, nil
	}
	c.state, c.sum, c.found = s, s.checksum(), 0
	return true, nil
}

// note compares the database with a state of the line.
func (c *comparer) note(sum, commit, txid uint64) {
	if c.state != nil && c.sum == sum && uint64(len(c.state.Hashes)) == commit {
		c.found = max(c.found, txid)
	}
}

// compare says how database and replica relate. Both may be written meanwhile: what
// is in the database now is in the replica a moment later.
func (v *verifier) compare(ctx context.Context) error {
	c := &v.db
	if c.read == nil {
		return nil
	}
	for attempt := 1; ; attempt++ {
		grown, err := v.follow(ctx)
		if err != nil {
			return err
		}
		c.grown = c.grown || grown
		end := v.end()
		if end != nil {
			c.note(end.Post, end.Commit, end.MaxTXID)
			if c.found == end.MaxTXID {
				break
			}
		}
		// A state that was read before a pause had the time to be uploaded.
		found := c.found
		if c.moving, err = c.again(ctx); err != nil {
			return err
		}
		if found != 0 && c.moving {
			c.found = found
			break
		}
		if !c.moving && !grown && attempt > 1 || attempt == againstAttempts {
			c.moving = c.moving || grown
			break
		}
		if err := v.wait(ctx); err != nil {
			return err
		}
	}
	v.conclude()
	return nil
}

// follow reads on behind the log's end.
func (v *verifier) follow(ctx context.Context) (grown bool, err error) {
	for range againstTail {
		end := v.end()
		if end == nil {
			return grown, nil
		}
		f := &logFact{txid: end.MaxTXID + 1, modified: time.Now()}
		o, err := v.line.next(ctx, f.txid)
		if err != nil && !isVerdict(err) {
			return grown, err
		}
		if o == nil || err != nil { // what is wrong with it, the next verification says
			return grown, nil
		}
		f.size = o.Size
		f.note(o)
		if err := v.applyLog(ctx, f, o); err != nil {
			return grown, err
		}
		v.logs[f.txid], grown = f, true
	}
	return grown, nil
}

func (v *verifier) conclude() {
	c := &v.db
	r := &Comparison{Checksum: fmt.Sprintf("%016x", c.sum), Pages: uint64(len(c.state.Hashes)), PageSize: c.state.PageSize, TXID: c.found}
	c.result = r
	end := v.end()
	if end == nil {
		r.State, r.What = AgainstDiffers, "the end of the replica's log can't be read"
		return
	}
	r.Newest = end.MaxTXID
	switch {
	case c.found == r.Newest:
		r.State, r.What = AgainstEqual, fmt.Sprintf("the database is the replica's newest state, TXID %d", r.Newest)
	case c.found != 0 && c.moving:
		r.State = AgainstEqual
		r.What = fmt.Sprintf("the database was the replica's state at TXID %d when it was read; both have gone on, the replica to TXID %d", r.TXID, r.Newest)
	case c.found != 0:
		r.State = AgainstBehind
		r.What = fmt.Sprintf("the database is the replica's state at TXID %d; the newest is %d: it is an earlier state, or a copy of one", r.TXID, r.Newest)
	case c.moving:
		r.State = AgainstChanging
		r.What = fmt.Sprintf("the database is written all the time, and none of the states that it was seen in has come into the replica, whose newest is TXID %d: compare again when less is written, and see the program's status for what keeps it from uploading", r.Newest)
	default:
		r.State = AgainstDiffers
		v.differ(r)
	}
}

// differ names the pages in which the database differs from the replica's newest
// state.
func (v *verifier) differ(r *Comparison) {
	const why = "it has commits that aren't uploaded, or it isn't this replica's database"
	c, rep := v.db.state, &v.replay
	if !rep.valid || rep.at != r.Newest {
		r.What = "the database is none of the states in the replica's log; which pages differ can't be told while the replica is damaged: " + why
		return
	}
	if rep.im.pageSize != c.PageSize {
		r.What = fmt.Sprintf("the database has pages of %d bytes, TXID %d of the replica %d: %s", c.PageSize, r.Newest, rep.im.pageSize, why)
		return
	}
	theirs := rep.im.hashes
	for i := range max(len(theirs), len(c.Hashes)) {
		if i < len(theirs) && i < len(c.Hashes) && theirs[i] == c.Hashes[i] {
			continue
		}
		if r.Differing++; len(r.First) < againstPages {
			r.First = append(r.First, uint64(i)+1)
		}
	}
	r.What = fmt.Sprintf("%d pages differ (the database has %d, the replica's newest state, TXID %d, has %d): %s",
		r.Differing, len(c.Hashes), r.Newest, len(theirs), why)
}
