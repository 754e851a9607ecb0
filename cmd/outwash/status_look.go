package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/replicate"
)

// statusLocal is what lies beside a database that no process tells of.
type statusLocal struct {
	Exists bool `json:"exists"` // the database file
	InUse  bool `json:"in_use"` // a process replicates it
	// ID is the replica's database ID, TXID the newest position that this machine
	// knows to have been stored; "", 0: it was never replicated from here.
	ID   string `json:"id,omitempty"`
	TXID uint64 `json:"txid"`
	// Spooled transactions and Logged ones (in the write-ahead log) are not stored.
	// There is nothing else if Complete; Why says why that isn't known.
	Spooled      uint64 `json:"spooled"`
	SpooledBytes int64  `json:"spooled_bytes"`
	Logged       int    `json:"logged"`
	Complete     bool   `json:"complete"`
	Why          string `json:"why,omitempty"`
	// LagSeconds is how long they have been waiting, at least.
	LagSeconds float64 `json:"lag_seconds"`
}

const (
	notFromHere = "it was restored, or never replicated from here: the next start compares it with its replica"
	otherFile   = "the file is another one than was replicated: restored, perhaps; the next start compares it with the replica"
)

// statusTime bounds the requests about one replica.
const statusTime = 30 * time.Second

// look finds out about a database without its process. What fails is the entry's.
func (f *statusFlags) look(ctx context.Context, e *statusEntry, t *statusTarget) {
	e.State = stateReplica
	e.err = t.open(ctx)
	if t.store != nil {
		e.Replica = t.store.String()
	}
	if t.store != nil && !f.local {
		e.err = f.lookAtReplica(ctx, e, t)
	}
	if t.path == "" {
		return
	}
	if err := f.lookBeside(e); err != nil && e.err == nil {
		e.err = err
	}
}

// lookAtReplica reads the end of the replica's line.
func (f *statusFlags) lookAtReplica(ctx context.Context, e *statusEntry, t *statusTarget) (err error) {
	ctx, cancel := context.WithTimeout(ctx, statusTime)
	defer cancel()
	var known local.Lineage
	if t.path != "" {
		known, err = local.ReadOnly(t.path).Lineage()
		if err != nil {
			return err
		}
	}
	e.Bucket, err = replicate.ReadEnd(ctx, t.store, known.Database, known.Acknowledged().TXID)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%s: no answer within %s: %w", t.store, statusTime, replicate.ErrUnreachable)
	}
	return err
}

// lookBeside looks at the files on this machine, and compares them with the replica.
func (f *statusFlags) lookBeside(e *statusEntry) error {
	e.State = stateStopped
	l := &statusLocal{}
	e.Local = l
	fi, err := os.Stat(e.Database)
	l.Exists = err == nil && fi.Mode().IsRegular() && fi.Size() > 0
	switch {
	case err == nil && !fi.Mode().IsRegular():
		return statusError(errNoDatabase, "%s is no file", e.Database)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	view, err := local.Look(e.Database)
	if err != nil {
		return e.notSeen(err)
	}
	e.Replica = cmp.Or(e.Replica, view.Lineage.Replica)
	if l.InUse = view.InUse; l.InUse {
		e.State = stateSilent
	}
	if !view.Lineage.Database.IsZero() {
		l.ID, l.TXID = view.Lineage.Database.String(), view.Lineage.Acknowledged().TXID
	}
	if !l.Exists && len(view.Records) == 0 && !l.InUse {
		e.State = stateMissing
		if e.Bucket != nil && e.Bucket.TXID > 0 {
			return statusError(errNoDatabase, "the replica has it, up to TXID %d: outwash restore gets it back", e.Bucket.TXID)
		}
		return statusError(errNoDatabase, "%s does not exist", e.Database)
	}
	tail, ok := capture.Remembered(&view.Lineage)
	switch file := local.Identity(e.Database); {
	case e.Bucket != nil:
		if l.Why, err = sameLine(&view.Lineage, e.Bucket, file); err != nil {
			return err
		}
		tail = e.Bucket.Tail
	case l.ID == "":
		l.Why = notFromHere
	case otherThanReplicated(&view.Lineage, file):
		l.Why = otherFile
	case !ok:
		l.Why = "without its replica it can't be told what of the database is stored"
	}
	if l.Why != "" {
		return nil
	}
	p, err := capture.Peek(e.Database, view, tail)
	if err != nil {
		return err
	}
	l.tell(p, time.Now())
	return nil
}

// notSeen: what lies beside the database can't be looked at.
func (e *statusEntry) notSeen(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		e.State = stateUnknown
		return fmt.Errorf("%w: ask as the user who replicates it, or as root", err)
	}
	return err
}

// tell notes what waits.
func (l *statusLocal) tell(p capture.Peeked, now time.Time) {
	l.Logged, l.Complete, l.Why = p.Commits, p.Whole, p.Why
	var oldest time.Time
	for _, r := range p.Spooled {
		e := r.Entry
		l.Spooled += max(e.Count, 1)
		for i := range e.Blocks {
			l.SpooledBytes += int64(e.Blocks[i].Stored)
		}
		if oldest.IsZero() && e.FirstRaw != 0 {
			oldest = time.UnixMicro(e.FirstRaw)
		}
	}
	if oldest.IsZero() {
		oldest = p.Logged // the newest commit's time: the oldest is no later
	}
	if !oldest.IsZero() {
		l.LagSeconds = max(0, now.Sub(oldest).Seconds())
	}
}

// otherThanReplicated reports whether the database's file is certainly not the one
// that was replicated, or was made from the replica.
func otherThanReplicated(l *local.Lineage, file string) bool {
	return l.OtherFile(file) || l.Made(file)
}

// sameLine compares this machine's line with the replica's: what a start would refuse
// is an error, what it would have to compare first is unknown. file is the identity of
// the database's.
func sameLine(l *local.Lineage, end *replicate.End, file string) (unknown string, err error) {
	known := l.Acknowledged()
	switch {
	case l.Database.IsZero():
		return notFromHere, nil
	case l.Database != end.Tail.Database:
		return "", statusError(errRefused, "it was replicated to another replica (database %s) than this one (%s): "+
			"correct the replica's URL, or see \"outwash help adopt\"", l.Database, end.Tail.Database)
	case end.TXID < known.TXID:
		return "", statusError(errRefused, "the replica ends at TXID %d, and this machine had stored up to %d: objects were deleted there, "+
			"see \"outwash verify\"", end.TXID, known.TXID)
	case otherThanReplicated(l, file):
		return otherFile, nil
	case end.TXID > 0 && !l.Known(end.Tail.Session):
		return "", statusError(errRefused, "another writer has gone on with the replica, up to TXID %d: %s; "+
			"\"outwash restore -force\" takes its state, \"outwash adopt\" this database's", end.TXID, owner(end.Owner))
	}
	return "", nil
}
