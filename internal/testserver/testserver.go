// Package testserver builds and runs programs that tests need as servers. A
// program is built with the Go tool, through the module proxy, at its first use,
// and kept in the user's cache directory: once per machine and version.
package testserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A Program is a server that can be built.
type Program struct {
	Name string // of the executable
	// Version tells builds apart: one that the cache has is not built again.
	Version string
	// Package is what "go install" installs: PACKAGE@VERSION. If it is empty,
	// Files are the main module that "go build" builds.
	Package string
	Files   map[string]string
	// Env is added to the environment of the build, which has no C otherwise.
	Env []string
}

// Build returns the program's executable.
func (p Program) Build() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "outwash-test")
	suffix := ""
	if runtime.GOOS == "windows" {
		suffix = ".exe"
	}
	bin := filepath.Join(dir, p.Name+"-"+p.Version+suffix)
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
	for name, text := range p.Files {
		if err := os.WriteFile(filepath.Join(tmp, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	built := filepath.Join(tmp, p.Name+suffix)
	args := []string{"install", p.Package}
	if p.Package == "" {
		args = []string{"build", "-mod=mod", "-o", built, "."}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = tmp
	// What selects our own module file or platform must not reach this build.
	cmd.Env = append(os.Environ(), "GOBIN="+tmp, "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0", "GOOS=", "GOARCH=", "GO111MODULE=on")
	cmd.Env = append(cmd.Env, p.Env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return bin, os.Rename(built, bin)
}

// A Process is a program that runs, or that ran and can be started again.
type Process struct {
	Address string // HOST:PORT

	t       testing.TB
	bin     string
	command func(address string) []string
	ready   string
	tls     bool
	log     *lockedBuffer
	stop    func()
}

// Run starts an executable on a free port, with the arguments that command makes
// of its address, and waits until it answers a GET of the path ready as its
// caller expects: with 200, or, where that is all it has, at all ("" for ready).
// It ends with the test. Whatever goes wrong fails the test: skipping would hide
// that nothing was tested.
func Run(t testing.TB, bin string, tls bool, ready string, command func(address string) []string) *Process {
	t.Helper()
	p := &Process{t: t, bin: bin, command: command, ready: ready, tls: tls, log: new(lockedBuffer)}
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() && p.log.Len() > 0 {
			t.Logf("%s said:\n%s", filepath.Base(bin), p.log)
		}
	})
	p.start("127.0.0.1:0")
	return p
}

// Stop kills the process, as a crash would. What it stored stays until the test
// ends.
func (p *Process) Stop() {
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
}

// Restart starts a stopped process again: same address, same content.
func (p *Process) Restart() {
	p.t.Helper()
	p.Stop()
	p.start(p.Address)
}

func (p *Process) start(address string) {
	p.t.Helper()
	for try := 1; ; try++ {
		err := p.tryStart(address)
		if err == nil {
			return
		}
		// Between finding a free port and using it, another may take it.
		if try == 5 {
			p.t.Fatalf("%s does not start: %v\n%s", filepath.Base(p.bin), err, p.log)
		}
	}
}

func (p *Process) tryStart(address string) error {
	if strings.HasSuffix(address, ":0") {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		address = l.Addr().String()
		l.Close()
	}
	cmd := exec.Command(p.bin, p.command(address)...)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	// Nothing of what the machine's user has configured for such programs.
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); !strings.HasPrefix(name, "ROOT_") && !strings.HasPrefix(name, "VGW_") && !strings.HasPrefix(name, "RCLONE_") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
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
	if err := p.wait(address, exited); err != nil {
		stop()
		return err
	}
	p.Address, p.stop = address, stop
	return nil
}

// wait asks until the child answers. With a path that only this child can know,
// another server that took the port is not mistaken for it.
func (p *Process) wait(address string, exited <-chan struct{}) error {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // its certificate is the client's business
	}}
	url := "http://" + address + p.ready
	if p.tls {
		url = "https://" + address + p.ready
	}
	deadline := time.After(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := client.Get(url)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK || p.ready == "" {
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
