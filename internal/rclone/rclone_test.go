package rclone

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/storetest"
	"github.com/outwash/outwash/s3store"
)

func TestConforms(t *testing.T) {
	s := Start(t)
	var n atomic.Int64
	storetest.Suite{
		Open: func(t *testing.T) objstore.Store {
			st, err := s3store.Open(t.Context(), s.URL(fmt.Sprintf("tests/%d", n.Add(1))), nil)
			if err != nil {
				t.Fatal(err)
			}
			return st
		},
		PartSize: 8 << 20,
		Keys:     2300,
	}.Run(t)
}
