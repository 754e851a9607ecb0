package faultstore_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
)

func TestFaults(t *testing.T) {
	ctx := t.Context()
	s := faultstore.New(objstore.NewMem())

	s.SetHooks(faultstore.Hooks{Before: func(_ context.Context, c faultstore.Call) error {
		if c.Op == faultstore.Create && c.Key == "log/1" && c.N == 1 {
			return faultstore.ErrInjected
		}
		return nil
	}})
	if err := s.Create(ctx, "log/1", nil); !errors.Is(err, faultstore.ErrInjected) || objstore.Permanent(err) {
		t.Errorf("first create: %v", err)
	}
	if err := s.Create(ctx, "log/1", []byte("abc")); err != nil {
		t.Errorf("second create: %v", err)
	}

	// A lost reply: the error is seen, the object is there.
	s.SetHooks(faultstore.Hooks{After: func(_ context.Context, c faultstore.Call, err error) error {
		return errors.Join(err, faultstore.ErrInjected)
	}})
	if err := s.Create(ctx, "log/2", []byte("abc")); !errors.Is(err, faultstore.ErrInjected) {
		t.Errorf("create: %v", err)
	}
	if _, _, err := s.Inner().Get(ctx, "log/2", objstore.Range{}); err != nil {
		t.Errorf("the lost create did not happen: %v", err)
	}
	if _, err := s.Upload(ctx, "data/1", strings.NewReader("x")); !errors.Is(err, faultstore.ErrInjected) {
		t.Errorf("upload: %v", err)
	}
	if _, _, err := s.Get(ctx, "log/2", objstore.Range{}); !errors.Is(err, faultstore.ErrInjected) {
		t.Errorf("get: %v", err)
	}
	if err := s.Delete(ctx, "log/2"); !errors.Is(err, faultstore.ErrInjected) {
		t.Errorf("delete: %v", err)
	}
	n := 0
	for info, err := range s.List(ctx, "", "") {
		if n++; n == 3 && !errors.Is(err, faultstore.ErrInjected) {
			t.Errorf("the listing went on with %+v, %v", info, err)
		}
	}
	if n != 3 {
		t.Errorf("%d yields, want log/1, data/1 and the error", n)
	}

	s.SetHooks(faultstore.Hooks{Body: func(_ faultstore.Call, b io.ReadCloser) io.ReadCloser {
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(b, 2), iotest.ErrReader(faultstore.ErrInjected)), b}
	}})
	body, _, err := s.Get(ctx, "log/1", objstore.Range{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(body); string(got) != "ab" || !errors.Is(err, faultstore.ErrInjected) {
		t.Errorf("read %q, %v", got, err)
	}
	if c, total := s.Count(faultstore.Create), s.Total(); c != 3 || total != 8 {
		t.Errorf("counted %d creates and %d calls, want 3 and 8", c, total)
	}
}
