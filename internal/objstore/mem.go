package objstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Mem is a store in memory, for tests: also for those of applications, through
// the URL mem://name, which within one process always names the same store.
type Mem struct {
	name    string
	now     func() time.Time
	mu      sync.RWMutex
	objects map[string]memObject
	version uint64
}

type memObject struct {
	data     []byte // never changed, so readers need no lock
	modified time.Time
	etag     string
}

// NewMem returns an empty store that only the caller has.
func NewMem() *Mem { return NewMemAt(time.Now) }

// NewMemAt is NewMem with a clock of its own, which says when objects are modified.
func NewMemAt(now func() time.Time) *Mem {
	return &Mem{name: "private", now: now, objects: map[string]memObject{}}
}

var mems = struct {
	sync.Mutex
	byName map[string]*Mem
}{byName: map[string]*Mem{}}

func openMem(_ context.Context, rawURL string, _ Settings) (Store, error) {
	name := strings.TrimPrefix(rawURL, "mem://")
	if name == "" || strings.ContainsAny(name, "?#") {
		return nil, configError(rawURL, "is not of the form mem://NAME")
	}
	mems.Lock()
	defer mems.Unlock()
	m := mems.byName[name]
	if m == nil {
		m = NewMem()
		m.name = name
		mems.byName[name] = m
	}
	return m, nil
}

// String is the store's URL.
func (m *Mem) String() string { return "mem://" + m.name }

// Create implements Store.
func (m *Mem) Create(ctx context.Context, key string, data []byte) error {
	return m.put(ctx, "create", key, bytes.Clone(data), false)
}

// Put implements Store.
func (m *Mem) Put(ctx context.Context, key string, data []byte) error {
	return m.put(ctx, "put", key, bytes.Clone(data), true)
}

// Upload implements Store.
func (m *Mem) Upload(ctx context.Context, key string, r io.Reader) (int64, error) {
	data, err := io.ReadAll(ctxReader{ctx, r})
	if err != nil {
		return 0, m.fail("upload", key, err)
	}
	return int64(len(data)), m.put(ctx, "upload", key, data, true)
}

func (m *Mem) put(ctx context.Context, op, key string, data []byte, replace bool) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return m.fail(op, key, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, taken := m.objects[key]; taken && !replace {
		return m.fail(op, key, ErrExist)
	}
	m.version++
	m.objects[key] = memObject{data, m.now(), strconv.FormatUint(m.version, 10)}
	return nil
}

// Get implements Store.
func (m *Mem) Get(ctx context.Context, key string, r Range) (io.ReadCloser, Info, error) {
	if err := CheckKey(key); err != nil {
		return nil, Info{}, err
	}
	if err := ctx.Err(); err != nil {
		return nil, Info{}, m.fail("get", key, err)
	}
	m.mu.RLock()
	o, ok := m.objects[key]
	m.mu.RUnlock()
	if !ok {
		return nil, Info{}, m.fail("get", key, ErrNotExist)
	}
	if r.IfMatch != "" && r.IfMatch != o.etag {
		return nil, Info{}, m.fail("get", key, ErrChanged)
	}
	offset, length := r.Bounds(int64(len(o.data)))
	body := bytes.NewReader(o.data[offset : offset+length])
	return io.NopCloser(ctxReader{ctx, body}), o.info(key), nil
}

func (o memObject) info(key string) Info {
	return Info{Key: key, Size: int64(len(o.data)), Modified: o.modified, ETag: o.etag}
}

// List implements Store.
func (m *Mem) List(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		m.mu.RLock()
		var list []Info
		for key, o := range m.objects {
			if strings.HasPrefix(key, prefix) && key > after {
				list = append(list, o.info(key))
			}
		}
		m.mu.RUnlock()
		slices.SortFunc(list, func(a, b Info) int { return strings.Compare(a.Key, b.Key) })
		for _, info := range list {
			if err := ctx.Err(); err != nil {
				yield(Info{}, m.fail("list", prefix, err))
				return
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}

// Delete implements Store.
func (m *Mem) Delete(ctx context.Context, keys ...string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("objstore: delete in %s: %w", m, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		delete(m.objects, key)
	}
	return nil
}

func (m *Mem) fail(op, key string, err error) error {
	return fmt.Errorf("objstore: %s %s/%s: %w", op, m, key, err)
}

// ctxReader ends a read when ctx does.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
