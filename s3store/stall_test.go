package s3store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
)

func TestNoProgress(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	var n atomic.Int64
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if n.Add(1) == 1 {
			select { // the answer never comes
			case <-release:
			case <-r.Context().Done():
			}
		}
	})
	warm(t, s)
	// Where this machine takes as long for an answer, more attempts fail than the first.
	s.opts.ResponseTimeout, s.opts.Attempts = 100*time.Millisecond, 1000
	if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil || n.Load() < 2 {
		t.Errorf("%v after %d requests, want success with the second", err, n.Load())
	}
	n.Store(0)
	s.opts.Attempts = 1
	err := s.Create(t.Context(), "log/1", []byte("x"))
	if !errors.Is(err, errNoProgress) || errors.Is(err, context.Canceled) || objstore.Permanent(err) {
		t.Errorf("%v, want no progress, and no cancellation of the caller's", err)
	}
}

// A server that stops reading holds up a large body, not an upload for ever.
func TestNoProgressSending(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	warm(t, s)
	s.opts.ResponseTimeout = 100 * time.Millisecond
	s.opts.Attempts = 2
	err := s.Create(t.Context(), "log/1", make([]byte, 64<<20))
	if !errors.Is(err, errNoProgress) {
		t.Errorf("%v, want no progress", err)
	}
}

func TestBodyStalls(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	c := &cuttingServer{data: bytes.Repeat([]byte("abcd"), 1000), etag: `"v1"`}
	c.fault = func(n int, w http.ResponseWriter, body []byte) {
		if n == 1 {
			_, _ = w.Write(body[:1000])
			_ = http.NewResponseController(w).Flush()
			<-release
			return
		}
		_, _ = w.Write(body)
	}
	s := serve(t, c.handle)
	s.opts.StallTimeout, s.opts.Attempts = 100*time.Millisecond, maxResumes
	body, _, err := s.Get(t.Context(), "data/1", objstore.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, c.data) {
		t.Errorf("%d bytes and %v", len(got), err)
	}
}

func TestGetCancelledWhileReading(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	c := &cuttingServer{data: make([]byte, 1000), etag: `"v1"`}
	c.fault = func(_ int, w http.ResponseWriter, body []byte) {
		_, _ = w.Write(body[:10])
		_ = http.NewResponseController(w).Flush()
		<-release
	}
	s := serve(t, c.handle)
	ctx, cancel := context.WithCancel(t.Context())
	body, _, err := s.Get(ctx, "data/1", objstore.Range{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(body); !errors.Is(err, context.Canceled) {
		t.Errorf("read after cancel: %v", err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	if _, err := body.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read after close: %v", err)
	}
}
