package main

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
)

// afterDelete is called when a store with the scheme "deleting" has deleted.
var afterDelete func()

func init() {
	objstore.Register("deleting", objstore.Scheme{Open: func(_ context.Context, raw string, _ objstore.Settings) (objstore.Store, error) {
		u, err := url.Parse(raw)
		if err != nil {
			return nil, err
		}
		inner, err := objstore.NewFile(u.Path)
		if err != nil {
			return nil, err
		}
		s := faultstore.New(inner)
		s.SetHooks(faultstore.Hooks{After: func(_ context.Context, c faultstore.Call, err error) error {
			if c.Op == faultstore.Delete {
				afterDelete()
			}
			return err
		}})
		return s, nil
	}})
}

// What was deleted before an interruption is said: it is gone for good.
func TestPruneInterrupted(t *testing.T) {
	dir := t.TempDir()
	if err := buildReplica(dir, ""); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-48 * time.Hour)
	for range 1500 { // more than a batch
		file := filepath.Join(dir, segment.DataKey(segment.NewID()))
		if err := os.WriteFile(file, []byte("orphan"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, old, old); err != nil {
			t.Fatal(err)
		}
	}
	ctx, interrupt := context.WithCancel(t.Context())
	afterDelete = interrupt
	var out, errOut strings.Builder
	code := run(ctx, []string{"prune", "-yes", "deleting://" + filepath.ToSlash(dir)}, strings.NewReader(""), &out, &errOut)
	const want = "outwash: prune: interrupted (1,000 objects, 6.0 kB, were deleted before)\n"
	if code != codeInterrupted || errOut.String() != want || out.Len() > 0 {
		t.Errorf("exit code %d\n%s%sexpected %q", code, out.String(), errOut.String(), want)
	}
	left, err := filepath.Glob(filepath.Join(dir, "data", "*"))
	if err != nil || len(left) < 500 || len(left) >= 1500 {
		t.Errorf("%d data objects are left: %v", len(left), err)
	}
}
