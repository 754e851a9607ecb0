package replicate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

type (
	// ID names a database or a session: 16 random bytes, in text 32 hex digits.
	ID = segment.ID
)

// Owner tells people who opened a session. Nothing is decided by it.
type Owner struct {
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Program string    `json:"program"`
	Since   time.Time `json:"since"`
}

// String describes the owner in a message.
func (o Owner) String() string {
	return fmt.Sprintf("%s (pid %d on %s, since %s)", o.Program, o.PID, o.Host, o.Since.UTC().Format(time.RFC3339))
}

// thisProcess is the owner that claims of this process name.
func thisProcess(now time.Time) Owner {
	host, _ := os.Hostname()
	program := ""
	if len(os.Args) > 0 {
		program = filepath.Base(os.Args[0])
	}
	return Owner{Host: short(host), PID: os.Getpid(), Program: short(program), Since: now.UTC().Truncate(time.Second)}
}

// short keeps a name within what the format has room for.
func short(s string) string {
	if len(s) > 100 {
		return s[:100]
	}
	return s
}

func ownerOf(o *segment.Owner) *Owner {
	if o == nil {
		return nil
	}
	return &Owner{Host: o.Host, PID: o.PID, Program: o.Program, Since: o.Since}
}

// State says what an engine is doing.
type State string

// The states of an engine.
const (
	StateOpening     State = "opening"     // finding out how database and replica relate
	StateUnreachable State = "unreachable" // the store doesn't answer; commits wait on this machine
	StateDenied      State = "denied"      // the store refuses: credentials or permissions; commits wait on this machine
	StateExporting   State = "exporting"   // writing the first snapshot
	StateReplicating State = "replicating" // commits go to the store
	StateFenced      State = "fenced"      // another session extended the replica; writes fail
	StateFailed      State = "failed"      // refused or broken, see Error; writes fail
	StateClosed      State = "closed"
)

// States returns all states.
func States() []State {
	return []State{StateOpening, StateUnreachable, StateDenied, StateExporting, StateReplicating, StateFenced, StateFailed, StateClosed}
}

// Status is a snapshot of an engine.
type Status struct {
	Database string `json:"database"` // path of the file
	Replica  string `json:"replica"`  // URL without secrets
	ID       string `json:"id"`       // database ID, "" until known
	Session  string `json:"session"`
	Owner    Owner  `json:"owner"` // this process
	State    State  `json:"state"`
	// StateSince is when State became what it is.
	StateSince time.Time `json:"state_since"`

	// TXID and Checksum (hex) are the newest position that the store acknowledged.
	TXID     uint64 `json:"txid"`
	Checksum string `json:"checksum"`
	// Captured is the TXID that the newest captured commit will have.
	Captured uint64 `json:"captured"`
	// Backlog counts entries captured and not acknowledged, BacklogBytes their
	// stored bytes, Spooled those of them that are in the local spool.
	Backlog      int   `json:"backlog"`
	BacklogBytes int64 `json:"backlog_bytes"`
	Spooled      int   `json:"spooled"`
	// LagSeconds is the age of the oldest commit not acknowledged; 0 if none.
	LagSeconds float64 `json:"lag_seconds"`
	// AtLeast: it isn't known yet how database and replica relate, since the store
	// hasn't answered, perhaps. TXID (0: not known), Backlog, LagSeconds and the like are
	// what this machine knew before, and there may be more that isn't stored.
	AtLeast bool `json:"at_least,omitempty"`

	// LastUpload is when the store last acknowledged something; zero: never.
	LastUpload time.Time `json:"last_upload"`
	Uploads    uint64    `json:"uploads"`  // log segments acknowledged, claims included
	Uploaded   int64     `json:"uploaded"` // bytes of all objects acknowledged
	Retries    uint64    `json:"retries"`  // failed attempts

	// History says how the replica is condensed.
	History HistoryStatus `json:"history"`

	// FencedBy says who extended the replica, if State is StateFenced.
	FencedBy *Fencer `json:"fenced_by,omitempty"`

	// Retention says what this session has deleted, see [Keep].
	Retention RetentionStatus `json:"retention,omitzero"`

	// Figures count what was done so far.
	Figures Figures `json:"figures"`

	// Warning is what weakens the replica although replication goes on, "" if
	// nothing does: a store without conditional writes.
	Warning string `json:"warning,omitempty"`

	// Error is what is wrong now, "" if nothing is; Remedy what to do about it.
	Error  string `json:"error,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// HistoryStatus says how far the replica is condensed, as far as this process knows:
// it asks what there is when it has run for a minute.
type HistoryStatus struct {
	// Snapshot and Pages are the newest snapshot, and the newest page segment behind
	// it; nil: none, or not known.
	Snapshot *ExportStatus `json:"snapshot,omitempty"`
	Pages    *ExportStatus `json:"pages,omitempty"`
	// Next is when the next one of both will be written if commits go on; zero: not
	// known, or never. Much that changes makes it earlier.
	Next time.Time `json:"next,omitzero"`
	// Error is why the last attempt failed, "" if it didn't. Replication goes on.
	Error string `json:"error,omitempty"`
}

// ExportStatus is a snapshot or page segment.
type ExportStatus struct {
	TXID uint64    `json:"txid"`
	Time time.Time `json:"time"`
}

// Status tells how the engine is doing.
func (e *Engine) Status() Status {
	b := e.opts.Source.Backlog()
	now := e.clock.Now()
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.status
	s.Figures = e.opts.Counters.Figures()
	if k := &e.known; b.Entries == 0 {
		oldest := k.Oldest
		if b.Oldest != 0 && (oldest == 0 || b.Oldest < oldest) {
			oldest = b.Oldest
		}
		b = k.Backlog
		b.Oldest = oldest
	}
	s.Captured = s.TXID + b.TXIDs
	s.Backlog, s.BacklogBytes, s.Spooled = b.Entries, b.Bytes, b.Spooled
	if b.Oldest != 0 {
		s.LagSeconds = max(0, now.Sub(time.UnixMicro(b.Oldest)).Seconds())
	}
	return s
}

func (e *Engine) state() State {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.status.State
}

// setState notes what the engine does and what is wrong, and tells OnState if
// the state is another one.
func (e *Engine) setState(state State, err error) {
	now := e.clock.Now()
	e.mu.Lock()
	changed := e.status.State != state
	if changed {
		e.status.StateSince = now
	}
	news := err != nil && e.status.Error == ""
	e.status.State = state
	e.status.Error, e.status.Remedy = "", ""
	if err != nil {
		e.status.Error, e.status.Remedy = err.Error(), remedy(err)
		if e.status.Remedy == "" && state == StateUnreachable { // a plain error of the network
			e.status.Remedy = remedy(ErrUnreachable)
		}
	}
	e.mu.Unlock()
	if !changed && !news {
		return
	}
	switch {
	case err == nil:
		e.log.Info(stateText(state), "session", e.session.String())
	case state == StateFenced:
		by := e.Status().FencedBy
		e.log.Error("replication fenced", "error", err, "by_session", by.Session, "by", ownerText(by.Owner))
	case state == StateFailed:
		e.log.Error("replication failed", "error", err)
	default:
		text := stateText(state)
		if errors.Is(err, syscall.ENOSPC) { // this machine's, or that of a directory as store
			text = "the disk is full"
		}
		e.log.Warn(text+", trying on", "error", err)
	}
	if changed && e.opts.OnState != nil {
		e.opts.OnState(e.Status())
	}
}

// stateText is what the log says of a state.
func stateText(s State) string {
	switch s {
	case StateOpening:
		return "not replicating yet"
	case StateUnreachable:
		return "the store doesn't answer"
	case StateDenied:
		return "the store denies access"
	case StateExporting:
		return "writing the first snapshot"
	case StateClosed:
		return "replication closed"
	}
	return string(s)
}

// waiting is the state of an engine whose last request failed, and will be repeated.
func waiting(err error) State {
	if errors.Is(err, ErrDenied) {
		return StateDenied
	}
	return StateUnreachable
}

// trying notes a failed attempt that will be repeated.
func (e *Engine) trying(state State, err error) {
	e.mu.Lock()
	e.status.Retries++
	e.mu.Unlock()
	e.opts.Counters.retries.Add(1)
	e.setState(state, err)
}

// noteEnd puts the line's end into the status.
func (e *Engine) noteEnd(uploads int, bytes int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bound, e.known, e.status.AtLeast = true, local.Waiting{}, false
	e.status.ID = e.end.Database.String()
	e.status.TXID = e.end.TXID
	e.status.Checksum = fmt.Sprintf("%016x", e.end.Checksum)
	if uploads > 0 {
		e.status.Uploads += uint64(uploads)
		e.status.LastUpload = e.clock.Now()
	}
	e.status.Uploaded += bytes
}

// noteKnown puts what this machine knows into the status, as long as the store hasn't
// said how far it is. What is about another replica, or another file, says nothing.
// look: count what waits, too.
func (e *Engine) noteKnown(look bool) {
	e.mu.Lock()
	before := e.known.Oldest
	e.mu.Unlock()
	l := &e.lineage
	file := e.opts.identity(e.opts.Database)
	if e.bound || l.Database.IsZero() || l.Replica != e.opts.Store.String() || l.OtherFile(file) || l.Made(file) {
		return
	}
	p := l.Acknowledged()
	var w local.Waiting
	if look && e.opts.Waiting != nil && p.PageSize != 0 {
		w = e.opts.Waiting(Tail{
			TXID: p.TXID, Checksum: p.Checksum, Session: p.Session, Database: l.Database,
			Commit: p.Commit, PageSize: p.PageSize, WAL: p.WAL,
		})
	}
	if before != 0 && (w.Oldest == 0 || before < w.Oldest) { // it was no younger before
		w.Oldest = before
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.known, e.status.AtLeast = w, !w.Whole
	e.status.ID, e.status.TXID, e.status.Checksum = l.Database.String(), p.TXID, fmt.Sprintf("%016x", p.Checksum)
}

// remedy says what to do about err.
func remedy(err error) string {
	for _, r := range []struct {
		target error
		text   string
	}{
		{ErrFenced, "make sure that only one process writes this database, then open it, or start outwash replicate, again"},
		{ErrRepair, "outwash restore -force takes the replica's state, outwash adopt the database's; replicate to another path to keep both"},
		{ErrDiverged, "outwash restore -force takes the replica's state, outwash adopt the database's; replicate to another path to keep both"},
		{ErrMissing, "outwash restore, replica_restore=auto, or outwash replicate -restore-if-db-not-exists"},
		{ErrStale, "open the database again"},
		{ErrForeign, "move the object away, or replicate to another path"},
		{ErrVersion, "upgrade Outwash"},
		{ErrDenied, "check the credentials and what they permit"},
		{ErrNoBucket, "create the bucket, or correct the URL"},
		{ErrConfig, "correct the replica's URL and its settings"},
		{ErrUnsupported, "use another store, or correct the endpoint"},
		{ErrCorrupt, "outwash restore to a position before the damage, or replicate to another path"},
		{syscall.ENOSPC, "make room on the disk: it goes on by itself then"},
		{ErrUnreachable, "none needed: it goes on by itself when the store answers"},
	} {
		if errors.Is(err, r.target) {
			return r.text
		}
	}
	return ""
}
