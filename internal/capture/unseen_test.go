package capture

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

// TestUnseenIsBacklog: what was given up, went by or can't be captured has no entry
// that waits, and is behind all the same until a pass has found it.
func TestUnseenIsBacklog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.db")
	dir, err := local.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	now := time.UnixMicro(1000)
	d, err := Open(Options{Path: path, Dir: dir, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	check := func(what string, oldest int64) {
		t.Helper()
		if b := d.Backlog(); b.Oldest != oldest {
			t.Errorf("%s: the oldest is of %d, expected %d", what, b.Oldest, oldest)
		}
	}
	d.setPhase(live)
	check("nothing", 0)
	d.queue.push(&queued{entry: &segment.Entry{FirstRaw: 700}})
	if err := d.giveUp(errors.New("full")); err != nil {
		t.Fatal(err)
	}
	check("given up", 700)
	d.setPhase(idle)
	d.setPhase(rebasing)
	check("compared", 700)
	d.setPhase(live)
	check("found", 0)
	d.loseTrack("test")
	now = now.Add(time.Second)
	d.note(errors.New("a repair that fails"))
	now = now.Add(time.Second)
	d.note(errors.New("and again, otherwise"))
	check("went by", 1000)
	d.setPhase(live)
	check("can't be captured", 1_001_000)
	d.queue.push(&queued{entry: &segment.Entry{FirstRaw: 900}})
	check("what waits longer", 900)
	d.queue.drop()
	d.note(nil)
	check("captured", 0)
}
