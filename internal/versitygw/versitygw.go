// Package versitygw runs an S3 server for tests: versitygw over a temporary
// directory, the one free server known to handle conditional writes as S3 does.
package versitygw

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/testserver"
)

// Version is the release that tests run against.
const Version = "v1.8.0"

var program = testserver.Program{Name: "versitygw", Version: Version, Package: "github.com/versity/versitygw/cmd/versitygw@" + Version}

// Options say how a server differs from the usual one.
type Options struct {
	Region string // default us-east-1
	Bucket string // default bucket
	// Domain makes it take buckets from host names: BUCKET.DOMAIN.
	Domain string
	// CertFile and KeyFile make it speak TLS.
	CertFile, KeyFile string
	// Versioning keeps old versions of objects, and delete markers.
	Versioning bool
	// Users makes AddUser possible.
	Users bool
}

// A Server is a running server with one bucket.
type Server struct {
	Endpoint  string // http://127.0.0.1:PORT, or https://
	AccessKey string
	SecretKey string
	Region    string
	Bucket    string

	t       testing.TB
	bin     string
	dir     string
	health  string
	process *testserver.Process
	rights  []statement
}

// Start builds the server if need be, starts it on a free port with credentials
// that no other has, and points the AWS environment of the test at it (so the
// test can't be parallel). It ends with the test. Whatever goes wrong fails the
// test: skipping would hide that nothing was tested.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartWith(t, Options{})
}

// StartWith is Start with options.
func StartWith(t testing.TB, o Options) *Server {
	t.Helper()
	bin, err := program.Build()
	if err != nil {
		t.Fatalf("versitygw: %v", err)
	}
	s := &Server{
		AccessKey: "AK" + rand.Text()[:18],
		SecretKey: rand.Text(),
		Region:    "us-east-1",
		Bucket:    "bucket",
		t:         t,
		bin:       bin,
		dir:       t.TempDir(),
		health:    "/health-" + strings.ToLower(rand.Text()),
	}
	if o.Region != "" {
		s.Region = o.Region
	}
	if o.Bucket != "" {
		s.Bucket = o.Bucket
	}
	// A directory is a bucket; made here, it is there at once and needs no client.
	if err := os.Mkdir(filepath.Join(s.dir, s.Bucket), 0o755); err != nil {
		t.Fatalf("versitygw: %v", err)
	}
	scheme := "http://"
	global := []string{"--access", s.AccessKey, "--secret", s.SecretKey, "--region", s.Region, "--quiet", "--keep-alive"}
	if o.Domain != "" {
		// Every host is taken for a bucket's then, but that of the health check.
		global = append(global, "--virtual-domain", o.Domain)
	}
	if o.CertFile != "" {
		global = append(global, "--cert", o.CertFile, "--key", o.KeyFile)
		scheme = "https://"
	}
	if o.Users {
		global = append(global, "--iam-dir", t.TempDir(), "--iam-cache-disable")
	}
	backend := []string{"posix"}
	if o.Versioning {
		backend = append(backend, "--versioning-dir", t.TempDir())
	}
	backend = append(backend, s.dir)
	s.process = testserver.Run(t, bin, o.CertFile != "", s.health, func(address string) []string {
		return append(append(append([]string{"--port", address}, global...), "--health", s.health), backend...)
	})
	s.Endpoint = scheme + s.process.Address
	for _, kv := range s.Env() {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
	}
	if o.Versioning {
		s.put("versioning", `<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>`)
	}
	return s
}

// URL is the replica URL of a path in the bucket.
func (s *Server) URL(path string) string {
	return fmt.Sprintf("s3://%s/%s?endpoint=%s", s.Bucket, strings.TrimPrefix(path, "/"), s.Endpoint)
}

// Env is what Start sets in the environment, for child processes: credentials and
// region of this server, and nothing of what the machine's user has configured.
func (s *Server) Env() []string {
	return []string{
		"AWS_ACCESS_KEY_ID=" + s.AccessKey,
		"AWS_SECRET_ACCESS_KEY=" + s.SecretKey,
		"AWS_REGION=" + s.Region,
		"AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=" + os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE=" + os.DevNull,
		"AWS_SESSION_TOKEN=",
		"AWS_PROFILE=",
		"AWS_DEFAULT_REGION=",
		"AWS_ENDPOINT_URL=",
		"AWS_ENDPOINT_URL_S3=",
		"AWS_CA_BUNDLE=",
	}
}

// Stop kills the server, as a crash would. What it stored stays until the test
// ends.
func (s *Server) Stop() { s.process.Stop() }

// Restart starts a stopped server again: same address, same content.
func (s *Server) Restart() {
	s.t.Helper()
	s.process.Restart()
}
