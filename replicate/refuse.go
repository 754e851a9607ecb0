package replicate

import (
	"fmt"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/shell"
)

// refuse says what is wrong between which two.
func (s *situation) refuse(kind error, format string, a ...any) (action, error) {
	return actRefuse, fmt.Errorf("replicate: %s and %s: %w: %s", s.database, s.replica, kind, fmt.Sprintf(format, a...))
}

// ask is refuse where the database can be adopted.
func (s *situation) ask(kind error, format string, a ...any) (action, error) {
	_, err := s.refuse(kind, format, a...)
	return actAsk, err
}

func (s *situation) restoreCommand(force string) string {
	if s.file != "" {
		return fmt.Sprintf("outwash restore %s-config %s", force, shell.Quote(s.file, s.database))
	}
	return fmt.Sprintf("outwash restore %s-o %s", force, shell.Quote(s.database, s.replica))
}

func (s *situation) adoptCommand() string {
	if s.file != "" {
		return "outwash adopt -config " + shell.Quote(s.file, s.database)
	}
	return "outwash adopt " + shell.Quote(s.database, s.replica)
}

// fellBehind: the replica had more than it has.
func (s *situation) fellBehind() (action, error) {
	a := s.lineage.Acknowledged()
	const format = "the replica ends at TXID %d, but TXID %d (checksum %016x) was acknowledged before: objects of its log are missing. " +
		"Restore them (object versions, a copy of the bucket), or replicate to another path"
	if s.evidence.File != FilePresent {
		return s.refuse(ErrDiverged, format, s.end.TXID, a.TXID, a.Checksum)
	}
	return s.ask(ErrDiverged, format+". To go on without them, from the database's present state: %s",
		s.end.TXID, a.TXID, a.Checksum, s.adoptCommand())
}

// differs: the database is neither the replica's nor any state known of it.
func (s *situation) differs() (action, error) {
	tail, ev := s.end.Tail, s.evidence
	choice := fmt.Sprintf("To take the replica's state: %s. To make the database's the replica's next: %s. To keep both, replicate to another path",
		s.restoreCommand("-force "), s.adoptCommand())
	switch r := &s.lineage.Restored; {
	case r.Of(ev.Identity) && r.Database == tail.Database && !s.lineage.Known(tail.Session) &&
		s.lineage.Noted.File != r.File && s.lineage.Durable.File != r.File:
		return s.ask(ErrDiverged, "the database was restored from the replica's TXID %d and has changed since; the replica has gone on without it and ends at TXID %d, checksum %016x, last written by %s. %s",
			r.TXID, tail.TXID, tail.Checksum, s.end.writer(), choice)
	case s.ours() && s.lineage.Known(tail.Session) && !s.lineage.OtherFile(ev.Identity):
		return s.ask(ErrRepair, "the replica ends at TXID %d, checksum %016x; the database is %s, and nothing proves that it ever was at TXID %[1]d "+
			"(power may have failed, or an older file was put here); %[4]s. %[5]s",
			tail.TXID, tail.Checksum, found(ev), s.reached(), choice)
	case s.ours() && s.lineage.Known(tail.Session):
		return s.ask(ErrDiverged, "the replica ends at TXID %d, checksum %016x; the database is %s, another file than the one that was replicated from here. %s",
			tail.TXID, tail.Checksum, found(ev), choice)
	case s.ours():
		return s.ask(ErrDiverged, "the replica ends at TXID %d, checksum %016x, last written by %s; the database is %s; %s. %s",
			tail.TXID, tail.Checksum, s.end.writer(), found(ev), s.reached(), choice)
	}
	return s.ask(ErrDiverged, "the replica (database %s) ends at TXID %d, checksum %016x, last written by %s; the database is %s: another one, or a copy that went its own way "+
		"(one that was restored, perhaps, and changed before it was replicated). %s",
		tail.Database, tail.TXID, tail.Checksum, s.end.writer(), found(ev), choice)
}

// reached says how far the file is known to have come.
func (s *situation) reached() string {
	var txid uint64
	for _, p := range []local.Position{s.lineage.Durable, s.lineage.Noted, s.lineage.Ahead, s.lineage.Restored.Position} {
		if p.File == s.evidence.Identity && (p.Boot == "" || p.Boot == s.boot) {
			txid = max(txid, p.TXID)
		}
	}
	if txid == 0 {
		return "it isn't known how far it had come"
	}
	return fmt.Sprintf("it was last known at TXID %d", txid)
}

func found(ev Evidence) string {
	if ev.Found != "" {
		return ev.Found
	}
	if ev.Scanned {
		return fmt.Sprintf("one of %d pages with checksum %016x", ev.Commit, ev.Checksum)
	}
	return fmt.Sprintf("one of %d bytes", ev.Size)
}

func ownerText(o *Owner) string {
	if o == nil {
		return "owner unknown"
	}
	return o.String()
}
