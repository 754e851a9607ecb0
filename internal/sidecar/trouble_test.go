//go:build linux

package sidecar

import (
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/outwash/outwash/internal/capture"
	"github.com/outwash/outwash/replicate"
)

// sick is a log that can't be read for a while.
type sick struct {
	*os.File
	ill *atomic.Bool
}

func (s sick) ReadAt(p []byte, off int64) (int, error) {
	if s.ill.Load() {
		return 0, syscall.EIO
	}
	return s.File.ReadAt(p, off)
}

// TestUnreadableForAWhile: a commit that can't be captured counts as waiting, and is
// captured when that is over, though the application does nothing that would tell.
func TestUnreadableForAWhile(t *testing.T) {
	var ill atomic.Bool
	w := newWorld(t, Options{hooks: hooks{capture: func(o *capture.Options) {
		o.OpenFile = func(name string) (capture.File, error) {
			f, err := os.Open(name)
			if err != nil || !strings.HasSuffix(name, "-wal") {
				return f, err
			}
			return sick{f, &ill}, nil
		}
	}}})
	p := w.stock()
	p.Must("PRAGMA journal_mode=wal")
	p.Must(table)
	w.ready()
	p.Must("INSERT INTO t(a) VALUES(1)")
	before := w.sync()
	ill.Store(true)
	p.Must("INSERT INTO t(a) VALUES(2)")
	w.eventually("behind", func() bool {
		s := w.db.Status()
		return strings.Contains(s.Error, syscall.EIO.Error()) && s.LagSeconds > 0.5
	})
	ill.Store(false)
	w.eventually("captured", func() bool {
		s := w.db.Status()
		return s.TXID == before+1 && s.State == replicate.StateReplicating && s.Error == "" && s.LagSeconds == 0
	})
	w.same()
}
