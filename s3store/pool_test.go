package s3store

import (
	"context"
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
	if open(pooled, url+"&skip-verify=true").client.Options().HTTPClient == a.client.Options().HTTPClient {
		t.Error("a store that verifies certificates has the client of one that doesn't")
	}
	if open(t.Context(), url).client.Options().HTTPClient == a.client.Options().HTTPClient {
		t.Error("a store without a pool has the pool's client")
	}
}
