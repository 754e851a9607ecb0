package capture

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// state is a state of the database that the replica has, or will have once the
// spool is uploaded.
type state struct {
	pos              segment.WALPosition
	checksum, commit uint64
}

// found is what Evidence learned, for Begin.
type found struct {
	state        state          // the newest state that is in the replica or the spool
	pageSize     uint32         // of that state
	filePageSize uint32         // of the database
	entries      []local.Record // spooled entries that lead from the tail to it
	joins        []local.Join
	clean        *clean // the clean-close record, if it fits state
	lost         bool   // the spool has more, which the database has lost
	tail         state  // the replica's newest state
	tailPageSize uint32
	scanned      *mark  // where a scan found state in the log: frame 0, if in the file alone
	long         bool   // state is the file with all its length, which is more than its header says
	seen         string // fingerprint of the database before the proof
	logSalt      [2]uint32
}

// Evidence compares the local database with the replica's tail; see
// replicate.Source.
func (d *DB) Evidence(ctx context.Context, tail local.Tail) (local.Evidence, error) {
	d.passes.Lock()
	defer d.passes.Unlock()
	d.mu.Lock()
	err := d.followSpool(tail)
	f := &d.found
	d.mu.Unlock()
	if err == nil {
		err = d.playBack()
	}
	if err != nil {
		return local.Evidence{}, err
	}
	ev := local.Evidence{Spooled: len(f.entries), Identity: local.Identity(d.opts.Path)}

	file, err := d.openFile(d.opts.Path)
	if errors.Is(err, fs.ErrNotExist) {
		ev.Found, ev.Continues = "no database file", ev.Spooled > 0
		return ev, nil
	}
	if err != nil {
		return ev, fmt.Errorf("capture: %w", err)
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil {
		return ev, fmt.Errorf("capture: %w", err)
	}
	if fi.Size() == 0 {
		ev.Found, ev.Continues = "an empty database file", ev.Spooled > 0
		return ev, nil
	}
	h, err := readDatabaseHeader(file, d.opts.Path)
	if err != nil {
		return ev, err
	}
	f.filePageSize = h.PageSize
	ev.File, ev.Size, ev.PageSize = local.FilePresent, fi.Size(), h.PageSize
	if f.state.commit == 0 {
		ev.Found = "a database with content"
		return ev, nil
	}
	err = d.prove(ctx, f, &ev)
	return ev, err
}

// hasJournal reports whether a crash may have left a transaction cut off.
func hasJournal(path string) bool {
	fi, err := os.Stat(path + "-journal")
	return err == nil && fi.Size() > 0
}

// playBack lets SQLite roll back the transaction of a rollback-journal mode that
// a crash has cut off: until then the file is no state of the database.
func (d *DB) playBack() error {
	if !hasJournal(d.opts.Path) {
		return nil
	}
	if _, err := os.Stat(d.opts.Path); err != nil {
		return nil
	}
	p, err := d.openPin()
	if err != nil {
		return err
	}
	defer p.close()
	defer p.end()
	return p.begin()
}

// followSpool finds the spooled entries that follow the tail, one after another
// by WAL position and checksum.
func (d *DB) followSpool(tail local.Tail) error {
	records, err := d.spool.Records()
	if err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	d.found.follow(tail, records)
	return nil
}

func (f *found) follow(tail local.Tail, records []local.Record) {
	*f = found{state: state{tail.WAL, tail.Checksum, tail.Commit}, pageSize: tail.PageSize}
	f.tail, f.tailPageSize = f.state, f.pageSize
	for _, r := range records {
		if r.Join != nil {
			f.joins = append(f.joins, *r.Join)
			continue
		}
		if e := r.Entry; r.Before == f.state.pos && e.Pre == f.state.checksum && e.PreCommit == f.state.commit {
			f.entries = append(f.entries, r)
			f.state = state{e.WAL, e.Post, e.Commit}
			f.pageSize = e.PageSize
		}
	}
}

// prove finds out how it is known that the database is at f.state or grew out of
// it, or else what the database is.
func (d *DB) prove(ctx context.Context, f *found, ev *local.Evidence) (err error) {
	f.seen = fingerprint(d.opts.Path)
	if ev.Proof, err = d.shortProof(f); err != nil || ev.Proof != "" {
		ev.Continues = ev.Proof != ""
		return err
	}
	with, alone, at, err := d.scan(ctx)
	if err != nil {
		return err
	}
	for _, s := range []state{with, alone} {
		if s.checksum == f.state.checksum && s.commit == f.state.commit {
			f.scanned = &at
			if s == alone && s != with {
				f.scanned.frame, f.long = 0, true
			}
			ev.Proof, ev.Continues = "scan", true
			return nil
		}
	}
	if f.cut(with) {
		f.scanned = &at
		ev.Proof, ev.Continues, ev.Spooled = "scan", true, len(f.entries)
		return nil
	}
	ev.Scanned, ev.Checksum, ev.Commit = true, with.checksum, with.commit
	ev.Found = fmt.Sprintf("one of %d pages with checksum %016x", with.commit, with.checksum)
	return nil
}

// cut drops the spooled entries behind state s, if the spool leads there: the
// database has lost them with the power, and goes on from s.
func (f *found) cut(s state) bool {
	same := func(o state) bool { return o.checksum == s.checksum && o.commit == s.commit }
	for n := len(f.entries) - 1; n >= 0; n-- {
		at, size := f.tail, f.tailPageSize
		if n > 0 {
			e := f.entries[n-1].Entry
			at, size = state{e.WAL, e.Post, e.Commit}, e.PageSize
		}
		if same(at) {
			f.entries, f.state, f.pageSize, f.lost = f.entries[:n], at, size, true
			return true
		}
	}
	return false
}

// shortProof is what can be known without reading the database.
func (d *DB) shortProof(f *found) (proof string, err error) {
	d.mu.Lock()
	noted := d.noted
	d.mu.Unlock()
	if noted {
		return "", nil // something went by: neither log nor spool has it
	}
	log, held, err := d.inLog(f)
	switch {
	case err != nil:
		return "", err
	case held:
		if d.opts.Guarded { // it has the page hashes, if the file is what it was
			f.clean, err = d.readClean(f.state)
		}
		return "wal", err
	case log && (!d.opts.Guarded || f.logSalt == f.state.pos.Salt):
		return "", nil
	}
	if f.clean, err = d.readClean(f.state); err != nil || f.clean == nil {
		return "", err
	}
	return "clean close", nil
}

// inLog reports whether there is a log, and whether it has the state's position
// or begins where the generation with that position ended.
func (d *DB) inLog(f *found) (log, held bool, err error) {
	file, err := d.openFile(d.opts.Path + "-wal")
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("capture: %w", err)
	}
	defer file.Close()
	h, err := readWALHeader(file)
	if err != nil {
		return false, false, nil // empty, or torn by a crash before its first sync
	}
	f.logSalt = h.Salt
	if f.joined(h.Salt) {
		return true, true, nil
	}
	if h.Salt != f.state.pos.Salt || f.state.pos.Frame == 0 {
		return true, false, nil
	}
	w, err := walk(file, h.PageSize, mark{salt: h.Salt, bigEnd: h.BigEndian, checksum: h.Checksum}, uint32(f.state.pos.Frame), &buffers{})
	return true, err == nil && w.end.frame == uint32(f.state.pos.Frame) && w.end.checksum == f.state.pos.Checksum, err
}

// joined reports whether the generation with these salts begins at the state.
func (f *found) joined(salt [2]uint32) bool {
	for _, j := range f.joins {
		if j.End == f.state.pos && j.Checksum == f.state.checksum && j.Next == salt {
			return true
		}
	}
	return false
}

// frame returns the frame up to which the view's log leads to the state.
func (f *found) frame(s state, v *view) (uint32, error) {
	switch {
	case len(v.commits) == 0:
		return v.mark.frame, nil // the file is all there is
	case f.joined(v.mark.salt):
		return 0, nil
	case s.pos.Frame != 0 && s.pos.Salt == v.mark.salt:
		if s.pos.Frame > uint64(v.mark.frame) {
			return 0, fmt.Errorf("capture: the WAL ends at frame %d, the replica is at %d: %w", v.mark.frame, s.pos.Frame, local.ErrChanged)
		}
		return uint32(s.pos.Frame), nil
	case f.scanned != nil && f.scanned.salt == v.mark.salt:
		return min(f.scanned.frame, v.mark.frame), nil
	case (f.scanned != nil || f.clean != nil) && f.seen == fingerprint(v.path):
		// The log was begun after the proof. If another had come and gone before
		// it, the file had changed.
		return 0, nil
	}
	return 0, fmt.Errorf("capture: the WAL: %w", local.ErrChanged)
}

// scan computes the state of the database with its log (up to the mark) and of
// the file alone: about a second per gigabyte.
func (d *DB) scan(ctx context.Context) (with, alone state, at mark, err error) {
	d.stats.passes.Add(1)
	p, err := d.openPin()
	if err != nil {
		return with, alone, at, err
	}
	defer p.close()
	if err := p.begin(); err != nil {
		return with, alone, at, err
	}
	defer p.end()
	d.mu.Lock()
	v, err := d.look()
	d.mu.Unlock()
	if err != nil {
		return with, alone, at, err
	}
	defer v.close()
	fi, err := v.file.Stat()
	if err != nil {
		return with, alone, at, fmt.Errorf("capture: %w", err)
	}
	with.commit, alone.commit = v.size, uint64(fi.Size())/uint64(v.pageSize)
	page := make([]byte, v.pageSize)
	lock := segment.LockPage(v.pageSize)
	for no := uint64(1); no <= max(with.commit, alone.commit); no++ {
		if no%1024 == 0 && ctx.Err() != nil {
			return with, alone, at, ctx.Err()
		}
		if no == lock {
			continue
		}
		if err := readAlone(v.file, no, page); err != nil {
			return with, alone, at, err
		}
		hash := segment.PageHash(no, page)
		if no <= alone.commit {
			alone.checksum ^= hash
		}
		if no > with.commit {
			continue
		}
		if v.frames[uint32(no)] != 0 && !v.onlyFile {
			if err := v.read(no, page); err != nil {
				return with, alone, at, err
			}
			hash = segment.PageHash(no, page)
		}
		with.checksum ^= hash
	}
	return with, alone, v.mark, nil
}
