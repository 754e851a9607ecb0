package replicate

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/segment"
)

// autoClock never waits: time jumps.
type autoClock struct {
	mu  sync.Mutex
	now time.Time
}

func newAutoClock() *autoClock { return &autoClock{now: time.Unix(1_700_000_000, 0)} }

func (c *autoClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *autoClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	ch := make(chan time.Time, 1)
	ch <- c.now
	runtime.Gosched()
	return ch
}

// outages lets a store fail for as long as what is returned is true.
func outages(fs *faultstore.Store) *atomic.Bool {
	var down atomic.Bool
	fs.SetHooks(faultstore.Hooks{Before: func(context.Context, faultstore.Call) error {
		if down.Load() {
			return faultstore.ErrInjected
		}
		return nil
	}})
	return &down
}

// machine is a model with a directory beside it.
type machine struct {
	t     *testing.T
	m     *model
	store Store
	db    string
	clock Clock
	boot  string
}

func newMachine(t *testing.T, store Store, seed uint64) *machine {
	return &machine{t: t, m: newModel(seed), store: store, db: filepath.Join(t.TempDir(), "db"), clock: newAutoClock(), boot: "first"}
}

// process is one opening of a machine's database.
type process struct {
	*Engine
	src *source
	dir *local.Dir
}

func (mc *machine) open(change ...func(*EngineOptions)) *process {
	mc.t.Helper()
	dir, err := local.Open(mc.db)
	if err != nil {
		mc.t.Fatal(err)
	}
	src := mc.m.source()
	opts := EngineOptions{Store: mc.store, Source: src, Local: dir, Database: mc.db, MaxLag: AsFast, Clock: mc.clock, inline: 64 << 10, small: 100 << 10,
		boot: mc.boot, identity: func(string) string {
			mc.m.mu.Lock()
			defer mc.m.mu.Unlock()
			if mc.m.missing || mc.m.cur.commit() == 0 {
				return ""
			}
			return mc.m.file
		}}
	for _, f := range change {
		f(&opts)
	}
	p := &process{Open(context.Background(), opts), src, dir}
	mc.t.Cleanup(func() { p.kill() })
	return p
}

// kill ends the process without any order.
func (p *process) kill() {
	p.stop(errors.New("killed"))
	<-p.done
	p.group.Wait()
	p.dir.Close()
}

// patience is how long tests wait for what must happen: less than go test waits, and
// more than any machine takes.
const patience = 2 * time.Minute

func (p *process) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-p.Decided():
	case <-time.After(patience):
		t.Fatalf("undecided: %+v", p.Status())
	}
	return p.Err()
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func (p *process) sync(t *testing.T) uint64 {
	t.Helper()
	txid, err := p.Sync(within(t))
	if err != nil {
		t.Fatalf("sync: %v (%+v)", err, p.Status())
	}
	return txid
}

func (p *process) close(t *testing.T) {
	t.Helper()
	if err := p.Close(within(t)); err != nil {
		t.Fatalf("close: %v", err)
	}
	p.dir.Close()
}

// walk returns the log's segments in order.
func walk(t *testing.T, store Store) (all []*segment.Object) {
	t.Helper()
	info, err := readRoot(t.Context(), store)
	if err != nil || info == nil {
		t.Fatalf("root: %v", err)
	}
	l := &line{store, info.Database}
	end := lineEnd{}
	for {
		o, err := l.next(t.Context(), end.TXID+1)
		if err != nil {
			t.Fatal(err)
		}
		if o == nil {
			return all
		}
		if err := end.follows(o); err != nil {
			t.Fatal(err)
		}
		end.advance(o)
		all = append(all, o)
	}
}

func restoreTo(t *testing.T, store Store, change ...func(*RestoreOptions)) (RestoreResult, []byte, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	opts := RestoreOptions{Store: store, Output: out}
	for _, f := range change {
		f(&opts)
	}
	res, err := Restore(within(t), opts)
	if err != nil {
		files, _ := os.ReadDir(filepath.Dir(out))
		if len(files) > 0 {
			t.Errorf("failed restore left %v", files)
		}
		return res, nil, err
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return res, b, nil
}

// checkNewest restores the newest state and compares it with the model's.
func (mc *machine) checkNewest() RestoreResult {
	mc.t.Helper()
	res, b, err := restoreTo(mc.t, mc.store)
	if err != nil {
		mc.t.Fatal(err)
	}
	if !bytes.Equal(b, mc.m.cur.image()) || res.tail.Checksum != mc.m.cur.sum || !res.Latest {
		mc.t.Fatalf("restored %d pages, checksum %s; expected %d, %016x", res.Pages, res.Checksum, mc.m.cur.commit(), mc.m.cur.sum)
	}
	if checksumOf(res.PageHashes()) != mc.m.cur.sum || len(res.PageHashes()) != len(mc.m.cur.pages) {
		mc.t.Fatal("page hashes are not the state's")
	}
	return res
}

func checksumOf(hashes []uint64) (sum uint64) {
	for _, h := range hashes {
		sum ^= h
	}
	return sum
}

// checkAll restores every TXID and compares it with the model's states.
func (mc *machine) checkAll() {
	mc.t.Helper()
	mc.checkSome(1 << 30)
}

// checkSome does that for about n of them.
func (mc *machine) checkSome(n int) {
	mc.t.Helper()
	segs := walk(mc.t, mc.store)
	total := int(segs[len(segs)-1].Header.MaxTXID)
	snaps := strings.Join(keys(mc.t, mc.store, segment.SnapshotPrefix), " ")
	based := true
	for _, o := range segs {
		if o.Header.External {
			continue
		}
		for _, e := range o.Entries {
			if e.NeedsBase { // without its snapshot: an attempt that another one followed
				based = strings.Contains(snaps, segment.SnapshotKey(e.MaxTXID, e.Post))
			}
			if !based {
				continue
			}
			if n < total && mc.m.rng.IntN(total) >= n {
				continue
			}
			res, b, err := restoreTo(mc.t, mc.store, func(o *RestoreOptions) { o.TXID = e.MaxTXID })
			if e.Commit == 0 {
				if !errors.Is(err, ErrNotRestorable) {
					mc.t.Fatalf("TXID %d of an empty database: %v", e.MaxTXID, err)
				}
				continue
			}
			if err != nil {
				mc.t.Fatalf("TXID %d: %v", e.MaxTXID, err)
			}
			if st := mc.m.states[e.Post]; st == nil || !bytes.Equal(b, st.image()) || res.TXID != e.MaxTXID {
				mc.t.Fatalf("TXID %d (%s): restored image differs", e.MaxTXID, e.Kind)
			}
			if e.Count > 1 {
				_, _, err := restoreTo(mc.t, mc.store, func(o *RestoreOptions) { o.TXID = e.MaxTXID - 1 })
				if !errors.Is(err, ErrNotRestorable) {
					mc.t.Fatalf("TXID %d inside a merge: %v", e.MaxTXID-1, err)
				}
			}
		}
	}
}

func keys(t *testing.T, store Store, prefix string) (all []string) {
	t.Helper()
	for info, err := range store.List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, info.Key)
	}
	return all
}

func get(t *testing.T, store Store, key string) []byte {
	t.Helper()
	b, err := fetch(t.Context(), store, key, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// put replaces an object.
func put(t *testing.T, store Store, key string, b []byte) {
	t.Helper()
	if err := store.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Upload(t.Context(), key, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
}

// clone copies a store into memory.
func clone(t *testing.T, store Store) Store {
	t.Helper()
	c := objstore.NewMem()
	for _, k := range keys(t, store, "") {
		put(t, c, k, get(t, store, k))
	}
	return c
}

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		deadline := time.Now().Add(patience)
		for {
			buf := make([]byte, 1<<20)
			stacks := string(buf[:runtime.Stack(buf, true)])
			_, rest, _ := strings.Cut(stacks, "\n\n") // all but this goroutine
			if !strings.Contains(rest, "outwash/replicate.") {
				break
			}
			if time.Now().After(deadline) {
				println("goroutines are left:\n" + rest)
				code = 1
				break
			}
			runtime.Gosched()
		}
	}
	os.Exit(code)
}
