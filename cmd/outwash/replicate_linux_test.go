package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outwash/outwash/replicate"
)

// fakeFleet is databases that do as a test says.
type fakeFleet struct {
	list  []replicate.Status
	close func(context.Context) error
}

func (f *fakeFleet) Decided(context.Context) error        { return nil }
func (f *fakeFleet) Sync(context.Context) error           { return nil }
func (f *fakeFleet) Statuses() []replicate.Status         { return f.list }
func (f *fakeFleet) Remove(context.Context, string) error { return nil }
func (f *fakeFleet) Close(ctx context.Context) error {
	if f.close == nil {
		return nil
	}
	return f.close(ctx)
}

// newReplication is a run with such databases, and what it says.
func newReplication(t *testing.T, f *fakeFleet) (*replication, *bytes.Buffer) {
	t.Helper()
	said := &bytes.Buffer{}
	p := &replicatePlan{drain: time.Hour}
	for _, s := range f.list {
		p.databases = append(p.databases, target{path: s.Database, replica: s.Replica})
	}
	say := newHerald(newUI(strings.NewReader(""), said, said), p)
	r := &replication{replicatePlan: p, say: say, fleet: f, told: &watchers{}, changed: make(chan struct{}, 1), ended: map[string]bool{}}
	r.signals = watchSignals(say, false)
	t.Cleanup(r.signals.end)
	return r, said
}

// TestReplicateSignals: the first ends the work, one more the drain; a program gets
// all of them instead.
func TestReplicateSignals(t *testing.T) {
	f := &fakeFleet{list: []replicate.Status{{Database: "/a", Replica: "s3://b/a", State: replicate.StateReplicating, Backlog: 3}}}
	f.close = func(ctx context.Context) error {
		<-ctx.Done()
		return errors.New("sidecar: close /a: replicate: /a: 3 entries (30 bytes) are not uploaded")
	}
	r, said := newReplication(t, f)
	r.signals.handle(syscall.SIGHUP)
	if r.signals.stop.Err() != nil || !strings.Contains(said.String(), "SIGHUP: the configuration is read at the start alone") {
		t.Errorf("SIGHUP ended it, or nothing was said: %s", said)
	}
	r.signals.handle(syscall.SIGTERM)
	if r.signals.stop.Err() == nil || r.signals.hard.Err() != nil {
		t.Fatal("SIGTERM doesn't begin the drain, or ends it")
	}
	end := make(chan error, 1)
	go func() { end <- r.end(nil) }()
	r.signals.handle(syscall.SIGINT)
	err := <-end
	if codeOf(err) != codeBehind || !strings.Contains(err.Error(), "3 entries (30 bytes) are not uploaded") {
		t.Errorf("%d, %v", codeOf(err), err)
	}
	if !strings.Contains(said.String(), "uploading what is left of 1 database, for 1h0m0s at most") || strings.Contains(said.String(), "ended;") {
		t.Error(said)
	}

	r, _ = newReplication(t, &fakeFleet{})
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.signals.pass(cmd.Process)
	r.signals.handle(syscall.SIGTERM)
	_ = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGTERM || r.signals.stop.Err() != nil {
		t.Errorf("%v, %v", cmd.ProcessState, r.signals.stop.Err())
	}
}

// TestReplicateEnd: what the exit code is, and what is said.
func TestReplicateEnd(t *testing.T) {
	fine := replicate.Status{Database: "/fine", Replica: "s3://b/fine", State: replicate.StateReplicating}
	fenced := replicate.Status{Database: "/fenced", Replica: "s3://b/fenced", State: replicate.StateFenced, Error: "replicate: another writer", Remedy: "look for it"}
	for _, tt := range []struct {
		name   string
		list   []replicate.Status
		closed error
		err    error
		code   int
		want   string // in the error
		said   string
	}{
		{name: "all stored", list: []replicate.Status{fine}, code: codeOK, said: "outwash: ended; everything is in the replica\n"},
		{name: "two", list: []replicate.Status{fine, {Database: "/b"}}, code: codeOK, said: "in the replicas of 2 databases"},
		{name: "never there", list: []replicate.Status{{Database: "/nosuch", State: replicate.StateOpening}}, code: codeOK, said: "outwash: ended; there was no database\n"},
		{name: "behind", list: []replicate.Status{fine}, closed: errors.New("sidecar: close /fine: store is away"), code: codeBehind, want: "not everything is in the replica yet: close /fine: store is away"},
		{name: "fenced", list: []replicate.Status{fine, fenced}, closed: errors.New("sidecar: close /fenced: /fenced: 2 entries"), code: codeRefused,
			want: "/fenced -> s3://b/fenced: not replicated: fenced: another writer (look for it)"},
		{name: "both", list: []replicate.Status{fine, fenced}, closed: errors.Join(errors.New("sidecar: close /fine: away"), errors.New("sidecar: close /fenced: 2 entries")), code: codeRefused, want: "close /fine: away"},
		{name: "names that end alike", list: []replicate.Status{fine, fenced}, closed: errors.Join(errors.New("sidecar: close /a/fenced: away\nand slow"), nil), code: codeRefused, want: "not everything is in the replica yet: close /a/fenced: away\nand slow"},
		{name: "program", list: []replicate.Status{fine}, err: &childError{3, "exit code 3"}, code: 3, said: "everything is in the replica"},
		{name: "program, behind", list: []replicate.Status{fine}, err: &childError{3, "exit code 3"}, closed: errors.New("sidecar: close /fine: away"), code: 3, want: "away"},
	} {
		f := &fakeFleet{list: tt.list, close: func(context.Context) error { return tt.closed }}
		r, said := newReplication(t, f)
		err := r.say.failed(r.end(tt.err))
		if codeOf(err) != tt.code || (err == nil) != (tt.code == 0) || err != nil && !strings.Contains(err.Error(), tt.want) || !strings.Contains(said.String(), tt.said) {
			t.Errorf("%s: code %d, %v\n%s", tt.name, codeOf(err), err, said)
		}
		if tt.name == "fenced" && strings.Contains(err.Error(), "2 entries") {
			t.Errorf("what a fenced database has left is said, too: %v", err)
		}
	}
}

// TestReplicateManyAreSummed: a thousand databases are no thousand lines.
func TestReplicateManyAreSummed(t *testing.T) {
	f := &fakeFleet{}
	for i := range 1000 {
		s := replicate.Status{Database: fmt.Sprintf("/db%d", i), Replica: "s3://b", State: replicate.StateReplicating}
		if i%10 == 0 {
			s.State, s.Error = replicate.StateFailed, "no"
		}
		f.list = append(f.list, s)
	}
	r, said := newReplication(t, f)
	r.say.begun(f.list)
	if text := said.String(); strings.Count(text, "\n") != mostLines+2 || !strings.HasPrefix(text, "outwash: 1,000 databases: 900 replicating, 100 failed\n") ||
		!strings.Contains(text, "and 90 more\n") {
		t.Error(text)
	}
	if err := r.end(nil); strings.Count(err.Error(), "\n") != mostLines || codeOf(err) != codeRefused {
		t.Error(err)
	}
}

// TestReplicateOpensLate: a database that still opens when it is known of all how they
// are is told of again, once, when it doesn't; however long that takes.
func TestReplicateOpensLate(t *testing.T) {
	late := replicate.Status{Database: "/late", Replica: "s3://b/late", State: replicate.StateOpening}
	never := replicate.Status{Database: "/never", Replica: "s3://b/never", State: replicate.StateOpening}
	f := &fakeFleet{list: []replicate.Status{late, never, {Database: "/fine", Replica: "s3://b/fine", State: replicate.StateReplicating}}}
	r, said := newReplication(t, f)
	r.say.begun(f.list)
	r.say.opened(late)
	late.State, late.TXID, never.State = replicate.StateReplicating, 7, replicate.StateClosed
	for range 2 {
		r.say.opened(late)
		r.say.opened(never)
		r.say.opened(f.list[2])
	}
	const want = "outwash: /late -> s3://b/late: opening\noutwash: /never -> s3://b/never: opening\noutwash: /fine -> s3://b/fine: replicating\noutwash: /late -> s3://b/late: replicating, TXID 7\n"
	if said.String() != want {
		t.Errorf("said:\n%s", said)
	}
}

// TestReplicatePlan: flags win over the file, and the file over what is usual.
func TestReplicatePlan(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("OUTWASH_CONFIG", "")
	const file = "exec: from file\naddr: ':1'\nshutdown-sync-timeout: 5s\nlogging: {level: error, type: json}\nsocket: {enabled: false}\nsync-interval: 3s\ndbs:\n- {path: a.db, restore-if-db-not-exists: true, replica: {path: r}}\n"
	if err := os.WriteFile("f.yml", []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	many := "dbs:\n"
	for i := range mostLines + 1 {
		many += fmt.Sprintf("- {path: %d.db, replica: {path: r%d}}\n", i, i)
	}
	if err := os.WriteFile("many.yml", []byte(many), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ args, want string }{
		{"a.db file:///r", "exec= addr= drain=30s level=INFO format=text socket=; a.db file:///r 0s false"},
		{"-config f.yml", "exec=from file addr=:1 drain=5s level=ERROR format=json socket=; a.db r 3s true"},
		{"-config f.yml a.db", "exec=from file addr=:1 drain=5s level=ERROR format=json socket=; a.db r 3s true"},
		{"-config f.yml -once -log-level debug -log-format text -shutdown-timeout 0s", "exec= addr=:1 drain=0s level=DEBUG format=text socket=; a.db r 3s true"},
		{"-config f.yml -exec x -addr :2 -socket auto", "exec=x addr=:2 drain=5s level=ERROR format=json socket=auto; a.db r 3s true"},
		{"-restore-if-db-not-exists a.db file:///r", "exec= addr= drain=30s level=INFO format=text socket=; a.db file:///r 0s true"},
		{"-config many.yml", "level=WARN"},
		{"-config many.yml -log-level info", "level=INFO"},
		{"-max-lag 0s a.db file:///r", "-max-lag 0s: a duration"},
		{"b.db -config f.yml", "has no database"},
		{"a.db file:///r -config f.yml", "no database has the replica"},
	} {
		fs := flag.NewFlagSet("replicate", flag.ContinueOnError)
		f := &replicateFlags{}
		f.flags(fs)
		args, err := parseFlags(fs, strings.Fields(tt.args))
		if err != nil {
			t.Fatal(err)
		}
		p, err := f.plan(t.Context(), args)
		got := ""
		if err != nil {
			got = "!" + err.Error()
		} else {
			got = fmt.Sprintf("exec=%s addr=%s drain=%s level=%s format=%s socket=%s", p.service.Exec, p.service.Addr, p.drain, p.level, p.service.Logging.Format, p.service.Socket.Path)
			d := p.databases[0]
			cwd, _ := os.Getwd()
			got += strings.ReplaceAll(fmt.Sprintf("; %s %s %s %v", d.path, d.replica, d.maxLag, d.restore), cwd+"/", "")
			got = strings.ReplaceAll(got, "file://r", "r")
		}
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s\nexpected %s", tt.args, got, tt.want)
		}
	}
}
