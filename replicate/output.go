package replicate

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/outwash/outwash/internal/local"
)

// companions are the names that SQLite derives from a database's.
var companions = []string{"-wal", "-journal", "-shm"}

// checkOutput refuses to restore over something, unless force is given.
func checkOutput(output string, force bool) error {
	if output == "" {
		return fmt.Errorf("replicate: restore: no output file is given: %w", ErrConfig)
	}
	if fi, err := os.Lstat(filepath.Dir(output)); err != nil {
		return fmt.Errorf("replicate: restore to %s: %w", output, err)
	} else if fi.Mode()&fs.ModeSymlink == 0 && !fi.IsDir() {
		return fmt.Errorf("replicate: restore to %s: %s is not a directory: %w", output, filepath.Dir(output), ErrConfig)
	}
	if fi, err := os.Lstat(output); err == nil && !fi.Mode().IsRegular() {
		if fi.Mode()&fs.ModeSymlink != 0 {
			return fmt.Errorf("replicate: %s is a symbolic link: %w: name the file that it leads to", output, ErrOutputExists)
		}
		return fmt.Errorf("replicate: %s is not a regular file: %w: restore to another name", output, ErrOutputExists)
	}
	if force {
		// Its program would go on with the old file, and nobody would ever see that.
		if err := local.InUse(output); err != nil {
			return fmt.Errorf("replicate: restore over %s: stop the process that uses it: %w", output, err)
		}
		return nil
	}
	for _, suffix := range append([]string{""}, companions...) {
		if _, err := os.Lstat(output + suffix); err == nil {
			return fmt.Errorf("replicate: %s: %w: restore to another file, or with -force to replace it", output+suffix, ErrOutputExists)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replicate: restore to %s: %w", output, err)
		}
	}
	return nil
}

// output is a database file to make.
type output struct {
	path  string
	force bool
	// before is called when the temporary file is about to get its name; it gives what
	// undoes it, if that fails.
	before func(temp string) (undo func())
}

// with lets fill make a temporary file beside the output, and makes it the output
// when fill succeeds. Otherwise nothing of it is left.
func (o output) with(fill func(*os.File) error) (err error) {
	output, force := o.path, o.force
	var b [8]byte
	rand.Read(b[:])
	temp := filepath.Join(filepath.Dir(output), "."+filepath.Base(output)+".restoring-"+hex.EncodeToString(b[:]))
	mode, old := fs.FileMode(0o644), fs.FileInfo(nil) // less the umask, as SQLite does it
	if force {
		if old, _ = os.Lstat(output); old != nil {
			mode = 0o600
		}
	}
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("replicate: restore to %s: %w", output, err)
	}
	defer func() {
		f.Close() // a second time after success: no harm
		for _, suffix := range append([]string{""}, companions...) {
			os.Remove(temp + suffix)
		}
	}()
	if old != nil { // who could read the old database can read the new one, and nobody else
		chownLike(f, old)
		if err := f.Chmod(old.Mode().Perm()); err != nil {
			return fmt.Errorf("replicate: %w %s: %w", errWrite, temp, err)
		}
	}
	if err := fill(f); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("replicate: %w %s: %w", errWrite, temp, err)
	}
	if err := checkOutput(output, force); err != nil {
		return err
	}
	if force {
		return o.replaceDatabase(temp)
	}
	if err := o.publish(temp); err != nil {
		return err
	}
	return syncDir(output)
}

// publish gives temp its name, with what is to be done before.
func (o output) publish(temp string) error {
	undo := o.before(temp)
	err := publishNew(temp, o.path)
	if err != nil {
		undo()
	}
	return err
}

// publishNew gives temp the name output unless that is taken.
func publishNew(temp, output string) error {
	err := os.Link(temp, output)
	if err == nil {
		return nil
	}
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("replicate: %s: %w: it was made during the restore", output, ErrOutputExists)
	}
	// No hard links here: take the name with an empty file, which nobody else
	// can do then, and replace that. A crash between leaves the empty file.
	f, err := os.OpenFile(output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("replicate: %s: %w: it was made during the restore", output, ErrOutputExists)
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(temp, output)
	}
	if err != nil {
		return fmt.Errorf("replicate: restore to %s: %w", output, err)
	}
	return nil
}

// replaceDatabase puts temp in the place of a database and of everything that
// belongs to it. Whenever it is cut off, no WAL or journal of the old database
// lies beside the new one, where SQLite would apply it:
//
//  1. the old database gets another name: from here on there is none, and a WAL
//     or journal beside a missing database is discarded by SQLite;
//  2. its WAL, journal, -shm and -replicated follow it, so that until the end
//     the old database exists complete;
//  3. the new one gets the name;
//  4. the old one is deleted.
//
// If step 1 to 3 fails, what was moved is moved back, the database last.
func (o output) replaceDatabase(temp string) (err error) {
	output := o.path
	if _, err := os.Lstat(output + local.Suffix); err == nil {
		dir, err := local.Open(output) // nobody replicates it now
		if err != nil {
			return fmt.Errorf("replicate: restore over %s: stop the process that uses it: %w", output, err)
		}
		defer dir.Close()
	}
	aside := temp + "-old"
	var moved []string
	defer func() {
		if err == nil {
			return
		}
		for i := len(moved) - 1; i >= 0; i-- {
			err = errors.Join(err, os.Rename(aside+moved[i], output+moved[i]))
		}
	}()
	names := append(append([]string{""}, companions...), local.Suffix)
	for i, suffix := range names {
		e := os.Rename(output+suffix, aside+suffix)
		if e == nil {
			moved = append(moved, suffix)
		} else if !errors.Is(e, fs.ErrNotExist) {
			return fmt.Errorf("replicate: restore over %s: %w", output, e)
		}
		if i == 0 { // before anything else moves, and before it can get lost
			if err := syncDir(output); err != nil {
				return err
			}
		}
	}
	if err := syncDir(output); err != nil {
		return err
	}
	if err := o.publish(temp); err != nil {
		return err
	}
	if err := syncDir(output); err != nil {
		moved = nil // the new database has the name
		return err
	}
	for _, suffix := range moved {
		if e := os.RemoveAll(aside + suffix); e != nil {
			moved = nil
			return fmt.Errorf("replicate: %s is restored, but the old database could not be deleted: %w", output, e)
		}
	}
	return nil
}

// syncDir makes changes of names in output's directory durable.
func syncDir(output string) error {
	if runtime.GOOS == "windows" { // directories can't be synced there
		return nil
	}
	d, err := os.Open(filepath.Dir(output))
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return fmt.Errorf("replicate: %w the directory of %s: %w", errWrite, output, err)
	}
	return nil
}
