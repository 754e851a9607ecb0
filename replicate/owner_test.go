package replicate

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/faultstore"
)

// Whoever asks learns who took over: status, callback, log and error say it.
func TestFencedBy(t *testing.T) {
	a := newMachine(t, objstore.NewMem(), 1)
	var mu sync.Mutex
	var log bytes.Buffer
	var told []Status
	p := a.open(func(o *EngineOptions) {
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		o.OnState = func(s Status) { mu.Lock(); told = append(told, s); mu.Unlock() }
	})
	a.m.commit()
	p.sync(t)
	b := copyOf(a, 9)
	q := b.open()
	b.m.commit()
	q.sync(t)
	a.m.commit()
	_, err := p.Sync(within(t))
	var fenced *FencedError
	if !errors.As(err, &fenced) {
		t.Fatal(err)
	}
	<-p.Done()
	mu.Lock()
	defer mu.Unlock()
	for _, s := range []Status{p.Status(), told[len(told)-1]} {
		f := s.FencedBy
		if s.State != StateFenced || f == nil || f.Session != q.Status().Session || f.Object != fenced.Key || f.Owner == nil || f.Owner.PID != os.Getpid() {
			t.Fatalf("%+v, by %+v", s, f)
		}
		text, err := json.Marshal(s)
		if err != nil || !strings.Contains(string(text), `"fenced_by":{"session":"`+f.Session+`","object":"log/`) {
			t.Fatalf("%s, %v", text, err)
		}
	}
	if s := q.Status(); s.FencedBy != nil {
		t.Errorf("the other: %+v", s.FencedBy)
	}
	if text := log.String(); !strings.Contains(text, "by_session="+q.Status().Session) || !strings.Contains(text, fenced.Owner.Host) {
		t.Errorf("log: %s", text)
	}
}

// An engine that opened far behind the last claim can still say who wrote there,
// when it is fenced and when it refuses; a commit in between costs nothing.
func TestOwnerBeyondHint(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	a := newMachine(t, fs, 2)
	p := a.open()
	for range 100 {
		a.m.commit()
		p.sync(t)
	}
	b := copyOf(a, 9)
	b.store = fs
	q := b.open() // no lineage: it finds the end by the listing
	if err := q.wait(t); err != nil {
		t.Fatal(err)
	}
	a.m.commit()
	p.sync(t)
	b.m.commit()
	_, err := q.Sync(within(t))
	var fenced *FencedError
	if !errors.As(err, &fenced) || fenced.Owner == nil || fenced.Session.String() != p.Status().Session {
		t.Fatal(err)
	}
	other := newMachine(t, fs, 3)
	grown(other.m, 5)
	other.m.notOurs = true
	lists, gets := fs.Count(faultstore.List), fs.Count(faultstore.Get)
	o := other.open()
	if err := o.wait(t); !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), "last written by session "+p.Status().Session+", "+thisProcess(a.clock.Now()).Program) {
		t.Fatal(err)
	}
	t.Logf("refused after %d listings, %d reads", fs.Count(faultstore.List)-lists, fs.Count(faultstore.Get)-gets)
}

// Claims are never deleted, so there are many in time: not all are read.
func TestHistoryRequests(t *testing.T) {
	fs := faultstore.New(objstore.NewMem())
	mc := newMachine(t, fs, 1)
	for range 35 {
		p := mc.open()
		mc.m.commit()
		p.sync(t)
		p.close(t)
	}
	p := mc.open()
	mc.m.commit()
	p.sync(t)
	var h *History
	var err error
	// The root, 20 claims, the end and what isn't behind it, the first segment with
	// content; everything listed once, and the end of the log.
	if got := requests(fs, func() { h, err = ReadHistory(t.Context(), fs) }); got != "get 24, list 2" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if len(h.Sessions) != 20 || h.OlderSessions != 16 || h.Writer == nil || h.Writer.Session != p.Status().Session || h.Writer.Owner == nil {
		t.Errorf("%d sessions and %d older, writer %+v", len(h.Sessions), h.OlderSessions, h.Writer)
	}
	newest := h.Sessions[19]
	if got := requests(fs, func() { err = h.ReadSessions(t.Context()) }); got != "get 36" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if len(h.Sessions) != 36 || h.OlderSessions != 0 || h.Sessions[35].Session != newest.Session || h.Sessions[0].TXID != 1 {
		t.Errorf("%d sessions and %d older", len(h.Sessions), h.OlderSessions)
	}
	if got := requests(fs, func() { err = h.ReadSessions(t.Context()) }); got != "" || err != nil {
		t.Errorf("%s, %v", got, err)
	}
}

// The commands in refusals can be copied into a shell.
func TestCommandsAreQuoted(t *testing.T) {
	s := situation{database: "/a b/c.db", replica: "s3://b/p?x=1&y=2"}
	if got := s.adoptCommand(); got != "outwash adopt '/a b/c.db' 's3://b/p?x=1&y=2'" {
		t.Error(got)
	}
	s.file = "/etc/out wash.yml" // which has the credentials
	if got := s.adoptCommand(); got != "outwash adopt -config '/etc/out wash.yml' '/a b/c.db'" {
		t.Error(got)
	}
	if got := s.restoreCommand("-force "); got != "outwash restore -force -config '/etc/out wash.yml' '/a b/c.db'" {
		t.Error(got)
	}
}
