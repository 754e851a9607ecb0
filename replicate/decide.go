package replicate

import (
	"github.com/outwash/outwash/internal/local"
)

// smallDatabase is the size in bytes up to which a database with content is
// taken over as one entry of the log, rather than by a snapshot.
const smallDatabase = 4 << 20

// action is what an engine does once it knows how database and replica relate.
type action int

const (
	actRefuse   action = iota // with the error
	actAsk                    // refuse with the error, unless the database is to be adopted: see adoption
	actWait                   // undecided: the store must answer first
	actBacklog                // usable, undecided: commits wait
	actSearch                 // undecided: where on the line is the database's state?
	actEmpty                  // both are empty: begin
	actContinue               // the database continues the line
	actRepair                 // the database had reached the line's end: ship what differs
	actAdopt                  // the database becomes the line's next entry
	actExport                 // the database becomes the line's next snapshot
	actDrain                  // the file is gone, what was captured of it is not: upload that first
	actRestore                // the file is missing, or at an earlier position: make it from the replica
)

// situation is all that a decision rests on.
type situation struct {
	database    string // path, for messages
	replica     string // URL, for messages
	file        string // configuration file that lists them, for messages; "": none
	unreachable error  // why the replica isn't known; nil: it is
	end         lineEnd
	lineage     local.Lineage
	boot        string // the machine's present run
	evidence    Evidence
	searched    bool   // earlier is known
	earlier     uint64 // TXID before the end's that has the database's state; 0: none
	canRestore  bool   // there is somebody to make the file
	inUse       bool   // the application was let in already: the file must stay
	small       int64  // smallDatabase
}

// empty reports whether there is nothing to lose: claims alone are an empty line.
func (s *situation) empty() bool { return s.end.header == nil || s.end.Commit == 0 }

// ours reports whether the lineage is about this replica.
func (s *situation) ours() bool {
	return !s.lineage.Database.IsZero() && s.lineage.Database == s.end.Database
}

// repairable reports whether it is proven that the database had reached the
// line's end, so that it may extend it whatever happened to it since.
func (s *situation) repairable() bool {
	return s.lineage.Reached(s.end.Tail, s.evidence.Identity, s.boot)
}

// decide applies the rows of evidence in order; the first that fits counts.
func decide(s situation) (action, error) {
	ev, missing := s.evidence, s.evidence.File == local.FileMissing
	switch {
	case s.unreachable != nil:
		return s.unknown(), nil
	case s.ours() && s.lineage.Acknowledged().TXID > s.end.TXID:
		return s.fellBehind()
	case s.end.needsBase:
		return s.unfinished()
	case missing:
		return s.missing()
	case ev.Continues:
		return actContinue, nil
	case s.empty():
		return s.adoption(), nil
	case s.inUse && s.repairable():
		return actRepair, nil
	case ev.Scanned && !s.searched:
		return actSearch, nil
	case s.earlier != 0:
		return s.behind()
	case s.repairable():
		return actRepair, nil
	}
	return s.differs()
}

// unknown: the replica can't be asked.
func (s *situation) unknown() action {
	known := len(s.lineage.Sessions) > 0 && !s.lineage.OtherFile(s.evidence.Identity)
	// A file made now would stand in the way of the one in the replica.
	if s.inUse || known && s.evidence.File != local.FileMissing {
		return actBacklog
	}
	return actWait
}

// adoption is how a database takes the place of the line's end: as an entry that
// follows it; where its pages are not known, or would be the first and many, by a
// snapshot that the entry needs.
func (s *situation) adoption() action {
	if s.end.needsBase || s.empty() && s.evidence.Size > s.small {
		return actExport
	}
	return actAdopt
}

// unfinished: the snapshot is missing that the line's last adopt entry needs.
func (s *situation) unfinished() (action, error) {
	ev := s.evidence
	switch {
	case ev.File == local.FileMissing:
		return s.refuse(ErrMissing, "and the replica has no snapshot yet: %s, began to take over a database and did not finish. "+
			"Put the database back, or replicate to another path", s.end.writer())
	case ev.Continues, s.lineage.Known(s.end.Session) && !s.lineage.OtherFile(ev.Identity):
		return actExport, nil
	}
	return s.ask(ErrDiverged, "%s, began to take over another database and did not write its snapshot. "+
		"Open that database again, or replicate this one to another path, or let it take the other's place: %s",
		s.end.writer(), s.adoptCommand())
}

// missing: there is no database file.
func (s *situation) missing() (action, error) {
	ev := s.evidence
	switch {
	case ev.Spooled > 0 && ev.Continues:
		return actDrain, nil
	case s.empty():
		return actEmpty, nil
	case s.canRestore && !s.inUse:
		return actRestore, nil
	}
	return s.refuse(ErrMissing, "but the replica has it, up to TXID %d, last written by %s. Restore it with: %s "+
		"(or have that done: by replica_restore=auto, or outwash replicate -restore-if-db-not-exists); to begin a new database, replicate it to another path",
		s.end.TXID, s.end.writer(), s.restoreCommand(""))
}

// behind: the database is a state that the line had before. It is brought forward
// without a question only where it is this machine's own and never was further:
// whoever put an earlier state there on purpose must find it as it was.
func (s *situation) behind() (action, error) {
	if s.canRestore && !s.inUse && s.ours() && s.lineage.KnowsFile(s.evidence.Identity) && !s.repairable() {
		return actRestore, nil
	}
	return s.ask(ErrDiverged, "the database is at TXID %d, the replica ends at TXID %d, checksum %016x, last written by %s. "+
		"To go on from the replica's state: %s "+
		"(replica_restore=auto does that when it opens a file that was replicated from here, not one that was put here). "+
		"To look at the old state, open it without replication, or replicate it to another path. To go on from it: %s",
		s.earlier, s.end.TXID, s.end.Checksum, s.end.writer(), s.restoreCommand("-force "), s.adoptCommand())
}
