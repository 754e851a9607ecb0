package s3store

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
)

// TestPool: stores opened with a pool have connections and credentials in common, as
// far as nothing that concerns them differs.
func TestPool(t *testing.T) {
	open := func(ctx context.Context, url string) *store {
		t.Helper()
		s, err := open(ctx, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const url = "s3://bucket/a?endpoint=https://minio.example.com"
	pooled := objstore.WithPool(t.Context(), new(objstore.Pool))
	a, b := open(pooled, url), open(pooled, "s3://other/b?region=eu-central-1")
	if a.client.Options().HTTPClient != b.client.Options().HTTPClient {
		t.Error("two stores of a pool have clients of their own")
	}
	if a.creds == nil || a.creds != b.creds {
		t.Error("two stores of a pool have credentials of their own")
	}
	if a.t.Host == b.t.Host || b.t.Region != "eu-central-1" {
		t.Errorf("the stores are at %s and %s in %s", a.t.Host, b.t.Host, b.t.Region)
	}
	if c := open(pooled, "s3://bucket/c?endpoint=https://other.example.com"); c.turns == a.turns || open(pooled, url).turns != a.turns {
		t.Error("a server that hangs holds up writes to another one")
	}
	if open(pooled, url+"&skip-verify=true").client.Options().HTTPClient == a.client.Options().HTTPClient {
		t.Error("a store that verifies certificates has the client of one that doesn't")
	}
	if open(t.Context(), url).client.Options().HTTPClient == a.client.Options().HTTPClient {
		t.Error("a store without a pool has the pool's client")
	}
}

// TestPoolBoundsWrites: of very many writes at the same moment, to as many stores, only
// some are under way at a time.
func TestPoolBoundsWrites(t *testing.T) {
	const stores = 3 * maxWrites
	var mu sync.Mutex
	now, most, full := 0, 0, make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now++
		if most = max(most, now); now == maxWrites {
			select {
			case <-full:
			default:
				close(full)
			}
		}
		mu.Unlock()
		<-full // no write ends before as many are under way as may be
		mu.Lock()
		now--
		mu.Unlock()
		w.Header().Set("ETag", `"x"`)
	}))
	defer srv.Close()
	testEnv(t)
	ctx := objstore.WithPool(t.Context(), new(objstore.Pool))
	var done sync.WaitGroup
	for i := range stores {
		s, err := open(ctx, fmt.Sprintf("s3://bucket/%d?endpoint=%s", i, srv.URL), nil)
		if err != nil {
			t.Fatal(err)
		}
		done.Go(func() {
			if err := s.Create(ctx, "log/1", []byte("content")); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	if most != maxWrites {
		t.Errorf("%d writes at a time, want %d", most, maxWrites)
	}
}
