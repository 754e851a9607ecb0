package replicate

import (
	"fmt"

	"github.com/outwash/outwash/internal/local"
)

// smallDatabase is the size in bytes up to which a database with content is
// taken over as one entry of the log, rather than by a snapshot.
const smallDatabase = 4 << 20

// action is what an engine does once it knows how database and replica relate.
type action int

const (
	actRefuse   action = iota // with the error
	actWait                   // undecided: the store must answer first
	actBacklog                // usable, undecided: commits wait
	actEmpty                  // both are empty: begin
	actContinue               // the database continues the line
	actAdopt                  // the database becomes the line's first entry
	actExport                 // the database becomes the line's first snapshot
	actDrain                  // the file is gone, what was captured of it is not: upload that first
	actRestore                // the file is missing: make it from the replica
)

// situation is all that a decision rests on.
type situation struct {
	database    string // path, for messages
	replica     string // URL, for messages
	unreachable error  // why the replica isn't known; nil: it is
	end         lineEnd
	lineage     local.Lineage
	evidence    Evidence
	canRestore  bool
	small       int64 // smallDatabase
}

// decide applies the rows of evidence in order; the first that fits counts.
func decide(s situation) (action, error) {
	tail, ev := s.end.Tail, s.evidence
	empty := s.end.header == nil || tail.Commit == 0 // claims alone are an empty line
	ours := s.lineage.Database == tail.Database && !s.lineage.Database.IsZero()

	switch {
	case s.unreachable != nil && s.lineage.Database.IsZero():
		return actWait, nil
	case s.unreachable != nil:
		return actBacklog, nil

	case ours && s.lineage.TXID > tail.TXID:
		return s.refuse(ErrDiverged, "the replica ends at TXID %d, but TXID %d was acknowledged before: objects of its log are missing. "+
			"Restore them (object versions, a copy of the bucket)", tail.TXID, s.lineage.TXID)

	case s.end.needsBase && ev.File == local.FileMissing:
		return s.refuse(ErrMissing, "and the replica has no snapshot yet: session %s (%s) began to take over a database and did not finish. "+
			"Put the database back, or replicate to another path", tail.Session, ownerText(s.end.owner))
	case s.end.needsBase && (ev.Continues || s.lineage.Known(tail.Session)):
		return actExport, nil
	case s.end.needsBase:
		return s.refuse(ErrDiverged, "session %s (%s) began to take over another database and did not write its snapshot. "+
			"Open that database again, or replicate this one to another path", tail.Session, ownerText(s.end.owner))

	case ev.File == local.FileMissing && ev.Spooled > 0 && ev.Continues:
		return actDrain, nil
	case ev.File == local.FileMissing && empty:
		return actEmpty, nil
	case ev.File == local.FileMissing && s.canRestore:
		return actRestore, nil
	case ev.File == local.FileMissing:
		return s.refuse(ErrMissing, "but the replica has it, up to TXID %d, last written by %s. Restore it with: outwash restore -o %s %s "+
			"(or open it with replica_restore=auto); to begin a new database, replicate it to another path",
			tail.TXID, s.end.writer(), s.database, s.replica)

	case ev.Continues:
		return actContinue, nil
	case empty && ev.Size <= s.small:
		return actAdopt, nil
	case empty:
		return actExport, nil

	case ours && s.lineage.Known(tail.Session) && s.lineage.TXID == tail.TXID:
		return s.refuse(ErrRepair, "the replica ends at TXID %d, checksum %016x; the database (%s) contains that and changed since. "+
			"To keep its present state, replicate it to another path. To go back to the replica's: outwash restore -force -o %s %s",
			tail.TXID, tail.Checksum, found(ev), s.database, s.replica)
	case ours:
		return s.refuse(ErrDiverged, "the replica ends at TXID %d, checksum %016x, written by session %s (%s); the database is at %s and was last known at TXID %d. "+
			"To take the replica's state: outwash restore -force -o %s %s. To keep the database's, replicate it to another path",
			tail.TXID, tail.Checksum, tail.Session, ownerText(s.end.owner), found(ev), s.lineage.TXID, s.database, s.replica)
	default:
		return s.refuse(ErrDiverged, "the replica (database %s) ends at TXID %d, checksum %016x, last written by %s; the database (%s) is another one, or a copy of an older state. "+
			"Replicate it to another path, or take the replica's state: outwash restore -force -o %s %s",
			tail.Database, tail.TXID, tail.Checksum, s.end.writer(), found(ev), s.database, s.replica)
	}
}

// refuse says what is wrong between which two.
func (s *situation) refuse(kind error, format string, a ...any) (action, error) {
	return actRefuse, fmt.Errorf("replicate: %s and %s: %w: %s", s.database, s.replica, kind, fmt.Sprintf(format, a...))
}

func found(ev Evidence) string {
	if ev.Found != "" {
		return ev.Found
	}
	return fmt.Sprintf("%d bytes", ev.Size)
}

func ownerText(o *Owner) string {
	if o == nil {
		return "owner unknown"
	}
	return o.String()
}
