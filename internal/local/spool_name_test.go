package local_test

import (
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/outwash/outwash/internal/crashdisk"
	"github.com/outwash/outwash/internal/local"
)

// TestNewSpoolKeepsItsName: what a new spool has synced is there after a loss of
// power, and so is its name.
func TestNewSpoolKeepsItsName(t *testing.T) {
	for seed := range uint64(20) {
		path := filepath.Join(t.TempDir(), "t.db")
		disk := crashdisk.New()
		join := func() (joins int) {
			t.Helper()
			d, err := local.OpenFS(path, disk)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if err := d.PreparePending(); err != nil {
				t.Fatal(err)
			}
			s, err := d.OpenSpool()
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			recs, err := s.Records()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Join(local.Join{Checksum: 1}); err != nil {
				t.Fatal(err)
			}
			if err := s.Sync(); err != nil {
				t.Fatal(err)
			}
			return len(recs)
		}
		join()
		disk.Kill()
		if err := disk.PowerLoss(rand.New(rand.NewPCG(seed, 1))); err != nil {
			t.Fatal(err)
		}
		disk.Start()
		if n := join(); n != 1 {
			t.Fatal(n, "records")
		}
	}
}
