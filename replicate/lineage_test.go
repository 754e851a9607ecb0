package replicate

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// After a loss of power only what was made durable proves anything.
func TestNoRepairAfterPowerLossWithoutDurablePosition(t *testing.T) {
	mc := lived(t, objstore.NewMem(), 1)
	mc.boot = "second"
	mc.m.sneak()
	err := mc.refused(ErrRepair)
	for _, part := range []string{"outwash adopt", "outwash restore -force"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
}

// Unless the database was found to be at the replica's end since.
func TestRepairOfWhatWasFoundAfterPowerLoss(t *testing.T) {
	mc := lived(t, objstore.NewMem(), 1)
	mc.boot = "second"
	segments := len(walk(t, mc.store))
	p := mc.open()
	if err := p.wait(t); err != nil {
		t.Fatal(err)
	}
	p.close(t)
	if n := len(walk(t, mc.store)); n != segments {
		t.Fatalf("%d segments were written", n-segments)
	}
	mc.m.sneak()
	p = mc.open()
	p.sync(t)
	p.close(t)
	if got := lastKind(t, mc.store); got != segment.Repair {
		t.Fatalf("the line ends with a %v", got)
	}
	mc.checkNewest()
}

func TestRepairAfterPowerLossWithDurablePosition(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 1)
	p := mc.open()
	for range 5 {
		mc.m.commit()
		p.sync(t)
	}
	mc.m.mu.Lock()
	mc.m.settled = 1 << 40 // a checkpoint
	mc.m.mu.Unlock()
	p.close(t)
	if mc.m.synced != mc.m.cur {
		t.Fatal("the file was not synced")
	}
	mc.boot = "second"
	mc.m.settled = 0
	mc.m.sneak()
	p = mc.open()
	p.sync(t)
	// The claim and the repair are of a session of which nothing was settled: the
	// power is lost again.
	p.kill()
	mc.boot = "third"
	mc.m.sneak()
	mc.refused(ErrRepair)
}

// A session that begins where it is proven that the file is says so at its claim.
func TestClaimTakesTheDurablePositionAlong(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 1)
	mc.m.settled = 1 << 40
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	p.close(t)
	mc.m.settled = 0
	p = mc.open(diesAt("claim-after"))
	mc.m.commit()
	<-p.Done()
	p.kill()
	mc.boot = "second"
	mc.m.sneak()
	p = mc.open()
	p.sync(t)
	p.close(t)
	if lastKind(t, mc.store) != segment.Repair {
		t.Fatal("no repair")
	}
	mc.checkNewest()
}

// Where commits are in the file at once, the power can fail just after an upload:
// what was uploaded had been proven before.
func TestPowerLossJustAfterUpload(t *testing.T) {
	for _, settles := range []bool{true, false} {
		t.Run(fmt.Sprint(settles), func(t *testing.T) {
			mc := newMachine(t, objstore.NewMem(), 1)
			mc.m.settles = settles
			p := mc.open(diesAtNth("log-after", 3))
			for range 3 {
				mc.m.commit()
				p.Sync(within(t))
			}
			<-p.Done()
			p.kill()
			if settles && mc.m.synced != mc.m.cur {
				t.Fatal("the file was not synced before the upload")
			}
			mc.boot = "second"
			mc.m.sneak()
			if !settles {
				mc.refused(ErrRepair)
				return
			}
			p = mc.open()
			p.sync(t)
			p.close(t)
			if lastKind(t, mc.store) != segment.Repair {
				t.Fatal("no repair")
			}
			mc.checkNewest()
			mc.checkAll()
		})
	}
}

// The same of the very first upload of a database that was there before.
func TestPowerLossJustAfterFirstContact(t *testing.T) {
	for _, at := range []string{"log-before", "log-after"} {
		t.Run(at, func(t *testing.T) {
			mc := newMachine(t, objstore.NewMem(), 1)
			mc.m.settles = true
			mc.m.commit()
			mc.m.entries = nil // nobody captured it
			p := mc.open(diesAt(at))
			<-p.Done()
			p.kill()
			if mc.m.synced != mc.m.cur {
				t.Fatal("the file was not synced before the upload")
			}
			mc.boot = "second"
			mc.m.sneak()
			p = mc.open()
			p.sync(t)
			p.close(t)
			want := segment.Repair
			if at == "log-before" {
				want = segment.Adopt
			}
			if got := lastKind(t, mc.store); got != want {
				t.Fatalf("the line ends with a %v", got)
			}
			mc.checkNewest()
			mc.checkAll()
		})
	}
}

// A durable position that is ahead of the replica, because the upload never
// happened, is not taken for one that the replica had.
func TestDurablePositionAheadOfReplica(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 1)
	mc.m.settles = true
	p := mc.open(diesAtNth("log-before", 3))
	for range 3 {
		mc.m.commit()
		p.Sync(within(t))
	}
	<-p.Done()
	p.kill()
	l, err := p.dir.Lineage()
	if err != nil || l.Durable.TXID <= l.Acknowledged().TXID {
		t.Fatalf("%+v, %v", l, err)
	}
	mc.boot = "second"
	mc.m.sneak()
	p = mc.open()
	p.sync(t)
	p.close(t)
	mc.checkNewest()
}

func TestDurablePositionsAreRare(t *testing.T) {
	clock := newAutoClock()
	mc := newMachine(t, objstore.NewMem(), 1)
	mc.clock = clock
	noted := make(chan uint64, 100)
	p := mc.open(func(o *EngineOptions) {
		o.Failpoint = func(name string) error {
			if name == "lineage-after" {
				l, err := o.Local.Lineage()
				noted <- l.Noted.TXID
				return err
			}
			return nil
		}
	})
	commit := func() int {
		mc.m.commit()
		for txid := p.sync(t); <-noted < txid; {
		}
		mc.m.mu.Lock()
		defer mc.m.mu.Unlock()
		return mc.m.syncs
	}
	if n := commit(); n != 0 {
		t.Fatalf("%d syncs of what is not in the file", n)
	}
	mc.m.mu.Lock()
	mc.m.settled = 1
	mc.m.mu.Unlock()
	if n := commit(); n != 1 {
		t.Fatalf("%d syncs when the first candidate was settled", n)
	}
	// Settled before they are uploaded, entries are proven first; so let the file lag.
	for range 5 {
		if n := commit(); n != 1 {
			t.Fatalf("%d syncs within ten seconds", n)
		}
	}
	<-clock.After(11 * time.Second)
	if n := commit(); n != 1 {
		t.Fatalf("%d syncs though the candidate isn't settled", n)
	}
	mc.m.mu.Lock()
	mc.m.settled = 4
	mc.m.mu.Unlock()
	if n := commit(); n != 2 {
		t.Fatalf("%d syncs after ten seconds", n)
	}
	mc.m.mu.Lock()
	mc.m.settled = 1 << 40
	mc.m.mu.Unlock()
	p.close(t)
	if mc.m.syncs != 3 {
		t.Fatalf("%d syncs at close", mc.m.syncs)
	}
	l, err := p.dir.Lineage()
	if err != nil || l.Durable.TXID != p.Status().TXID || l.Durable.File != mc.m.file {
		t.Fatalf("%+v, %v", l, err)
	}
}

// The engine keeps both files of the lineage: each acknowledgement writes the one
// without sessions only.
func TestAcknowledgementsDoNotRewriteSessions(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 1)
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	file := filepath.Join(p.dir.Path(), "lineage")
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		mc.m.commit()
		p.sync(t)
	}
	after, err := os.Stat(file)
	if err != nil || !os.SameFile(before, after) {
		t.Fatalf("the lineage was rewritten (%v)", err)
	}
	p.close(t)
	l, err := p.dir.Lineage()
	if err != nil || l.Noted.TXID != p.Status().TXID || l.Noted.Boot != "first" || l.Noted.File != mc.m.file || l.Acknowledged().TXID != l.Noted.TXID {
		t.Fatalf("%+v, %v", l, err)
	}
}
