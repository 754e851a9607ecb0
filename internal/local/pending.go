package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// The file "pending" says durably that the database has changes that are neither
// in the WAL nor in the spool nor in the replica: nothing but the database's own
// content proves what it is. Its length never changes, and its first block is
// there from the beginning, so that the note can be made when the disk is full.
const (
	pendingYes = "repair pending\n"
	pendingNo  = "all captured..\n"
)

// Pending reports whether the note was made.
func (d *Dir) Pending() (bool, error) {
	b, err := os.ReadFile(d.file("pending"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("local: %w", err)
	}
	// Whatever isn't the other word is the note: a lost block, say.
	return string(b) != pendingNo, nil
}

// PreparePending makes room for the note.
func (d *Dir) PreparePending() error {
	if _, err := os.Stat(d.file("pending")); err == nil {
		return nil
	}
	return d.Replace("pending", []byte(pendingNo), true)
}

// SetPending makes the note or takes it back, durably: with a note that a loss of
// power has brought back, the log is no proof any more.
func (d *Dir) SetPending(pending bool) error {
	text := pendingNo
	if pending {
		text = pendingYes
	}
	f, err := d.fs.OpenFile(d.file("pending"), os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("local: %w", err)
	}
	_, err = f.WriteAt([]byte(text), 0)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("local: note a pending repair: %w", err)
	}
	return nil
}
