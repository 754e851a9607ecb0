package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/outwash/outwash/internal/objstore"
)

func testListOrder(t *testing.T, s objstore.Store) {
	// '-' and '.' sort before '/', digits after: by key, not by directory.
	keys := []string{
		"a-b/c", "a/b", "a/b-c", "a0", "data/ff", "data/ff0", "data0", "log/0000000000000001",
		"log/0000000000000002", "log/000000000000000a", "outwash", "pages/1-2", "pages/1-23", "pages/1-3",
		"pages0/x/y/z", "snapshot/1-2",
	}
	slices.Sort(keys)
	for i := range keys {
		create(t, s, keys[(i*7)%len(keys)], []byte(keys[(i*7)%len(keys)])) // 7 and 16 have no common factor
	}
	prefixes := []string{"", "a", "a/", "a-", "a/b", "log/", "log", "lo", "pages/", "pages/1-2", "pages0/x", "zzz", "log/0000000000000002", "log/0000000000000002/"}
	afters := append([]string{"", "a", "a-", "a/", "a-b", "a/bz", "log/", "log", "log/0000000000000001x", "m", "pages/1-2", "zzz"}, keys...)
	for _, prefix := range prefixes {
		for _, after := range afters {
			want := []string{}
			for _, key := range keys {
				if strings.HasPrefix(key, prefix) && key > after {
					want = append(want, key)
				}
			}
			if got := list(t, s, prefix, after); !slices.Equal(got, want) {
				t.Errorf("prefix %q after %q:\n got %q\nwant %q", prefix, after, got, want)
			}
		}
	}
	for info, err := range s.List(limited(t), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if info.Size != int64(len(info.Key)) || info.Modified.IsZero() {
			t.Errorf("listed as %+v", info)
		}
	}
}

// inParallel calls f for 0..n-1, a few at a time.
func inParallel(t *testing.T, n int, f func(int) error) {
	t.Helper()
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := int(next.Add(1) - 1); i < n && !t.Failed(); i = int(next.Add(1) - 1) {
				if err := f(i); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// testListMany lists and deletes more objects than a server returns, or takes,
// in one request.
func (su Suite) testListMany(t *testing.T, s objstore.Store) {
	ctx := limited(t)
	keys := make([]string, su.Keys)
	for i := range keys {
		keys[i] = fmt.Sprintf("log/%016x", i+1)
	}
	inParallel(t, len(keys), func(i int) error { return s.Create(ctx, keys[i], nil) })
	create(t, s, "logs", nil)
	create(t, s, "data/x", nil)
	if got := list(t, s, "log/", ""); !slices.Equal(got, keys) {
		t.Errorf("listed %d of %d keys, or in another order", len(got), len(keys))
	}
	for _, i := range []int{0, 998, 999, 1000, 1001, len(keys) - 2, len(keys) - 1} {
		if i < 0 || i >= len(keys) {
			continue
		}
		if got := list(t, s, "log/", keys[i]); !slices.Equal(got, keys[i+1:]) {
			t.Errorf("after %s: %d keys, want %d", keys[i], len(got), len(keys)-i-1)
		}
	}
	if err := s.Delete(ctx, append([]string{"log/none", "none"}, keys[1:]...)...); err != nil {
		t.Fatalf("delete: %v", err)
	}
	if got, want := list(t, s, "", ""), []string{"data/x", keys[0], "logs"}; !slices.Equal(got, want) {
		t.Errorf("left after deleting: %q, want %q", got, want)
	}
}

func testListStops(t *testing.T, s objstore.Store) {
	for i := range 10 {
		create(t, s, fmt.Sprintf("log/%d", i), nil)
	}
	seq := s.List(limited(t), "log/", "")
	for range 2 { // a sequence can be used again
		n := 0
		for _, err := range seq {
			if err != nil {
				t.Fatal(err)
			}
			if n++; n == 3 {
				break
			}
		}
		if n != 3 {
			t.Errorf("yielded %d objects, want 3", n)
		}
	}
}

func testDelete(t *testing.T, s objstore.Store) {
	ctx := limited(t)
	if err := s.Delete(ctx); err != nil {
		t.Errorf("delete of nothing: %v", err)
	}
	for _, keys := range [][]string{{"data/none"}, {"data/none", "log/none"}} {
		if err := s.Delete(ctx, keys...); err != nil {
			t.Errorf("delete of missing %q: %v", keys, err)
		}
	}
	create(t, s, "pages/1-2", []byte("a"))
	create(t, s, "pages/1-23", []byte("b"))
	if err := s.Delete(ctx, "pages/1-2", "pages/1"); err != nil {
		t.Fatal(err)
	}
	wantMissing(t, s, "pages/1-2")
	if got, _ := read(t, s, "pages/1-23", objstore.Range{}); string(got) != "b" {
		t.Errorf("pages/1-23 is now %q", got)
	}
	create(t, s, "pages/1-2", []byte("again")) // the key is free again
	if got, _ := read(t, s, "pages/1-2", objstore.Range{}); string(got) != "again" {
		t.Errorf("pages/1-2 is now %q", got)
	}
}

// odd hides what a reader can do besides Read, and reads in odd portions.
func odd(data []byte) io.Reader { return iotest.HalfReader(bytes.NewReader(data)) }

func (su Suite) testUpload(t *testing.T, s objstore.Store) {
	p := su.PartSize
	for i, size := range []int64{0, 1, p - 1, p, p + 1, 2 * p, 3*p + 12345} {
		key := fmt.Sprintf("data/%d", size)
		data := Random(uint64(i+10), size)
		n, err := s.Upload(limited(t), key, odd(data))
		if err != nil || n != size {
			t.Fatalf("upload of %d bytes: %d, %v", size, n, err)
		}
		got, info := read(t, s, key, objstore.Range{})
		if !bytes.Equal(got, data) || info.Size != size {
			t.Errorf("upload of %d bytes: %d came back, size given as %d", size, len(got), info.Size)
		}
		if size > 100 {
			if got, _ := read(t, s, key, objstore.Range{Offset: -100, IfMatch: info.ETag}); !bytes.Equal(got, data[size-100:]) {
				t.Errorf("upload of %d bytes: its last 100 differ", size)
			}
		}
	}
	if n := len(list(t, s, "data/", "")); n != 7 {
		t.Errorf("%d objects listed, want 7", n)
	}
	// A size hint changes nothing but the cutting.
	data := Random(30, p+p/2)
	if _, err := s.Upload(objstore.WithSizeHint(limited(t), 9000*(p+1000)), "data/hint", odd(data)); err != nil {
		t.Fatal(err)
	}
	if got, _ := read(t, s, "data/hint", objstore.Range{}); !bytes.Equal(got, data) {
		t.Error("upload with a size hint: other bytes came back")
	}
}

func (su Suite) testUploadReaderFails(t *testing.T, s objstore.Store) {
	broken := errors.New("the disk is broken")
	for _, size := range []int64{0, 1, su.PartSize, 2*su.PartSize + 10} {
		r := io.MultiReader(odd(Random(20, size)), iotest.ErrReader(broken))
		if _, err := s.Upload(limited(t), "data/broken", r); !errors.Is(err, broken) {
			t.Errorf("reader failed after %d bytes: %v", size, err)
		}
		wantMissing(t, s, "data/broken")
	}
	if keys := list(t, s, "", ""); len(keys) != 0 {
		t.Errorf("left behind: %q", keys)
	}
}

type cancelReader struct {
	cancel context.CancelFunc
	after  int64
}

func (c *cancelReader) Read(p []byte) (int, error) {
	if c.after -= int64(len(p)); c.after < 0 {
		c.cancel()
	}
	return len(p), nil // without end: only ctx stops the upload
}

func (su Suite) testCancel(t *testing.T, s objstore.Store) {
	create(t, s, "log/there", []byte("x"))
	ctx, cancel := context.WithCancel(limited(t))
	cancel()
	check := func(op string, err error) {
		t.Helper()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", op, err)
		}
	}
	check("create", s.Create(ctx, "log/new", []byte("x")))
	_, err := s.Upload(ctx, "data/new", strings.NewReader("x"))
	check("upload", err)
	_, _, err = s.Get(ctx, "log/there", objstore.Range{})
	check("get", err)
	check("delete", s.Delete(ctx, "log/there"))
	for _, err := range s.List(ctx, "", "") {
		check("list", err)
	}

	for _, after := range []int64{100, 2*su.PartSize + su.PartSize/2} {
		ctx, cancel = context.WithCancel(limited(t))
		_, err = s.Upload(ctx, "data/endless", &cancelReader{cancel, after})
		check(fmt.Sprintf("upload cancelled after %d bytes", after), err)
		cancel()
	}
	if keys := list(t, s, "", ""); !slices.Equal(keys, []string{"log/there"}) {
		t.Errorf("listed: %q, want log/there alone", keys)
	}
}

// testForeign: others may keep objects there too; they can be seen, read and
// deleted.
func testForeign(t *testing.T, s objstore.Store) {
	foreign := []string{"README.txt", "log/.hidden", "log/Not Ours", "log/x+y=z&a", "log/ä€", "log/100%/deep/er", "log/%41"}
	for _, key := range foreign {
		create(t, s, key, []byte(key))
	}
	create(t, s, "log/0000000000000001", nil)
	want := append(slices.Clone(foreign), "log/0000000000000001")
	slices.Sort(want)
	if got := list(t, s, "", ""); !slices.Equal(got, want) {
		t.Errorf("listed\n%q, want\n%q", got, want)
	}
	for _, key := range foreign {
		if got, _ := read(t, s, key, objstore.Range{}); string(got) != key {
			t.Errorf("%q holds %q", key, got)
		}
	}
	if err := s.Delete(limited(t), foreign...); err != nil {
		t.Fatal(err)
	}
	if got := list(t, s, "", ""); !slices.Equal(got, []string{"log/0000000000000001"}) {
		t.Errorf("left: %q", got)
	}
}

// testConcurrent does everything at once, for the race detector.
func testConcurrent(t *testing.T, s objstore.Store) {
	ctx := limited(t)
	inParallel(t, 64, func(i int) error {
		key := fmt.Sprintf("log/%d", i)
		if err := s.Create(ctx, key, []byte(key)); err != nil {
			return err
		}
		if _, err := s.Upload(ctx, "data/"+fmt.Sprint(i), strings.NewReader(key)); err != nil {
			return err
		}
		found := false
		for info, err := range s.List(ctx, "log/", "") {
			if err != nil {
				return err
			}
			found = found || info.Key == key
		}
		if !found {
			return fmt.Errorf("%s was created but is not listed", key)
		}
		body, _, err := s.Get(ctx, key, objstore.Range{})
		if err != nil {
			return err
		}
		got, err := io.ReadAll(body)
		body.Close()
		if string(got) != key {
			return fmt.Errorf("%s holds %q (%v)", key, got, err)
		}
		return s.Delete(ctx, key, "data/"+fmt.Sprint(i))
	})
	if keys := list(t, s, "", ""); len(keys) != 0 {
		t.Errorf("left: %q", keys)
	}
}
