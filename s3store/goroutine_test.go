package s3store

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
)

// Whatever way an operation ends, nothing goes on running after it. The HTTP
// client here has no goroutines of its own.
func TestGoroutinesEnd(t *testing.T) {
	m := &multipartServer{}
	s := offline(t, "bucket", "us-east-1", func(r *http.Request, w *httptest.ResponseRecorder) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Length", "1000")
			w.Header().Set("ETag", "e")
			_, _ = w.Write(make([]byte, 1000))
			return
		}
		m.handle(w, r)
	})
	s.opts.PartSize = testPart
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	for _, tail := range []io.Reader{bytes.NewReader(nil), errReader{io.ErrClosedPipe}, cancelling{cancel}} {
		_, err := s.Upload(ctx, "data/1", io.MultiReader(bytes.NewReader(make([]byte, 4*testPart)), tail))
		if _, plain := tail.(*bytes.Reader); plain != (err == nil) {
			t.Errorf("upload: %v", err)
		}
	}
	body, _, err := s.Get(t.Context(), "data/1", objstore.Range{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	body.Close()
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
		}
	}
}

type cancelling struct{ cancel context.CancelFunc }

func (c cancelling) Read([]byte) (int, error) {
	c.cancel()
	return 0, nil
}
