package s3store

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
)

// Connections of many requests at a time serve the next ones, too.
func TestConnectionsAreKept(t *testing.T) {
	const parallel = 40
	var opened atomic.Int64
	var all sync.WaitGroup // requests of a round: none is answered before the last is there
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all.Done()
		all.Wait()
		w.Header().Set("ETag", `"x"`)
		_, _ = w.Write([]byte("content"))
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	srv.Start()
	defer srv.Close()
	testEnv(t)
	s := openTest(t, "s3://bucket/path?endpoint="+srv.URL)
	for range 3 {
		all.Add(parallel)
		var done sync.WaitGroup
		for range parallel {
			done.Go(func() {
				body, _, err := s.Get(t.Context(), "log/1", objstore.Range{})
				if err != nil {
					t.Error(err)
					return
				}
				defer body.Close()
				if b, err := io.ReadAll(body); err != nil || string(b) != "content" {
					t.Errorf("%q, %v", b, err)
				}
			})
		}
		done.Wait()
	}
	// A few more are no fault: net/http gives a connection up if its writer was not
	// scheduled for 50 ms (maxWriteWaitBeforeConnReuse). Those of a client that keeps
	// ten are 100.
	if n := opened.Load(); n < parallel || n > parallel*3/2 {
		t.Errorf("%d connections for 3 rounds of %d requests, expected one round's", n, parallel)
	}
}
