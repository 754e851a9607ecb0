package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/s3store"
)

const (
	// Prefix is below which everything is that an examination writes (see
	// docs/FORMAT.md): no key of a replica, so neither writers nor restores look there.
	Prefix = "doctor/"

	stepTime   = 30 * time.Second // of one step
	graceTime  = 5 * time.Second  // of a write that is under way when the examination is interrupted
	removeTime = 10 * time.Second // of removing what was written, whatever happened
)

// s3 is what stores in S3 can do besides.
type s3 interface {
	Location() s3store.Target
	Reach(ctx context.Context) s3store.Connection
	FindCredentials(ctx context.Context) (s3store.Credentials, error)
	TryMultipart(ctx context.Context, key string, data []byte) (abort, err error)
}

// errDiffers: what was read is not what was written.
var errDiffers = errors.New("what is read is not what was written")

// errUnlisted: a listing does not show what was written, or shows what was deleted.
var errUnlisted = errors.New("the listing is not up to date")

// Options of Examine.
type Options struct {
	ReadOnly bool              // write nothing
	Name     []string          // arguments by which commands name the replica; nil: its URL
	Step     func(what string) // told what is tried next
}

// examination is one run of Examine.
type examination struct {
	store objstore.Store
	opts  Options
	f     *Facts
	id    string
	made  map[string]bool // keys that may exist
}

// Examine tries a store. It takes some twenty small requests, writes objects of a
// few bytes below [Prefix], under names that no other run has, and removes them
// whatever happens, also when ctx ends. A step has half a minute; what depends on
// one that failed is not tried.
func Examine(ctx context.Context, store objstore.Store, opts Options) *Facts {
	x := &examination{store: store, opts: opts, made: map[string]bool{}}
	x.f = &Facts{URL: store.String(), ReadOnly: opts.ReadOnly, Name: opts.Name}
	defer untouched(x.f.URL)()
	x.id = segment.NewID().String()
	if s, ok := store.(s3); ok {
		x.reach(ctx, s)
		if x.f.Connection.Err != nil || x.f.Identity.Err != nil {
			return x.done(ctx)
		}
	}
	x.read(ctx)
	if !opts.ReadOnly && !stops(x.f.List) && !stops(x.f.Missing) {
		x.write(ctx)
	}
	return x.done(ctx)
}

func (x *examination) done(ctx context.Context) *Facts {
	x.remove(ctx)
	x.f.Interrupted = ctx.Err() != nil
	return x.f
}

// try makes one step.
func (x *examination) try(ctx context.Context, what string, f func(context.Context) error) *Try {
	if x.opts.Step != nil {
		x.opts.Step(what)
	}
	if err := ctx.Err(); err != nil {
		return &Try{Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	start := time.Now()
	err := f(ctx)
	return &Try{Err: err, Took: time.Since(start)}
}

// change makes a step that changes something. When ctx ends it is left some time: a
// write that is given up may arrive after what it wrote was removed.
func (x *examination) change(ctx context.Context, what string, f func(context.Context) error) *Try {
	if err := ctx.Err(); err != nil {
		return &Try{Err: err}
	}
	lasting, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(graceTime, cancel) })()
	return x.try(lasting, what, f)
}

// stops reports whether nothing else can succeed after a first read that failed: the
// store can't be reached, or does not take the credentials, or has no such bucket, or
// is no S3 server. A denied permission is none of that.
func stops(t *Try) bool {
	if t == nil || t.Err == nil {
		return false
	}
	if p, ok := s3store.Explain(t.Err); ok && errors.Is(t.Err, objstore.ErrDenied) {
		return !strings.HasPrefix(p.Cause, "denied")
	}
	return !errors.Is(t.Err, objstore.ErrNotExist) && !errors.Is(t.Err, objstore.ErrDenied)
}

func failed(t *Try) bool { return t != nil && t.Err != nil }

// reach looks for server and credentials.
func (x *examination) reach(ctx context.Context, s s3) {
	t := s.Location()
	x.f.Target = &t
	x.f.Identity = x.try(ctx, "credentials", func(ctx context.Context) error {
		c, err := s.FindCredentials(ctx)
		if err == nil {
			x.f.Credentials = &c
		}
		return err
	})
	x.try(ctx, "connection", func(ctx context.Context) error {
		c := s.Reach(ctx)
		x.f.Connection = &c
		return c.Err
	})
}

// read tries what a restore needs.
func (x *examination) read(ctx context.Context) {
	r := &Replica{}
	x.f.List = x.try(ctx, "list", func(ctx context.Context) error { return x.look(ctx, r) })
	if stops(x.f.List) {
		return
	}
	x.f.Missing = x.try(ctx, "read what does not exist", func(ctx context.Context) error {
		_, err := x.get(ctx, x.key(0), objstore.Range{})
		return err
	})
	if stops(x.f.Missing) {
		return
	}
	x.try(ctx, "replica", func(ctx context.Context) error {
		r.Err = x.glance(ctx, r)
		return r.Err
	})
	x.f.Replica = r
}

// key is the nth scratch object's.
func (x *examination) key(n int) string { return fmt.Sprintf("%s%s-%d", Prefix, x.id, n) }

// get reads an object of few bytes.
func (x *examination) get(ctx context.Context, key string, r objstore.Range) ([]byte, error) {
	body, _, err := x.store.Get(ctx, key, r)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(io.LimitReader(body, maxRead))
}

const maxRead = 1 << 16

// write tries what replication needs.
func (x *examination) write(ctx context.Context) {
	f := x.f
	first := []byte("outwash doctor was here: this object can be deleted. " + x.id)
	second := bytes.ToUpper(first)
	one, two, three := x.key(1), x.key(2), x.key(3)

	f.Create = x.change(ctx, "create", func(ctx context.Context) error {
		x.made[one] = true
		return x.store.Create(ctx, one, first)
	})
	if errors.Is(f.Create.Err, objstore.ErrUnsupported) {
		f.Plain = x.change(ctx, "write without condition", func(ctx context.Context) error { return x.store.Put(ctx, one, first) })
	}
	if failed(f.Create) && (f.Plain == nil || failed(f.Plain)) {
		if errors.Is(f.Create.Err, objstore.ErrDenied) {
			delete(x.made, one) // refused for sure: nothing is there
		}
		return
	}
	if f.Plain == nil {
		f.Again = x.change(ctx, "create again", func(ctx context.Context) error { return x.store.Create(ctx, one, second) })
		if f.Again.Err == nil {
			first = second // conditions are ignored
		}
	}
	f.Read = x.try(ctx, "read", func(ctx context.Context) error { return x.compare(ctx, one, objstore.Range{}, first) })
	f.Ranged = x.try(ctx, "read a part", func(ctx context.Context) error {
		return x.compare(ctx, one, objstore.Range{Offset: 8, Length: 6}, first[8:14])
	})
	f.Large = x.change(ctx, "large upload", func(ctx context.Context) error {
		x.made[two] = true
		return x.large(ctx, two, first)
	})
	if errors.Is(f.Large.Err, objstore.ErrDenied) {
		delete(x.made, two)
	}
	f.Small = x.change(ctx, "write", func(ctx context.Context) error {
		x.made[three] = true
		return x.store.Put(ctx, three, first)
	})
	f.Listing = x.try(ctx, "list what was written", func(ctx context.Context) error {
		want := []string{one}
		for _, w := range []struct {
			t   *Try
			key string
		}{{f.Large, two}, {f.Small, three}} {
			if !failed(w.t) {
				want = append(want, w.key)
			}
		}
		return x.listed(ctx, want)
	})
	x.deletions(ctx, one, two, three)
}

func (x *examination) large(ctx context.Context, key string, data []byte) error {
	s, ok := x.store.(s3)
	if !ok {
		_, err := x.store.Upload(ctx, key, bytes.NewReader(data))
		return err
	}
	abort, err := s.TryMultipart(ctx, key, data)
	if err == nil {
		x.f.Abort = &Try{Err: abort}
	}
	return err
}

func (x *examination) compare(ctx context.Context, key string, r objstore.Range, want []byte) error {
	got, err := x.get(ctx, key, r)
	if err == nil && !bytes.Equal(got, want) {
		return fmt.Errorf("%s: %w", key, errDiffers)
	}
	return err
}

// listed compares a listing with the keys that exist.
func (x *examination) listed(ctx context.Context, want []string) error {
	var got []string
	for info, err := range x.store.List(ctx, Prefix+x.id, "") {
		if err != nil {
			return err
		}
		if got = append(got, info.Key); len(got) > 10 {
			break
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		return fmt.Errorf("%w: it has %d objects, %d are there", errUnlisted, len(got), len(want))
	}
	return nil
}

func (x *examination) deletions(ctx context.Context, one, two, three string) {
	f := x.f
	f.Delete = x.change(ctx, "delete", func(ctx context.Context) error { return x.store.Delete(ctx, one) })
	if !failed(f.Delete) {
		delete(x.made, one)
	}
	f.Deletes = x.change(ctx, "delete several", func(ctx context.Context) error { return x.store.Delete(ctx, two, three) })
	if !failed(f.Deletes) {
		delete(x.made, two)
		delete(x.made, three)
	}
	if !failed(f.Delete) && !failed(f.Deletes) && !failed(f.List) {
		f.Vanished = x.try(ctx, "list what was deleted", func(ctx context.Context) error { return x.listed(ctx, nil) })
	}
}

// remove deletes what is left, with a time of its own, and notes what stays.
func (x *examination) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	for n := range 4 {
		key := x.key(n)
		if !x.made[key] {
			continue
		}
		if err := x.store.Delete(ctx, key); err != nil {
			x.f.Left = append(x.f.Left, x.name(key))
		}
	}
}

// name is an object in full.
func (x *examination) name(key string) string {
	u, query, _ := strings.Cut(x.store.String(), "?")
	if query != "" {
		query = "?" + query
	}
	return strings.TrimSuffix(u, "/") + "/" + key + query
}
