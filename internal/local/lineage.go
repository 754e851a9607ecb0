package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/outwash/outwash/internal/segment"
)

// Lineage says which replica a database belongs to and how far it had come. The
// zero value is that of a database that was never replicated.
//
// It is kept in three files. That with the sessions is written seldom and always
// synced; the newest position goes at each acknowledgement into a file of its
// own, and where an upload will lead into another, which are not synced: whatever a loss of power leaves of it, no session is
// forgotten.
type Lineage struct {
	// Database is the replica's database ID; zero: none yet.
	Database segment.ID `json:"database"`
	// Sessions are the sessions that this database's engines opened, oldest
	// first; a session is listed before its first object is created.
	Sessions []segment.ID `json:"sessions"`
	// Replica is where it was when the last of them was opened: the store's URL, without
	// secrets. It is for people; "": not known.
	Replica string `json:"replica,omitempty"`
	// File is the identity of the file that they replicate (see Identity); "":
	// not known.
	File string `json:"file,omitempty"`
	// TXID, Checksum and Session are a position that the replica had. (All that
	// there was in files of earlier versions.)
	TXID     uint64     `json:"txid"`
	Checksum uint64     `json:"checksum"`
	Session  segment.ID `json:"session"`
	// Durable is a position that the file contains at least, also after a loss of
	// power. It can be ahead of the replica: it is recorded before an upload.
	Durable Position `json:"durable,omitzero"`
	// Noted is the newest position that the replica had. The file contains it, or
	// more, for as long as the machine hasn't been started anew.
	Noted Position `json:"-"`
	// Ahead is the position that the newest upload will have made: noted before it,
	// since its end may come to be known to nobody. It proves what Noted does.
	Ahead Position `json:"-"`
	// Restored says which end of the replica the file was made from.
	Restored Restored `json:"-"`
}

// Position is a position on the replica's line that a file had reached.
type Position struct {
	TXID     uint64     `json:"txid"`
	Checksum uint64     `json:"checksum"`
	Session  segment.ID `json:"session"`        // which numbered it so
	File     string     `json:"file,omitempty"` // identity of the file; "": it says nothing of any
	Boot     string     `json:"boot,omitempty"` // the machine's run in which it was recorded

	// Of the noted position alone, for who looks without the replica: the database's
	// size there, and where in its log that is.
	Commit   uint64              `json:"commit,omitempty"`
	PageSize uint32              `json:"page_size,omitempty"`
	WAL      segment.WALPosition `json:"wal,omitzero"`
}

// Known reports whether id is one of the lineage's sessions.
func (l *Lineage) Known(id segment.ID) bool { return l.index(id) >= 0 }

func (l *Lineage) index(id segment.ID) int { return slices.Index(l.Sessions, id) }

// Acknowledged returns the newest position known to have been in the replica.
func (l *Lineage) Acknowledged() Position {
	p := Position{TXID: l.TXID, Checksum: l.Checksum, Session: l.Session}
	at, noted := l.index(p.Session), l.index(l.Noted.Session)
	if noted > at || noted == at && l.Noted.TXID >= p.TXID {
		return l.Noted
	}
	return p
}

// KnowsFile reports whether the file with this identity is the one that the
// sessions replicated.
func (l *Lineage) KnowsFile(file string) bool {
	return file != "" && (file == l.File || file == l.Durable.File || file == l.Noted.File)
}

// Made reports whether the file with this identity is taken up, made from the
// replica say, and no session has noted a position of it.
func (l *Lineage) Made(file string) bool {
	return file != "" && file == l.File && file != l.Durable.File && file != l.Noted.File
}

// OtherFile reports whether the file with this identity is certainly not the one
// that the sessions replicated.
func (l *Lineage) OtherFile(file string) bool {
	return file != "" && l.File != "" && !l.KnowsFile(file)
}

// Reached reports whether it is proven that the file with this identity contained
// the tail's state once. boot is the machine's present run.
func (l *Lineage) Reached(t Tail, file, boot string) bool {
	for _, p := range []*Position{&l.Noted, &l.Ahead} {
		if boot != "" && p.Boot == boot && l.proves(p, t, file) {
			return true
		}
	}
	return l.DurablyReached(t, file)
}

// DurablyReached is Reached by what a loss of power can't take away.
func (l *Lineage) DurablyReached(t Tail, file string) bool {
	return l.proves(&l.Durable, t, file) || l.Restored.proves(t, file)
}

// proves reports whether a file that reached p had reached t before: t was
// numbered by the same session up to there, or by an earlier one of the list. A
// later session's positions lie beyond all of an earlier one's, since they begin
// with its claim.
func (l *Lineage) proves(p *Position, t Tail, file string) bool {
	at, by := l.index(p.Session), l.index(t.Session)
	switch {
	case l.Database != t.Database || file == "" || p.File != file || by < 0 || at < by:
		return false
	case at == by && p.TXID == t.TXID:
		return p.Checksum == t.Checksum
	}
	return p.TXID > t.TXID
}

// maxSessions bounds the lineage: one session a minute for a week.
const maxSessions = 10000

// Lineage reads the lineage; the zero value if there is none or it is torn
// (a torn one proves nothing, which is what the zero value says).
func (d *Dir) Lineage() (Lineage, error) {
	var l Lineage
	if err := d.readJSON("lineage", &l); err != nil {
		return Lineage{}, err
	}
	var p Position
	if err := d.readJSON("position", &p); err != nil {
		return Lineage{}, err
	}
	if l.Known(p.Session) { // else it is of a lineage before this one
		l.Noted = p
	}
	var ahead Position
	if err := d.readJSON("ahead", &ahead); err != nil {
		return Lineage{}, err
	}
	if l.Known(ahead.Session) {
		l.Ahead = ahead
	}
	l.Restored = d.Restored()
	return l, nil
}

// readJSON leaves v as it is if there is no such file, and sets it to zero if the
// file is torn.
func (d *Dir) readJSON(name string, v any) error {
	b, err := d.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("local: %w", err)
	}
	if json.Unmarshal(b, v) != nil {
		switch v := v.(type) {
		case *Lineage:
			*v = Lineage{}
		case *Position:
			*v = Position{}
		}
	}
	return nil
}

// SaveLineage replaces the lineage, all of it but the noted position, atomically;
// it is on disk when the call returns.
func (d *Dir) SaveLineage(l Lineage) error {
	if n := len(l.Sessions) - maxSessions; n > 0 {
		l.Sessions = l.Sessions[n:]
	}
	return d.replaceJSON("lineage", l, true)
}

// NotePosition replaces the noted position; it isn't synced.
func (d *Dir) NotePosition(p Position) error { return d.replaceJSON("position", p, false) }

// NoteAhead replaces the position that an upload will have made; it isn't synced.
func (d *Dir) NoteAhead(p Position) error { return d.replaceJSON("ahead", p, false) }

func (d *Dir) replaceJSON(name string, v any, durable bool) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return fmt.Errorf("local: %w", err)
	}
	return d.Replace(name, b, durable)
}

// ReadFile reads a file of the directory.
func (d *Dir) ReadFile(name string) ([]byte, error) { return os.ReadFile(d.file(name)) }
