package replicate

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
)

// replica makes one with a snapshot, a large entry, patches and merges.
func replica(t *testing.T) *machine {
	mc := newMachine(t, objstore.NewMem(), 21)
	grown(mc.m, 300)
	mc.m.notOurs = true
	p := mc.open()
	for p.Status().State != StateReplicating {
		if p.Err() != nil {
			t.Fatal(p.Err())
		}
	}
	mc.m.notOurs = false
	for i := range 6 {
		mc.m.commit()
		if i == 3 {
			mc.m.mu.Lock()
			large(mc.m, 200)
			mc.m.mu.Unlock()
		}
		p.sync(t)
	}
	p.close(t)
	return mc
}

// Whatever is damaged or taken away: a restore fails, and says which object it was.
func TestDamage(t *testing.T) {
	mc := replica(t)
	all := keys(t, mc.store, "")
	last := all[0]
	for _, k := range all {
		if strings.HasPrefix(k, segment.LogPrefix) {
			last = k
		}
	}
	snapshot := keys(t, mc.store, segment.SnapshotPrefix)[0]
	superseded := 0
	for _, key := range all {
		if key == segment.LogKey(1) || key == segment.LogKey(2) {
			continue // the snapshot of TXID 2 stands for them: a restore doesn't read them
		}
		whole := get(t, mc.store, key)
		damage := map[string][]byte{"cut": whole[:len(whole)-1], "half": whole[:len(whole)/2], "empty": {}, "gone": nil}
		for i, n := range []int{0, 8, len(whole) / 3, len(whole) / 2, len(whole) - 1} {
			b := bytes.Clone(whole)
			b[n] ^= 0x10
			damage["flip"+string(rune('0'+i))] = b
		}
		for name, b := range damage {
			store := clone(t, mc.store)
			if b == nil {
				store.Delete(t.Context(), key)
			} else {
				put(t, store, key, b)
			}
			_, image, err := restoreTo(t, store)
			switch {
			case name == "gone" && key == last:
				if err != nil || bytes.Equal(image, mc.m.cur.image()) { // can't be told
					t.Errorf("newest log object gone: %v", err)
				}
			case name == "gone" && key == segment.InfoKey:
				if !errors.Is(err, ErrNoReplica) {
					t.Errorf("no root: %v", err)
				}
			case key == segment.InfoKey && err == nil && bytes.Equal(image, mc.m.cur.image()):
				// Text for people: a flip in it or a lost newline does no harm.
			case err == nil && name == "flip3" && strings.HasPrefix(key, segment.DataPrefix) && bytes.Equal(image, mc.m.cur.image()):
				// In a block of whose pages there are later images: it isn't read.
				superseded++
			case err == nil:
				t.Errorf("%s %s: restored", key, name)
			case name == "gone" && key == snapshot:
				if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), key) {
					t.Errorf("%s gone: %v", key, err)
				}
			case !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForeign) && !errors.Is(err, ErrVersion):
				t.Errorf("%s %s: %v", key, name, err)
			case !strings.Contains(err.Error(), key):
				t.Errorf("%s %s is not named: %v", key, name, err)
			}
		}
	}
	if superseded > 1 {
		t.Errorf("%d times damage did no harm", superseded)
	}
}

// An object of another replica, and one of the same replica at another key.
func TestForeignSegments(t *testing.T) {
	a, b := replica(t), replica(t)
	for _, key := range keys(t, a.store, segment.LogPrefix)[2:] {
		store := clone(t, a.store)
		put(t, store, key, get(t, b.store, segment.LogKey(2)))
		if _, _, err := restoreTo(t, store); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s of another replica: %v", key, err)
		}
		put(t, store, key, get(t, a.store, segment.LogKey(1)))
		if _, _, err := restoreTo(t, store); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s is log/1: %v", key, err)
		}
	}
}

func TestTimestamps(t *testing.T) {
	mc := newMachine(t, objstore.NewMem(), 5)
	p := mc.open()
	for range 25 {
		mc.m.commit()
		p.sync(t)
	}
	p.close(t)
	var entries []*segment.Entry
	for _, o := range walk(t, mc.store) {
		for _, e := range o.Entries {
			if e.Commit > 0 {
				entries = append(entries, e)
			}
		}
	}
	at := func(us int64) (RestoreResult, error) {
		res, _, err := restoreTo(t, mc.store, func(o *RestoreOptions) { o.Timestamp = time.UnixMicro(us) })
		return res, err
	}
	for i, e := range entries {
		for _, d := range []int64{-1, 0, 1} {
			if i == 0 && d < 0 {
				continue
			}
			want := e
			if d < 0 {
				want = entries[i-1]
			}
			if i+1 < len(entries) && entries[i+1].LastMono <= e.LastMono+d {
				continue
			}
			if d < 0 && entries[i-1].LastMono == e.LastMono {
				continue
			}
			res, err := at(e.LastMono + d)
			if err != nil || res.TXID != want.MaxTXID {
				t.Fatalf("entry %d %+d: TXID %d, %v; expected %d", i, d, res.TXID, err, want.MaxTXID)
			}
		}
	}
	if res, err := at(entries[len(entries)-1].LastMono + 1e12); err != nil || !res.Latest {
		t.Fatalf("future: %+v, %v", res, err)
	}
	if _, err := at(1000); !errors.Is(err, ErrNotRestorable) || !strings.Contains(err.Error(), "earliest is TXID 2 ") {
		t.Fatalf("past: %v", err)
	}
}

func TestTargetsOutOfReach(t *testing.T) {
	mc := replica(t)
	try := func(txid uint64) error {
		_, _, err := restoreTo(t, mc.store, func(o *RestoreOptions) { o.TXID = txid })
		return err
	}
	segs := walk(t, mc.store)
	last := segs[len(segs)-1].Header.MaxTXID
	if err := try(last + 5); !errors.Is(err, ErrNotRestorable) || !strings.Contains(err.Error(), "newest is") {
		t.Error(err)
	}
	if err := try(1); !errors.Is(err, ErrNotRestorable) || !strings.Contains(err.Error(), "earliest is TXID 2 ") {
		t.Error(err)
	}
	_, _, err := restoreTo(t, objstore.NewMem())
	if !errors.Is(err, ErrNoReplica) {
		t.Error(err)
	}
	// The log before the snapshot is gone, as retention will have it.
	store := clone(t, mc.store)
	store.Delete(t.Context(), segment.LogKey(2))
	if _, _, err := restoreTo(t, store); err != nil {
		t.Error(err)
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	mc := replica(t)
	want, _, err := restoreTo(t, mc.store)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	got, err := Restore(t.Context(), RestoreOptions{Store: mc.store, Output: filepath.Join(dir, "x"), DryRun: true})
	if err != nil || got.TXID != want.TXID || got.Checksum != want.Checksum || got.Bytes != want.Bytes || got.Snapshot != want.Snapshot || !got.Latest {
		t.Fatalf("%+v, %v; expected %+v", got, err, want)
	}
	if files, _ := os.ReadDir(dir); len(files) > 0 {
		t.Fatal(files)
	}
}

func TestOutput(t *testing.T) {
	mc := replica(t)
	image := mc.m.cur.image()
	for _, suffix := range []string{"", "-wal", "-journal", "-shm"} {
		out := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(out+suffix, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		opts := RestoreOptions{Store: mc.store, Output: out}
		if _, err := Restore(t.Context(), opts); !errors.Is(err, ErrOutputExists) || !strings.Contains(err.Error(), out+suffix) {
			t.Fatalf("over %q: %v", suffix, err)
		}
		dir, err := local.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		if err := dir.SaveLineage(local.Lineage{TXID: 5}); err != nil {
			t.Fatal(err)
		}
		opts.Force = true
		if _, err := Restore(t.Context(), opts); !errors.Is(err, local.ErrBusy) {
			t.Fatalf("over a database in use: %v", err)
		}
		if b, _ := os.ReadFile(out + suffix); string(b) != "old" {
			t.Fatal("a refused restore changed something")
		}
		dir.Close()
		if _, err := Restore(t.Context(), opts); err != nil {
			t.Fatal(err)
		}
		b, _ := os.ReadFile(out)
		files, _ := os.ReadDir(filepath.Dir(out))
		if !bytes.Equal(b, image) || len(files) != 1 {
			t.Fatalf("with force: %v", files)
		}
	}
	if _, err := Restore(t.Context(), RestoreOptions{Store: mc.store, Output: filepath.Join(t.TempDir(), "no", "db")}); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

// The file comes into being while the restore runs.
func TestOutputAppears(t *testing.T) {
	mc := replica(t)
	out := filepath.Join(t.TempDir(), "db")
	_, err := Restore(t.Context(), RestoreOptions{Store: mc.store, Output: out, Check: func(temp string) error {
		os.WriteFile(temp+"-wal", nil, 0o600)
		return os.WriteFile(out, []byte("new"), 0o600)
	}})
	files, _ := os.ReadDir(filepath.Dir(out))
	if b, _ := os.ReadFile(out); !errors.Is(err, ErrOutputExists) || string(b) != "new" || len(files) != 1 {
		t.Fatalf("%v, %q, %v", err, b, files)
	}
	if err := publishNew(out, out); !errors.Is(err, ErrOutputExists) {
		t.Fatal(err)
	}
}

func TestInterruptedRestoreLeavesNothing(t *testing.T) {
	mc := replica(t)
	fs := faultstore.New(mc.store)
	for n := 1; ; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		start := fs.Count(faultstore.Get)
		fs.SetHooks(faultstore.Hooks{Before: func(ctx context.Context, c faultstore.Call) error {
			if c.Op == faultstore.Get && c.N-start == n {
				cancel()
				return ctx.Err()
			}
			return nil
		}})
		out := filepath.Join(t.TempDir(), "db")
		_, err := Restore(ctx, RestoreOptions{Store: fs, Output: out})
		cancel()
		files, _ := os.ReadDir(filepath.Dir(out))
		if err == nil {
			if n < 8 {
				t.Fatalf("not interrupted at request %d", n)
			}
			return
		}
		if len(files) > 0 || !errors.Is(err, context.Canceled) {
			t.Fatalf("request %d: %v, left %v", n, err, files)
		}
	}
}

func TestFailedCheck(t *testing.T) {
	mc := replica(t)
	bad := errors.New("bad")
	if _, _, err := restoreTo(t, mc.store, func(o *RestoreOptions) { o.Check = func(string) error { return bad } }); !errors.Is(err, bad) {
		t.Fatal(err)
	}
}

// A restore asks little: no HEAD, a few listings.
func TestRequests(t *testing.T) {
	mc := replica(t)
	fs := faultstore.New(mc.store)
	var last Progress
	res, _, err := restoreTo(t, fs, func(o *RestoreOptions) { o.Progress = func(p Progress) { last = p } })
	if err != nil || fs.Count(faultstore.List) > 3 || res.Requests != fs.Total() || last.Pages == 0 || last.Fetched > last.Total || last.TXID != res.TXID {
		t.Fatalf("%d listings, %d requests of %d, %+v, %v", fs.Count(faultstore.List), res.Requests, fs.Total(), last, err)
	}
}

// The log behind a snapshot begins in the snapshot's state, but isn't its line's.
func TestLogOfAnotherLineBehindSnapshot(t *testing.T) {
	mc := replica(t)
	key := segment.LogKey(3)
	o, err := segment.Parse(get(t, mc.store, key))
	if err != nil {
		t.Fatal(err)
	}
	h := segment.Header{Kind: segment.KindLog, PageSize: o.Header.PageSize, Database: o.Header.Database, Session: o.Header.Session,
		MinTXID: 3, PrevChain: segment.Hash{1}}
	b, _, err := segment.Encode(h, o.Entries)
	if err != nil {
		t.Fatal(err)
	}
	put(t, mc.store, key, b)
	if _, _, err := restoreTo(t, mc.store, func(o *RestoreOptions) { o.TXID = 3 }); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), key) {
		t.Fatal(err)
	}
}
