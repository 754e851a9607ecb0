package replicate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/outwash/outwash/internal/local"
)

// leave notes, before the file temp becomes the database, that it contains the line's
// end: see local.Restored, which says why that may be concluded from. It is only of use
// where the database is changed before anything that replicates it has seen it; so what
// prevents it is said, and is no failure.
func (r *restorer) leave(temp string) (undo func()) {
	undo = func() {}
	if r.opts.Database == "" || !r.latest || r.target != (target{}) {
		return undo
	}
	t := r.a.end
	back, err := local.NoteRestored(r.opts.Database, temp, local.Restored{
		Database: t.Database, Position: local.Position{TXID: t.TXID, Checksum: t.Checksum, Session: t.Session},
	})
	if err != nil {
		r.notes = append(r.notes, fmt.Sprintf("replication has to begin before the database is changed, since it isn't noted that this file is the replica's newest state: %v", err))
		return undo
	}
	return back
}

// checkSpool refuses to make a database beside a spool that goes on from its state: what
// is in there was committed, is nowhere else, and would count as lost with the file.
func (r *restorer) checkSpool() error {
	if r.opts.Force {
		return nil
	}
	n, err := local.SpoolBehind(r.opts.Output, r.a.end)
	if err != nil {
		return fmt.Errorf("replicate: restore to %s: %w", r.opts.Output, err)
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("replicate: restore to %s: %s%s holds transactions (%d) behind TXID %d that the replica doesn't have: %w; "+
		"outwash replicate -once -restore-if-db-not-exists uploads them and restores the database with them, outwash restore -force leaves them out",
		r.opts.Output, r.opts.Output, local.Suffix, n, r.a.end.TXID, ErrOutputExists)
}

// makeParents makes the directories that Output needs.
func (r *restorer) makeParents() (err error) {
	if r.made, err = local.MakeParents(r.opts.Output); err != nil {
		return fmt.Errorf("replicate: restore to %s: %w", r.opts.Output, err)
	}
	return nil
}

// removeParents takes back what makeParents made.
func (r *restorer) removeParents() {
	for i := len(r.made) - 1; i >= 0; i-- {
		_ = os.Remove(r.made[i]) // what isn't empty stays
	}
	r.made = nil
}

// absentDirectory reports whether checkOutput found that there is no directory yet.
func absentDirectory(err error) bool { return errors.Is(err, fs.ErrNotExist) }
