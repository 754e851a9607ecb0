package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// change commits beside an engine.
func (mc *machine) change(n, pages int) {
	mc.m.mu.Lock()
	defer mc.m.mu.Unlock()
	mc.m.commitN(n, pages)
}

// written makes a replica whose machine has stopped: so many times it committed n
// transactions, each with so many pages, and uploaded them. It ends with txid.
func written(t *testing.T, seed uint64, times, n, pages int) (mc *machine, txid uint64) {
	t.Helper()
	mc = newMachine(t, NewMemStore(), seed)
	p := mc.open()
	for range times {
		mc.change(n, pages)
		txid = p.sync(t)
	}
	p.close(t)
	return mc, txid
}

// snapshotNow writes a snapshot and makes sure that nothing stays behind on disk.
func snapshotNow(t *testing.T, store Store, change ...func(*SnapshotOptions)) (SnapshotResult, error) {
	t.Helper()
	o := SnapshotOptions{Store: store, TempDir: t.TempDir()}
	for _, f := range change {
		f(&o)
	}
	r, err := WriteSnapshot(within(t), o)
	if files, _ := os.ReadDir(o.TempDir); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
	return r, err
}

// mustSnapshot writes one that must be of the machine's state, and be enough for it.
func (mc *machine) mustSnapshot(txid uint64) SnapshotResult {
	mc.t.Helper()
	r, err := snapshotNow(mc.t, mc.store)
	if err != nil {
		mc.t.Fatal(err)
	}
	if !r.Written || r.TXID != txid || r.Checksum != fmt.Sprintf("%016x", mc.m.cur.sum) || r.Pages != mc.m.cur.commit() {
		mc.t.Fatalf("%+v; expected TXID %d, %016x", r, txid, mc.m.cur.sum)
	}
	res := mc.checkNewest()
	if res.Snapshot != txid {
		mc.t.Fatalf("the restore began with %d, not with the snapshot of %d", res.Snapshot, txid)
	}
	if again, err := snapshotNow(mc.t, mc.store); err != nil || again.Written || again.Key != r.Key || again.Uploaded != 0 {
		mc.t.Fatalf("nothing new: %+v, %v", again, err)
	}
	return r
}

// TestWriteSnapshot: between and beside sessions, a snapshot is the newest state,
// the line goes on behind it, and all else stays restorable.
func TestWriteSnapshot(t *testing.T) {
	mc := newMachine(t, NewMemStore(), 1)
	for round := range 3 {
		p := mc.open()
		for range 5 {
			mc.change(3, 40)
			p.sync(t)
		}
		mc.mustSnapshot(p.sync(t)) // while the session is open
		mc.change(1, 5)
		txid := p.sync(t)
		if round == 1 {
			mc.m.whole(1024)
			txid = p.sync(t)
		}
		p.close(t)
		mc.mustSnapshot(txid)
	}
	mc.checkSome(40)
	p := mc.open() // which looks for its place in what is there
	mc.m.commit()
	p.sync(t)
	p.close(t)
	mc.checkNewest()
	if n := len(keys(t, mc.store, segment.SnapshotPrefix)); n != 6 {
		t.Errorf("%d snapshots", n)
	}
	v, err := Verify(within(t), VerifyOptions{Store: mc.store, ReadData: true})
	if err != nil || len(v.Findings) > 0 || v.Snapshots != 6 {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestWriteSnapshotAlone: the log before a snapshot can go.
func TestWriteSnapshotAlone(t *testing.T) {
	mc := newMachine(t, NewMemStore(), 2)
	p := mc.open()
	for range 4 {
		mc.change(2, 300)
		p.sync(t)
	}
	txid := p.sync(t)
	p.close(t)
	mc.mustSnapshot(txid)
	logs := keys(t, mc.store, segment.LogPrefix)
	for _, k := range logs[:len(logs)-1] {
		if err := mc.store.Delete(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	mc.checkNewest()
}

func TestWriteSnapshotNothing(t *testing.T) {
	store := NewMemStore()
	if _, err := snapshotNow(t, store); !errors.Is(err, ErrNoReplica) {
		t.Errorf("no replica: %v", err)
	}
	// A line of claims has no content.
	mc := newMachine(t, store, 3)
	mc.change(1, 3)
	p := mc.open()
	p.sync(t)
	p.close(t)
	for _, k := range keys(t, store, segment.LogPrefix)[1:] {
		if err := store.Delete(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range append(keys(t, store, segment.SnapshotPrefix), keys(t, store, segment.DataPrefix)...) {
		if err := store.Delete(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := snapshotNow(t, store); err != nil || r.Written || r.Key != "" || r.Newest != 1 {
		t.Errorf("a claim alone: %+v, %v", r, err)
	}
}

// end is the replica's.
func (mc *machine) end() lineEnd {
	mc.t.Helper()
	info, err := readRoot(mc.t.Context(), mc.store)
	if err != nil {
		mc.t.Fatal(err)
	}
	end, err := (&line{mc.store, info.Database}).end(mc.t.Context(), 0)
	if err != nil {
		mc.t.Fatal(err)
	}
	return end
}

// TestWriteSnapshotClaims: sessions that wrote nothing are nothing new.
func TestWriteSnapshotClaims(t *testing.T) {
	mc, txid := written(t, 4, 1, 2, 30)
	r := mc.mustSnapshot(txid)
	end := mc.end()
	claim, _, err := segment.EncodeClaim(segment.Header{
		Kind: segment.KindLog, PageSize: end.PageSize, Database: end.Database, Session: segment.NewID(), MinTXID: end.TXID + 1,
		PrevChain: end.Chain, Pre: end.Checksum, PreCommit: end.Commit, WAL: end.WAL, LastMono: end.LastTime,
	})
	if err != nil {
		t.Fatal(err)
	}
	put(t, mc.store, segment.LogKey(end.TXID+1), claim)
	got, err := snapshotNow(t, mc.store)
	if err != nil || got.Written || got.Key != r.Key || got.Newest != txid+1 {
		t.Errorf("%+v, %v; there is %s", got, err, r.Key)
	}
	// Unless that snapshot is of no use: then there is a key for another one.
	for _, k := range keys(t, mc.store, segment.DataPrefix) {
		if strings.Contains(k, "-") {
			continue // the log's
		}
		if err := mc.store.Delete(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	if got, err = snapshotNow(t, mc.store); err != nil || !got.Written || got.TXID != txid+1 {
		t.Errorf("behind a snapshot without its data: %+v, %v", got, err)
	}
	mc.checkNewest()
}

// TestWriteSnapshotVoid: a snapshot of the newest state whose data is gone has the
// only key that another one could have; the error names it.
func TestWriteSnapshotVoid(t *testing.T) {
	mc, txid := written(t, 5, 1, 2, 30)
	r := mc.mustSnapshot(txid)
	for _, k := range keys(t, mc.store, segment.DataPrefix) {
		if !strings.Contains(k, "-") {
			if err := mc.store.Delete(t.Context(), k); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := snapshotNow(t, mc.store); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), r.Key) {
		t.Errorf("%v", err)
	}
	if err := mc.store.Delete(t.Context(), r.Key); err != nil {
		t.Fatal(err)
	}
	mc.mustSnapshot(txid)
}

// snapStore lets a test do something before a step of writing.
type snapStore struct {
	Store
	upload, create func(key string) error
	get            func(key string)
}

func (s *snapStore) Get(ctx context.Context, key string, r Range) (io.ReadCloser, ObjectInfo, error) {
	if s.get != nil {
		s.get(key)
	}
	return s.Store.Get(ctx, key, r)
}

func (s *snapStore) Upload(ctx context.Context, key string, r io.Reader) (int64, error) {
	if s.upload != nil {
		if err := s.upload(key); err != nil {
			return 0, err
		}
	}
	return s.Store.Upload(ctx, key, r)
}

func (s *snapStore) Create(ctx context.Context, key string, data []byte) error {
	if s.create != nil {
		if err := s.create(key); err != nil {
			return err
		}
	}
	return s.Store.Create(ctx, key, data)
}

// TestWriteSnapshotFails: permissions are asked for before anything is read; what
// fails in passing is tried again; nothing half-done counts.
func TestWriteSnapshotFails(t *testing.T) {
	mc, txid := written(t, 7, 1, 2, 200)

	denied := &snapStore{Store: mc.store, create: func(string) error { return fmt.Errorf("test: %w", ErrDenied) }}
	if _, err := snapshotNow(t, denied, func(o *SnapshotOptions) { o.TempDir += "/not made" }); !errors.Is(err, ErrDenied) {
		t.Errorf("denied: %v", err)
	}
	if _, err := snapshotNow(t, mc.store, func(o *SnapshotOptions) { o.TempDir += "/missing" }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no temporary directory: %v", err)
	}
	full := &snapStore{Store: mc.store, upload: func(string) error { return fmt.Errorf("test: %w", ErrDenied) }}
	if _, err := snapshotNow(t, full); !errors.Is(err, ErrDenied) {
		t.Errorf("upload: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	temp := t.TempDir()
	stopped := &snapStore{Store: mc.store, upload: func(string) error { cancel(); return ctx.Err() }}
	if _, err := WriteSnapshot(ctx, SnapshotOptions{Store: stopped, TempDir: temp}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	if files, _ := os.ReadDir(temp); len(files) > 0 {
		t.Errorf("left behind: %v", files)
	}
	if n := len(keys(t, mc.store, segment.SnapshotPrefix)); n > 0 {
		t.Errorf("%d snapshots", n)
	}
	tries := 0
	shaky := &snapStore{Store: mc.store, upload: func(string) error {
		if tries++; tries == 1 {
			return errors.New("test: connection reset")
		}
		return nil
	}}
	shaky.create = func(key string) error {
		if tries++; strings.HasPrefix(key, segment.SnapshotPrefix) && tries%2 == 0 {
			return errors.New("test: connection reset")
		}
		return nil
	}
	if r, err := snapshotNow(t, shaky); err != nil || !r.Written || r.TXID != txid {
		t.Errorf("%+v, %v", r, err)
	}
	mc.checkNewest()
}

// TestWriteSnapshotWeak: a store without conditional writes is looked at first.
func TestWriteSnapshotWeak(t *testing.T) {
	mc, txid := written(t, 8, 1, 2, 50)
	weak := &snapStore{Store: mc.store, create: func(string) error { return fmt.Errorf("test: %w", ErrUnsupported) }}
	if r, err := snapshotNow(t, weak); err != nil || !r.Written || r.TXID != txid {
		t.Errorf("%+v, %v", r, err)
	}
	mc.checkNewest()
}

// TestFileImage: what was rebuilt is proven again when it is read; the lock page is
// left out.
func TestFileImage(t *testing.T) {
	const size = 65536
	lock := segment.LockPage(size)
	first, commit := lock-1, lock+1
	m := fileImage{f: zeros{}, pageSize: size, hashes: make([]uint64, commit), wrote: func(int64) {}}
	for no := uint64(1); no <= commit; no++ {
		if no != lock {
			m.hashes[no-1] = segment.PageHash(no, make([]byte, size))
		}
	}
	s, err := m.block(segment.NewBlockEncoder(), first, commit)
	if err != nil || len(s.b.Pages) != 2 || s.b.Pages[1].No != lock+1 || s.b.Codec != segment.CodecZero {
		t.Errorf("around the lock page: %+v, %v", s.b, err)
	}
	if s, err := m.block(segment.NewBlockEncoder(), lock, lock); err != nil || len(s.b.Pages) != 0 {
		t.Errorf("the lock page alone: %+v, %v", s.b, err)
	}
	m.hashes[commit-1]++
	if _, err := m.block(segment.NewBlockEncoder(), first, commit); !errors.Is(err, errWrite) || !strings.Contains(err.Error(), fmt.Sprint("page ", commit)) {
		t.Errorf("a page that is another one: %v", err)
	}

	page := bytes.Repeat([]byte{7}, 512)
	small := fileImage{f: bytes.NewReader(page), pageSize: 512, hashes: []uint64{segment.PageHash(1, page)}, wrote: func(int64) {}}
	h := segment.DataHeader{Kind: segment.KindSnapshot, PageSize: 512, Name: segment.NewID(), Database: segment.NewID(), Session: segment.NewID()}
	if err := small.write(t.Context(), segment.NewDataWriter(io.Discard, h), small.hashes[0]); err != nil {
		t.Error(err)
	}
	if err := small.write(t.Context(), segment.NewDataWriter(io.Discard, h), small.hashes[0]^1); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another checksum: %v", err)
	}
	small.f = bytes.NewReader(page[:100])
	if err := small.write(t.Context(), segment.NewDataWriter(io.Discard, h), small.hashes[0]); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a short file: %v", err)
	}
}

type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

var _ objstore.Store = (*snapStore)(nil)
