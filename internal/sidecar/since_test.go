//go:build linux

package sidecar

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/outwash/outwash/replicate"
)

// Monitoring sees since when nothing goes on, and what was done in the sessions before.
func TestStatusSince(t *testing.T) {
	before := time.Now()
	db, err := Open(t.Context(), Options{
		Path: filepath.Join(t.TempDir(), "app.db"),
		Open: func(context.Context) (replicate.Store, error) { return nil, replicate.ErrConfig },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(t.Context())
	if s := db.Status(); s.StateSince.Before(before) {
		t.Errorf("%s since %s", s.State, s.StateSince)
	}
	<-db.Ready()
	s := db.Status()
	if s.State != replicate.StateFailed || s.StateSince.Before(before) || s.StateSince.After(time.Now()) {
		t.Errorf("%s since %s", s.State, s.StateSince)
	}
}
