//go:build !unix

package objstore

import (
	"errors"
	"fmt"
	"io/fs"
)

func noLinks(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

func etagOf(st fs.FileInfo) string {
	return fmt.Sprintf("%x-%x", st.Size(), st.ModTime().UnixNano())
}
