package objstore_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/objstore/storetest"
)

func TestFileConforms(t *testing.T) {
	storetest.Suite{
		Open: func(t *testing.T) objstore.Store {
			dir := filepath.ToSlash(filepath.Join(t.TempDir(), "made", "on demand"))
			s, err := objstore.Open(context.Background(), "file://"+dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		PartSize: 100_000, // nothing special happens there; Keys: every one is an fsync
		Keys:     300,
	}.Run(t)
}

func TestMemConforms(t *testing.T) {
	storetest.Suite{
		Open:     func(*testing.T) objstore.Store { return objstore.NewMem() },
		PartSize: 100_000,
		Keys:     2300,
	}.Run(t)
}

// A wrapper without hooks changes nothing.
func TestFaultstoreConforms(t *testing.T) {
	storetest.Suite{
		Open:     func(*testing.T) objstore.Store { return faultstore.New(objstore.NewMem()) },
		PartSize: 100_000,
		Keys:     300,
	}.Run(t)
}
