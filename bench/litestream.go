package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/outwash/outwash/internal/testserver"
)

// litestreamVersion is the release that restores are compared with.
const litestreamVersion = "v0.5.18"

// A litestream is a database that Litestream replicates to the server that b.s3
// names.
type litestream struct {
	bin, config, database string
	env                   []string
	pid                   int // while it runs
}

// litestream writes a configuration file beside a database. endpoint, if any,
// comes in the place of the server's.
func (b *bench) litestream(database, path, endpoint string) (*litestream, error) {
	return b.litestreamOf("path: "+database, database, path, endpoint)
}

// litestreamOf is litestream for an entry of its own, which stands for database.
func (b *bench) litestreamOf(entry, database, path, endpoint string) (*litestream, error) {
	p := testserver.Program{
		Name: "litestream", Version: litestreamVersion,
		Package: "github.com/benbjohnson/litestream/cmd/litestream@" + litestreamVersion,
	}
	bin, err := p.Build()
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(b.s3)
	if err != nil {
		return nil, err
	}
	if endpoint == "" {
		endpoint = u.Query().Get("endpoint")
	}
	var text strings.Builder
	fmt.Fprintf(&text, "dbs:\n  - %s\n    replica:\n      type: s3\n      bucket: %s\n      path: %s\n",
		entry, u.Host, strings.Trim(u.Path, "/")+"/litestream/"+path)
	if endpoint != "" {
		fmt.Fprintf(&text, "      endpoint: %s\n      force-path-style: true\n", endpoint)
	}
	if region := u.Query().Get("region"); region != "" {
		fmt.Fprintf(&text, "      region: %s\n", region)
	}
	l := &litestream{bin: bin, database: database, config: filepath.Join(filepath.Dir(database), "litestream-"+path+".yml")}
	for _, kv := range append(os.Environ(), b.env...) {
		// With this set, it doesn't start.
		if !strings.HasPrefix(kv, "AWS_CA_BUNDLE=") {
			l.env = append(l.env, kv)
		}
	}
	return l, os.WriteFile(l.config, []byte(text.String()), 0o600)
}

// run runs a command to its end.
func (l *litestream) run(ctx context.Context, verb string, args ...string) (took time.Duration, err error) {
	cmd := exec.CommandContext(ctx, l.bin, append([]string{verb, "-config", l.config}, args...)...)
	cmd.Env = l.env
	start := time.Now()
	out, err := cmd.CombinedOutput()
	took = time.Since(start)
	if err != nil {
		return took, fmt.Errorf("litestream %s: %w\n%s", verb, err, out)
	}
	return took, nil
}

func (l *litestream) replicateOnce(ctx context.Context) error {
	_, err := l.run(ctx, "replicate", "-once", "-force-snapshot")
	return err
}

func (l *litestream) restore(ctx context.Context, output string, args ...string) (time.Duration, error) {
	return l.run(ctx, "restore", append(args, "-o", output, l.database)...)
}

// start replicates until stop is called, which lets it upload what is left.
func (l *litestream) start(ctx context.Context) (stop func() error, err error) {
	cmd := exec.CommandContext(ctx, l.bin, "replicate", "-config", l.config)
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = l.env, &out, &out
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l.pid = cmd.Process.Pid
	return func() error {
		err := cmd.Process.Signal(syscall.SIGTERM)
		if e := cmd.Wait(); err == nil && e != nil && !errors.As(e, new(*exec.ExitError)) {
			err = e
		}
		return err
	}, nil
}
