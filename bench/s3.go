package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/versitygw"
)

// useS3 makes an S3 server available: the one that url names, or the one that
// tests use.
func (b *bench) useS3(url string) (stop func(), err error) {
	if url != "" {
		if !strings.HasPrefix(url, "s3://") {
			return nil, fmt.Errorf("-s3=%s: must begin with s3://", url)
		}
		b.s3 = url
		return func() {}, nil
	}
	h := &host{dir: b.dir}
	defer func() {
		if p := recover(); p != nil {
			h.end()
			err = errors.New(fmt.Sprint(p))
		}
	}()
	s := versitygw.Start(h)
	b.s3, b.env = s.URL("bench"), s.Env()
	return h.end, nil
}

// replica is the URL of a new replica on "file" or "s3".
func (b *bench) replica(store, dir, name string) string {
	if store == "file" {
		return "file://" + filepath.Join(dir, "replica")
	}
	path, query, _ := strings.Cut(b.s3, "?")
	if query != "" {
		query = "?" + query
	}
	return fmt.Sprintf("%s/%s-%d%s", strings.TrimSuffix(path, "/"), name, time.Now().UnixNano(), query)
}

// host is what the test server needs of a test.
type host struct {
	testing.TB
	dir     string
	cleanup []func()
}

func (h *host) Helper()                         {}
func (h *host) Failed() bool                    { return false }
func (h *host) Logf(format string, args ...any) {}
func (h *host) Cleanup(f func())                { h.cleanup = append(h.cleanup, f) }
func (h *host) Setenv(key, value string)        { os.Setenv(key, value) }
func (h *host) Fatalf(format string, a ...any)  { panic(fmt.Sprintf(format, a...)) }
func (h *host) TempDir() string {
	d, err := os.MkdirTemp(h.dir, "s3-")
	if err != nil {
		panic(err)
	}
	return d
}

func (h *host) end() {
	for i := len(h.cleanup) - 1; i >= 0; i-- {
		h.cleanup[i]()
	}
	h.cleanup = nil
}
