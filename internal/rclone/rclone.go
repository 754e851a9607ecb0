// Package rclone runs a second S3 server for tests: "rclone serve s3" over a
// temporary directory. It shares no code with versitygw, so what both do is
// hardly one server's habit.
//
// It is rclone as it is, but with the local backend alone: a build of a minute.
package rclone

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/outwash/outwash/internal/testserver"
)

// Version is the release that tests run against.
const Version = "v1.76.0"

var program = testserver.Program{Name: "rclone", Version: Version, Files: map[string]string{
	"go.mod": "module rclone\n\ngo 1.26\n\nrequire github.com/rclone/rclone " + Version + "\n",
	"main.go": `package main

import (
	_ "github.com/rclone/rclone/backend/local"
	"github.com/rclone/rclone/cmd"
	_ "github.com/rclone/rclone/cmd/serve/s3"
)

func main() { cmd.Main() }
`,
}}

// A Server is a running server with one bucket.
type Server struct {
	Endpoint  string // http://127.0.0.1:PORT
	AccessKey string
	SecretKey string
	Bucket    string
	*testserver.Process
}

// Start builds the server if need be, starts it on a free port with credentials
// that no other has, and points the AWS environment of the test at it (so the
// test can't be parallel). It ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	bin, err := program.Build()
	if err != nil {
		t.Fatalf("rclone: %v", err)
	}
	s := &Server{AccessKey: "AK" + rand.Text()[:18], SecretKey: rand.Text(), Bucket: "bucket"}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, s.Bucket), 0o755); err != nil {
		t.Fatalf("rclone: %v", err)
	}
	s.Process = testserver.Run(t, bin, false, "", func(address string) []string {
		return []string{"serve", "s3", "--addr", address, "--auth-key", s.AccessKey + "," + s.SecretKey, "--config", os.DevNull, dir}
	})
	s.Endpoint = "http://" + s.Address
	for k, v := range s.Env() {
		t.Setenv(k, v)
	}
	return s
}

// Env is what Start sets in the environment: credentials of this server, and
// nothing of what the machine's user has configured.
func (s *Server) Env() map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID": s.AccessKey, "AWS_SECRET_ACCESS_KEY": s.SecretKey, "AWS_REGION": "us-east-1",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_DEFAULT_REGION": "", "AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_S3": "", "AWS_CA_BUNDLE": "",
	}
}

// URL is the replica URL of a path in the bucket.
func (s *Server) URL(path string) string {
	return "s3://" + s.Bucket + "/" + path + "?endpoint=" + s.Endpoint
}
