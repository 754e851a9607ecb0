package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// The name begins as the spool's does: what encrypts that encrypts this, too.
const scratchName = "spool-scratch"

// OpenScratch makes an empty file for what need not outlive the process.
func (d *Dir) OpenScratch() (File, error) {
	f, err := d.fs.OpenFile(d.file(scratchName), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("local: %w", err)
	}
	return f, nil
}

// RemoveScratch removes the file, also one that a killed process left.
func (d *Dir) RemoveScratch() error {
	if err := os.Remove(d.file(scratchName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("local: %w", err)
	}
	return nil
}
