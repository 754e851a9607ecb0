package main

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/outwash/outwash/internal/versitygw"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/vfs"
)

// A server that answers conditional writes as Backblaze B2 does, with 501: a
// database is replicated, continued and restored all the same, with a warning.
func TestConditionsRefused(t *testing.T) {
	server := versitygw.Start(t)
	target, err := url.Parse(server.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	var refused atomic.Int64
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPut && r.Header.Get("If-None-Match") != "" {
				refused.Add(1)
				rec := httptest.NewRecorder()
				rec.WriteHeader(http.StatusNotImplemented)
				rec.WriteString(`<Error><Code>NotImplemented</Code><Message>A header you provided implies functionality that is not implemented.</Message></Error>`)
				return rec.Result(), nil
			}
			return http.DefaultTransport.RoundTrip(r)
		}),
	})
	t.Cleanup(proxy.Close)
	replica := "s3://" + server.Bucket + "/weak?region=us-east-1&force-path-style=true&endpoint=" + url.QueryEscape(proxy.URL)

	setupDriver()
	path := filepath.Join(t.TempDir(), "app.db")
	var txid uint64
	for _, sql := range []string{"CREATE TABLE t(n); INSERT INTO t VALUES(1)", "INSERT INTO t VALUES(2)"} {
		c, err := sqlite3.Open(vfs.DSN(path, replica, "replica_max_lag=0"))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Exec(sql); err != nil {
			t.Fatal(err)
		}
		if txid, err = vfs.Sync(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		s, err := vfs.Stat(path)
		if err != nil || !strings.Contains(s.Warning, "refuses conditional writes") || s.Error != "" {
			t.Fatalf("%+v, %v", s, err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := vfs.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := refused.Load(); n != 2 {
		t.Errorf("%d conditional writes were tried, expected one for each session", n)
	}
	store, err := replicate.OpenStore(t.Context(), replica)
	if err != nil {
		t.Fatal(err)
	}
	out := path + ".restored"
	res, err := replicate.Restore(t.Context(), replicate.RestoreOptions{Store: store, Output: out})
	if err != nil || res.TXID != txid {
		t.Fatalf("%+v, %v; acknowledged was TXID %d", res, err, txid)
	}
	c, err := sqlite3.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := queryText(c, "SELECT n FROM t"); err != nil || got != "1\n2" {
		t.Errorf("%q, %v", got, err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
