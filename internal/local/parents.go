package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// MakeParents makes the directory in which path is to be, and those above it, with the
// mode that mkdir gives. It returns those that were missing, the outermost first.
func MakeParents(path string) (made []string, err error) {
	var missing []string
	dir := filepath.Dir(path)
	for {
		_, err := os.Lstat(dir)
		if err == nil {
			break
		}
		up := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || up == dir {
			return nil, fmt.Errorf("local: %w", err)
		}
		missing = append(missing, dir)
		dir = up
	}
	for i := len(missing) - 1; i >= 0; i-- {
		err := os.Mkdir(missing[i], 0o777)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			made = append(made, missing[i])
			err = OS{}.SyncDir(filepath.Dir(missing[i]))
		}
		if err != nil {
			for j := len(made) - 1; j >= 0; j-- {
				_ = os.Remove(made[j])
			}
			return nil, fmt.Errorf("local: %w", err)
		}
	}
	return made, nil
}
