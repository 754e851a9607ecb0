//go:build !linux

package objstore

import (
	"fmt"
	"os"
)

// linkNew gives a file its final name unless that is taken.
func linkNew(from, to string) error {
	err := os.Link(from, to)
	if err != nil && noLinks(err) {
		return fmt.Errorf("the file system has no hard links, so two writers could not be told apart: %w: %w", ErrUnsupported, err)
	}
	return err
}
