// Package versitygw runs an S3 server for tests: versitygw over a temporary
// directory, the one free server known to handle conditional writes as S3 does.
// It is built with the Go tool at first use, once per machine.
package versitygw

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Version is the release that tests run against.
const Version = "v1.8.0"

const module = "github.com/versity/versitygw/cmd/versitygw@" + Version

// A Server is a running server with one bucket.
type Server struct {
	Endpoint  string // http://127.0.0.1:PORT
	AccessKey string
	SecretKey string
	Region    string
	Bucket    string

	t      testing.TB
	bin    string
	dir    string
	health string
	log    *lockedBuffer
	stop   func()
}

// Start builds the server if need be, starts it on a free port with credentials
// that no other has, and points the AWS environment of the test at it (so the
// test can't be parallel). It ends with the test. Whatever goes wrong fails the
// test: skipping would hide that nothing was tested.
func Start(t testing.TB) *Server {
	t.Helper()
	bin, err := build()
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
		log:       new(lockedBuffer),
	}
	// A directory is a bucket; made here, it is there at once and needs no client.
	if err := os.Mkdir(filepath.Join(s.dir, s.Bucket), 0o755); err != nil {
		t.Fatalf("versitygw: %v", err)
	}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() && s.log.Len() > 0 {
			t.Logf("versitygw said:\n%s", s.log)
		}
	})
	s.start("127.0.0.1:0")
	for _, kv := range s.Env() {
		k, v, _ := strings.Cut(kv, "=")
		t.Setenv(k, v)
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
	}
}

// Stop kills the server, as a crash would. What it stored stays until the test
// ends.
func (s *Server) Stop() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// Restart starts a stopped server again: same address, same content.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	s.start(strings.TrimPrefix(s.Endpoint, "http://"))
}

func (s *Server) start(address string) {
	s.t.Helper()
	for try := 1; ; try++ {
		err := s.tryStart(address)
		if err == nil {
			return
		}
		// Between finding a free port and using it, another may take it.
		if try == 5 {
			s.t.Fatalf("versitygw does not start: %v\n%s", err, s.log)
		}
	}
}

func (s *Server) tryStart(address string) error {
	if strings.HasSuffix(address, ":0") {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		address = l.Addr().String()
		l.Close()
	}
	cmd := exec.Command(s.bin, "--port", address, "--access", s.AccessKey, "--secret", s.SecretKey, "--region", s.Region,
		"--quiet", "--keep-alive", "--health", s.health, "posix", s.dir)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY=", "ROOT_SECRET_KEY=")
	cmd.SysProcAttr = sysProcAttr()
	started := make(chan error)
	exited := make(chan struct{})
	go func() {
		// The child dies with the thread that started it (see sysProcAttr).
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
		close(exited)
	}()
	if err := <-started; err != nil {
		return err
	}
	stop := func() {
		_ = cmd.Process.Kill()
		<-exited
	}
	if err := s.waitHealthy(address, exited); err != nil {
		stop()
		return err
	}
	s.Endpoint = "http://" + address
	s.stop = stop
	return nil
}

// waitHealthy asks for a path that only this child can know, so another server
// that took the port is not mistaken for it.
func (s *Server) waitHealthy(address string, exited <-chan struct{}) error {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := client.Get("http://" + address + s.health)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			err = fmt.Errorf("health check: %s", resp.Status)
		}
		select {
		case <-exited:
			return errors.New("it ended at once")
		case <-deadline:
			return fmt.Errorf("not healthy in time: %w", err)
		case <-tick.C:
		}
	}
}

// build returns the server's executable, which the user's cache directory keeps.
func build() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "outwash-test")
	name := "versitygw-" + Version
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	bin := filepath.Join(dir, name)
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// Test binaries run in parallel; one of them builds.
	unlock, err := lock(bin + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	tmp, err := os.MkdirTemp(dir, "build")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", module)
	cmd.Dir = tmp
	// What selects our own module file or platform must not reach this build.
	cmd.Env = append(os.Environ(), "GOBIN="+tmp, "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0", "GOOS=", "GOARCH=", "GO111MODULE=on")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s: %w\n%s", module, err, out)
	}
	built := filepath.Join(tmp, "versitygw")
	if runtime.GOOS == "windows" {
		built += ".exe"
	}
	return bin, os.Rename(built, bin)
}

// lockedBuffer collects the child's output, which a failing test may read while
// the child still writes.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Len()
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
