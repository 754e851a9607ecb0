package main

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/outwash/outwash/replicate/config"
	"github.com/outwash/outwash/vfs"
)

// TestOneWarning: verbs ask twice where a replica is; people are told once what was
// ignored.
func TestOneWarning(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.yml")
	if err := os.WriteFile(file, []byte("levels: []\ndbs: [{path: /a, replica: {path: /r}}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	var f replicaFlags
	fs := flag.NewFlagSet("test", flag.ContinueOnError)
	f.declare(fs)
	told := 0
	configOf(fs).note = func(string, ...any) { told++ }
	if err := fs.Parse([]string{"-config", file}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if url, _, err := f.locate("/a"); err != nil || url != "file:///r" {
			t.Errorf("%s, %v", url, err)
		}
	}
	if told != 1 {
		t.Errorf("warned %d times", told)
	}
}

// TestRefusalsNameTheFile: what a program whose replica is in a configuration file is
// told to run works when it is pasted: credentials may be in the file alone.
func TestRefusalsNameTheFile(t *testing.T) {
	dir := t.TempDir()
	file, database := filepath.Join(dir, "out wash.yml"), filepath.Join(dir, "app.db")
	if err := os.WriteFile(file, []byte("dbs: [{path: '"+database+"', replica: {path: '"+filepath.Join(dir, "replica")+"'}}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	vfs.Register("listed", vfs.Options{Store: cfg.Store, Logger: slog.New(slog.DiscardHandler)})
	dsn := strings.Replace(vfs.DSN(database, ""), "vfs="+vfs.Name, "vfs=listed", 1)
	write := func() error {
		c, err := sqlite3.Open(dsn)
		if err != nil {
			return err
		}
		err = c.Exec("CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES (1)")
		return errors.Join(err, c.Close(), vfs.Shutdown(t.Context()))
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
	named := []string{"-config", file, database}
	refused := func(commands ...string) {
		t.Helper()
		err := write()
		for _, c := range commands {
			if c = fmt.Sprintf("outwash %s -config '%s' %s", c, file, database); err == nil || !strings.Contains(err.Error(), c) {
				t.Errorf("not told %s, but %v", c, err)
			}
		}
	}
	if err := os.Remove(database); err != nil {
		t.Fatal(err)
	}
	refused("restore")
	if code, _, stderr := cli(append([]string{"restore"}, named...)...); code != 0 {
		t.Error(stderr)
	}
	if err := os.WriteFile(database, first, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("restore -force", "adopt")
	url := cfg.Databases[0].URL
	for _, args := range [][]string{named, append(named, url)} {
		if code, out, stderr := cli(append([]string{"adopt"}, args...)...); code != codeUnconfirmed || !strings.Contains(out, "restore -force -config '"+file+"'") {
			t.Error(code, out, stderr)
		}
	}
	if code, _, stderr := cli(append([]string{"adopt", "-yes"}, named...)...); code != 0 {
		t.Error(stderr)
	}
	if err := write(); err != nil {
		t.Error(err)
	}
}
