package replicate

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// elsewhere is another machine, on which the newest state is restored.
func (mc *machine) elsewhere(seed uint64, change ...func(*RestoreOptions)) *machine {
	mc.t.Helper()
	other := newMachine(mc.t, mc.store, seed)
	o := RestoreOptions{Store: mc.store, Output: other.db, Database: other.db}
	for _, f := range change {
		f(&o)
	}
	res, err := Restore(within(mc.t), o)
	if err != nil {
		mc.t.Fatal(err)
	}
	if len(res.Notes) > 0 {
		mc.t.Error(res.Notes)
	}
	b, err := os.ReadFile(other.db)
	if err != nil {
		mc.t.Fatal(err)
	}
	st := *mc.m.cur
	if !bytes.Equal(b, st.image()) {
		mc.t.Fatal("it isn't the newest state")
	}
	other.m.cur, other.m.file = &st, local.Identity(other.db)
	other.m.states[st.sum] = &st
	return other
}

// A database that is restored to go on from it is changed before anything has seen
// it: the changes are the replica's next entry.
func TestRestoredThenChanged(t *testing.T) {
	for _, trailing := range []bool{false, true} {
		mc := lived(t, objstore.NewMem(), 1)
		if trailing { // a session that ended with its claim
			p := mc.open(func(o *EngineOptions) {
				o.Failpoint = func(name string) error {
					if name == "claim-after" {
						return errors.New("killed")
					}
					return nil
				}
			})
			if err := p.wait(t); err != nil {
				t.Fatal(err)
			}
			cur := mc.m.cur
			mc.m.commit()
			<-p.Done()
			p.kill()
			mc.m.cur = cur
		}
		other := mc.elsewhere(2)
		other.m.sneak()
		p := other.open()
		if err := p.wait(t); err != nil {
			t.Fatalf("a claim at the end: %t: %v", trailing, err)
		}
		if end := walk(t, mc.store); end[len(end)-1].Header.Session.String() != p.Status().Session {
			t.Error("let in before it was known whether another machine had done the same")
		}
		other.m.commit()
		p.sync(t)
		p.close(t)
		segs := walk(t, mc.store)
		kinds := map[segment.EntryKind]int{}
		for _, o := range segs {
			for _, e := range o.Entries {
				kinds[e.Kind]++
			}
		}
		if kinds[segment.Repair] != 1 {
			t.Errorf("%v", kinds)
		}
		other.checkNewest()
	}
}

// It is proven after another crash, and another start of the machine, too.
func TestRestoredThenClaimedThenPowerLoss(t *testing.T) {
	mc := lived(t, objstore.NewMem(), 1)
	other := mc.elsewhere(2)
	other.m.sneak()
	p := other.open(func(o *EngineOptions) {
		o.Failpoint = func(name string) error {
			if name == "claim-after" {
				return errors.New("power is gone")
			}
			return nil
		}
	})
	<-p.Done()
	p.kill()
	other.boot = "second"
	other.m.sneak()
	p = other.open()
	p.sync(t)
	p.close(t)
	other.checkNewest()
}

// What proves nothing: a restore to look at something, another file, a replica that
// has gone on.
func TestRestoredProvesNoMore(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*RestoreOptions)
		then   func(mc, other *machine)
		says   string
	}{
		{"to look at it", func(o *RestoreOptions) { o.Database = "" }, nil, "restored, perhaps"},
		{"by TXID", func(o *RestoreOptions) { o.TXID = 7 }, nil, "restored, perhaps"},
		{"another file", nil, func(_, other *machine) { other.m.file = "another" }, "went its own way"},
		{"the replica went on", nil, func(mc, _ *machine) {
			p := mc.open()
			mc.m.commit()
			p.sync(t)
			p.close(t)
		}, "was restored from the replica's TXID 7 and has changed since; the replica has gone on"},
		{"somebody else claimed it", nil, func(mc, _ *machine) {
			third := mc.elsewhere(3)
			third.m.sneak()
			p := third.open()
			p.sync(t)
			p.close(t)
		}, "was restored from the replica's TXID 7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mc := lived(t, objstore.NewMem(), 1)
			if n := walk(t, mc.store); n[len(n)-1].Header.MaxTXID != 7 {
				t.Fatalf("the line ends at %d", n[len(n)-1].Header.MaxTXID)
			}
			other := mc.elsewhere(2, func(o *RestoreOptions) {
				if c.change != nil {
					c.change(o)
				}
			})
			if c.change != nil {
				if files, _ := os.ReadDir(filepath.Dir(other.db)); len(files) != 1 {
					t.Errorf("it left %v", files)
				}
			}
			other.m.sneak()
			if c.then != nil {
				c.then(mc, other)
			}
			if err := other.refused(ErrDiverged); !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v does not say %q", err, c.says)
			}
		})
	}
}

// Two machines restore the same end, and both go on, at the same moment: the claim
// tells which of them was first, and the replica is that one's alone.
func TestTwoRestoredGoOn(t *testing.T) {
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	for range rounds {
		mc := lived(t, objstore.NewMem(), 1)
		var both [2]*machine
		var procs [2]*process
		for i := range both {
			both[i] = mc.elsewhere(uint64(i) + 2)
			both[i].m.sneak()
		}
		for i := range both {
			procs[i] = both[i].open()
		}
		won := -1
		for i, p := range procs {
			switch err := p.wait(t); {
			case err == nil && won < 0:
				won = i
			case err == nil:
				t.Fatal("both go on")
			case !errors.Is(err, ErrFenced) && !errors.Is(err, ErrDiverged):
				t.Fatal(err)
			}
		}
		if won < 0 {
			t.Fatal("neither goes on")
		}
		both[won].m.commit()
		procs[won].sync(t)
		for _, p := range procs {
			p.kill()
		}
		both[won].checkNewest()
	}
}

// The record is left if and only if the database is.
func TestRestoreLeavesRecordWithDatabase(t *testing.T) {
	mc := replica(t)
	dir := t.TempDir()
	out := filepath.Join(dir, "db")
	opts := RestoreOptions{Store: mc.store, Output: out, Database: out, Check: func(string) error {
		return os.WriteFile(out, []byte("new"), 0o600)
	}}
	if _, err := Restore(t.Context(), opts); !errors.Is(err, ErrOutputExists) {
		t.Fatal(err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Fatalf("%v", files)
	}
	// Over a database that was replicated: what was known of that one is gone.
	opts.Check, opts.Force = nil, true
	d, err := local.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.SaveLineage(local.Lineage{Database: segment.NewID()}); err != nil {
		t.Fatal(err)
	}
	d.Close()
	if _, err := Restore(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	l, err := local.ReadOnly(out).Lineage()
	if err != nil || !l.Database.IsZero() || !l.Restored.Of(local.Identity(out)) {
		t.Fatalf("%+v, %v", l, err)
	}
	// It fails after the old one was moved away: that is put back, with what it had.
	// (The name is taken by who is faster.)
	was := l.Restored
	o := output{out, true, func(temp string) func() {
		undo, err := local.NoteRestored(out, temp, local.Restored{Database: segment.NewID()})
		if err != nil {
			t.Fatal(err)
		}
		os.WriteFile(out, nil, 0o600)
		return func() { os.Remove(out); undo() }
	}}
	err = o.with(func(*os.File) error { return nil })
	if !errors.Is(err, ErrOutputExists) {
		t.Fatal(err)
	}
	if got := local.ReadOnly(out).Restored(); got != was || !got.Of(local.Identity(out)) {
		t.Fatalf("%+v, it was %+v", got, was)
	}
	if files, _ := os.ReadDir(dir); len(files) != 2 {
		t.Fatalf("%v", files)
	}
}

// What a spool has behind the replica's end isn't left behind: a database beside it
// would not have it, and it would count as lost.
func TestRestoreBesideSpool(t *testing.T) {
	mc := lived(t, objstore.NewMem(), 1)
	segs := walk(t, mc.store)
	end := tailOf(segs[len(segs)-1])
	out := filepath.Join(t.TempDir(), "db")
	d, err := local.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.OpenSpool()
	if err != nil {
		t.Fatal(err)
	}
	e := mc.m.commit()
	w := s.NewEntry()
	if _, err := io.Copy(w, io.NewSectionReader(e.Body, 0, e.Body.Size())); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(e, end.WAL); err != nil {
		t.Fatal(err)
	}
	s.Close()
	d.Close()
	opts := RestoreOptions{Store: mc.store, Output: out, Database: out}
	_, err = Restore(t.Context(), opts)
	if !errors.Is(err, ErrOutputExists) {
		t.Fatal(err)
	}
	for _, part := range []string{"transactions (1) behind TXID 7", "outwash replicate -once -restore-if-db-not-exists", "-force"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not say %q", err, part)
		}
	}
	if _, err := os.Stat(out); !os.IsNotExist(err) {
		t.Error(err)
	}
	// A past state is nobody's end; what was captured then has to follow it.
	past := opts
	past.TXID = segs[1].Header.MaxTXID
	if _, err := Restore(t.Context(), past); err != nil {
		t.Fatal(err)
	}
	os.Remove(out)
	opts.Force = true
	if _, err := Restore(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
}

// Directories that are missing are made, and said; a restore that fails takes them
// back.
func TestRestoreMakesDirectories(t *testing.T) {
	mc := replica(t)
	dir := t.TempDir()
	opts := RestoreOptions{Store: mc.store, Output: filepath.Join(dir, "a", "b", "db"), Parents: true}
	for _, check := range []error{errors.New("no"), nil} {
		opts.Check = func(string) error { return check }
		res, err := Restore(t.Context(), opts)
		if !errors.Is(err, check) {
			t.Fatal(err)
		}
		if check != nil {
			if files, _ := os.ReadDir(dir); len(files) > 0 {
				t.Fatalf("%v", files)
			}
			continue
		}
		if res.Directory != filepath.Join(dir, "a") {
			t.Fatal(res.Directory)
		}
	}
	if _, err := os.Stat(opts.Output); err != nil {
		t.Fatal(err)
	}
	opts.Output = filepath.Join(dir, "a", "b", "other")
	if res, err := Restore(t.Context(), opts); err != nil || res.Directory != "" {
		t.Fatal(res.Directory, err)
	}
	opts.Output = filepath.Join(dir, "a", "b", "db", "below-a-file")
	if _, err := Restore(t.Context(), opts); err == nil {
		t.Fatal("below a file")
	}
}
