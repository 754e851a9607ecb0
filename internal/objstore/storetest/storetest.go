// Package storetest is what every objstore.Store must pass.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
)

// A Suite is the conformance tests with what depends on the store.
type Suite struct {
	// Open returns a store without objects. All stores of one suite may share a
	// bucket, but not a path.
	Open func(t *testing.T) objstore.Store
	// PartSize is where Upload changes from one request to several, in bytes.
	PartSize int64
	// Keys is how many objects the listing test makes: more than two pages of
	// the server.
	Keys int
}

// Run runs the suite with usual sizes: parts of 5 MiB, 2,300 keys.
func Run(t *testing.T, open func(*testing.T) objstore.Store) {
	Suite{Open: open, PartSize: 5 << 20, Keys: 2300}.Run(t)
}

// Run runs all tests, each with a store of its own.
func (s Suite) Run(t *testing.T) {
	tests := []struct {
		name string
		run  func(*testing.T, objstore.Store)
	}{
		{"CreateGet", testCreateGet},
		{"Ranges", testRanges},
		{"Empty", testEmpty},
		{"IfMatch", testIfMatch},
		{"Missing", testMissing},
		{"Exist", testExist},
		{"Put", testPut},
		{"BadKeys", testBadKeys},
		{"Race", testRace},
		{"ListOrder", testListOrder},
		{"ListMany", s.testListMany},
		{"ListStops", testListStops},
		{"Delete", testDelete},
		{"Upload", s.testUpload},
		{"UploadReaderFails", s.testUploadReaderFails},
		{"Cancel", s.testCancel},
		{"Foreign", testForeign},
		{"Concurrent", testConcurrent},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, s.Open(t)) })
	}
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Random returns n bytes that depend on seed alone and don't compress.
func Random(seed uint64, n int64) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return b
}

func create(t *testing.T, s objstore.Store, key string, data []byte) {
	t.Helper()
	if err := s.Create(limited(t), key, data); err != nil {
		t.Fatalf("create %s: %v", key, err)
	}
}

func read(t *testing.T, s objstore.Store, key string, r objstore.Range) ([]byte, objstore.Info) {
	t.Helper()
	body, info, err := s.Get(limited(t), key, r)
	if err != nil {
		t.Fatalf("get %s %+v: %v", key, r, err)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("read %s %+v: %v", key, r, err)
	}
	if err := body.Close(); err != nil {
		t.Fatalf("close %s: %v", key, err)
	}
	return data, info
}

func wantMissing(t *testing.T, s objstore.Store, key string) {
	t.Helper()
	body, _, err := s.Get(limited(t), key, objstore.Range{})
	if err == nil {
		body.Close()
	}
	if !errors.Is(err, objstore.ErrNotExist) {
		t.Fatalf("get %s: %v, want ErrNotExist", key, err)
	}
}

func list(t *testing.T, s objstore.Store, prefix, after string) []string {
	t.Helper()
	keys := []string{}
	for info, err := range s.List(limited(t), prefix, after) {
		if err != nil {
			t.Fatalf("list %q after %q: %v", prefix, after, err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func testCreateGet(t *testing.T, s objstore.Store) {
	data := Random(1, 10_000)
	start := time.Now()
	create(t, s, "log/0000000000000001", data)
	got, info := read(t, s, "log/0000000000000001", objstore.Range{})
	if !bytes.Equal(got, data) {
		t.Fatal("other bytes came back")
	}
	if info.Key != "log/0000000000000001" || info.Size != int64(len(data)) {
		t.Errorf("info is %+v", info)
	}
	if d := info.Modified.Sub(start); d < -time.Hour || d > time.Hour {
		t.Errorf("modified %v, written %v", info.Modified, start)
	}
	// The caller may reuse its buffer.
	buf := []byte("first")
	create(t, s, "log/a", buf)
	copy(buf, "XXXXX")
	if got, _ := read(t, s, "log/a", objstore.Range{}); string(got) != "first" {
		t.Errorf("got %q: the store kept the caller's buffer", got)
	}
	if !strings.Contains(s.String(), "://") {
		t.Errorf("String is %q, not a URL", s)
	}
}

func testRanges(t *testing.T, s objstore.Store) {
	data := Random(2, 1000)
	create(t, s, "data/r", data)
	for _, tt := range []struct{ off, n, from, to int64 }{
		{0, 0, 0, 1000},
		{0, 1, 0, 1},
		{0, 1000, 0, 1000},
		{0, 5000, 0, 1000},
		{1, 0, 1, 1000},
		{999, 0, 999, 1000},
		{999, 1, 999, 1000},
		{500, 100, 500, 600},
		{500, 1 << 62, 500, 1000},
		{1000, 0, 1000, 1000},
		{1000, 10, 1000, 1000},
		{5000, 0, 1000, 1000},
		{5000, 10, 1000, 1000},
		{-1, 0, 999, 1000},
		{-64, 0, 936, 1000},
		{-64, 3, 936, 1000},
		{-1000, 0, 0, 1000},
		{-1001, 0, 0, 1000},
		{-1 << 40, 0, 0, 1000},
	} {
		got, info := read(t, s, "data/r", objstore.Range{Offset: tt.off, Length: tt.n})
		if !bytes.Equal(got, data[tt.from:tt.to]) {
			t.Errorf("range %d+%d: %d bytes, want [%d:%d]", tt.off, tt.n, len(got), tt.from, tt.to)
		}
		if info.Size != 1000 {
			t.Errorf("range %d+%d: the object's size is given as %d", tt.off, tt.n, info.Size)
		}
	}
}

func testEmpty(t *testing.T, s objstore.Store) {
	create(t, s, "log/empty", nil)
	for _, r := range []objstore.Range{{}, {Offset: 1}, {Offset: -10}, {Length: 5}} {
		if got, info := read(t, s, "log/empty", r); len(got) != 0 || info.Size != 0 {
			t.Errorf("range %+v of an empty object: %d bytes, size %d", r, len(got), info.Size)
		}
	}
	if err := s.Create(limited(t), "log/empty", []byte("x")); !errors.Is(err, objstore.ErrExist) {
		t.Errorf("create over an empty object: %v, want ErrExist", err)
	}
}

// Put replaces, on every store; what it writes is there for Create.
func testPut(t *testing.T, s objstore.Store) {
	for _, data := range [][]byte{[]byte("first"), []byte("second, longer"), nil} {
		if err := s.Put(limited(t), "log/put", data); err != nil {
			t.Fatal(err)
		}
		if got, info := read(t, s, "log/put", objstore.Range{}); !bytes.Equal(got, data) || info.Size != int64(len(data)) {
			t.Errorf("put %q, got %q", data, got)
		}
		if err := s.Create(limited(t), "log/put", []byte("x")); !errors.Is(err, objstore.ErrExist) {
			t.Errorf("create after put: %v, want ErrExist", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Put(ctx, "log/put", []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := s.Put(limited(t), "../out", nil); !errors.Is(err, objstore.ErrConfig) {
		t.Errorf("a key outside: %v", err)
	}
}

func testIfMatch(t *testing.T, s objstore.Store) {
	create(t, s, "data/m", Random(3, 100))
	_, info := read(t, s, "data/m", objstore.Range{})
	if info.ETag == "" {
		t.Skip("the store has no ETags")
	}
	r := objstore.Range{Offset: 10, Length: 10, IfMatch: info.ETag}
	if got, _ := read(t, s, "data/m", r); len(got) != 10 {
		t.Errorf("matching: %d bytes", len(got))
	}
	if err := s.Delete(limited(t), "data/m"); err != nil {
		t.Fatal(err)
	}
	create(t, s, "data/m", Random(4, 101))
	for _, r := range []objstore.Range{r, {Offset: 5000, IfMatch: info.ETag}} {
		body, _, err := s.Get(limited(t), "data/m", r)
		if err == nil {
			body.Close()
		}
		if !errors.Is(err, objstore.ErrChanged) {
			t.Errorf("range %+v of another version: %v, want ErrChanged", r, err)
		}
	}
}

func testMissing(t *testing.T, s objstore.Store) {
	wantMissing(t, s, "log/none") // nothing was ever written here
	if keys := list(t, s, "", ""); len(keys) != 0 {
		t.Errorf("a new store lists %q", keys)
	}
	create(t, s, "log/one", []byte("1"))
	for _, key := range []string{"log/none", "none", "log", "log/one/below", "log/on", "log/one2"} {
		wantMissing(t, s, key)
	}
}

func testExist(t *testing.T, s objstore.Store) {
	old := []byte("the first")
	create(t, s, "outwash", old)
	for _, data := range [][]byte{[]byte("another"), nil, Random(5, 1<<20), old} {
		err := s.Create(limited(t), "outwash", data)
		if !errors.Is(err, objstore.ErrExist) {
			t.Errorf("second create of %d bytes: %v, want ErrExist", len(data), err)
		}
	}
	if got, _ := read(t, s, "outwash", objstore.Range{}); !bytes.Equal(got, old) {
		t.Errorf("the object is now %q", got)
	}
	if keys := list(t, s, "", ""); !slices.Equal(keys, []string{"outwash"}) {
		t.Errorf("listed: %q", keys)
	}
}

func testBadKeys(t *testing.T, s objstore.Store) {
	for _, key := range []string{"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b"} {
		if err := s.Create(limited(t), key, []byte("x")); err == nil {
			t.Errorf("create %q succeeded", key)
		}
		if _, err := s.Upload(limited(t), key, strings.NewReader("x")); err == nil {
			t.Errorf("upload %q succeeded", key)
		}
		if body, _, err := s.Get(limited(t), key, objstore.Range{}); err == nil {
			body.Close()
			t.Errorf("get %q succeeded", key)
		}
	}
	if keys := list(t, s, "", ""); len(keys) != 0 {
		t.Errorf("there is now %q", keys)
	}
}

// testRace is the fence: of many writers to one key exactly one wins, and what a
// reader sees is the winner's, whole.
func testRace(t *testing.T, s objstore.Store) {
	const writers, rounds = 16, 24
	for round := range rounds {
		key := fmt.Sprintf("log/%016x", round)
		var wg sync.WaitGroup
		errs := make([]error, writers)
		start := make(chan struct{})
		for w := range writers {
			wg.Add(1)
			go func() {
				defer wg.Done()
				<-start
				errs[w] = s.Create(limited(t), key, raceData(round, w))
			}()
		}
		// A reader beside them sees nothing or everything.
		wg.Add(1)
		var seen []byte
		go func() {
			defer wg.Done()
			<-start
			body, _, err := s.Get(limited(t), key, objstore.Range{})
			if err == nil {
				seen, err = io.ReadAll(body)
				body.Close()
			}
			if err != nil && !errors.Is(err, objstore.ErrNotExist) {
				t.Errorf("reader: %v", err)
			}
		}()
		close(start)
		wg.Wait()
		winner := -1
		for w, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Errorf("%s: writers %d and %d both won", key, winner, w)
			case err == nil:
				winner = w
			case !errors.Is(err, objstore.ErrExist):
				t.Errorf("%s: writer %d: %v", key, w, err)
			}
		}
		if winner < 0 {
			t.Fatalf("%s: nobody won", key)
		}
		want := raceData(round, winner)
		if got, _ := read(t, s, key, objstore.Range{}); !bytes.Equal(got, want) {
			t.Errorf("%s: the object is not the winner's", key)
		}
		if seen != nil && !bytes.Equal(seen, want) {
			t.Errorf("%s: a reader meanwhile saw %d bytes that are not the winner's", key, len(seen))
		}
	}
}

func raceData(round, writer int) []byte {
	return Random(uint64(round*100+writer), int64(1000+writer*7000))
}
