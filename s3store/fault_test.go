package s3store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
)

// A request that fails for a passing reason is made again; nothing else is.
func TestRetries(t *testing.T) {
	for _, tt := range []struct {
		status int
		code   string
		times  int // this many failures, then success
		want   error
	}{
		{500, "InternalError", 3, nil},
		{503, "SlowDown", 7, nil},
		{503, "", 1, nil},
		{409, "ConditionalRequestConflict", 2, nil},
		{409, "OperationAborted", 2, nil},
		{429, "", 2, nil},
		{400, "RequestTimeout", 1, nil},
		{400, "BadDigest", 1, nil},
		{-1, "", 2, nil}, // the connection is cut
		{403, "AccessDenied", 1, objstore.ErrDenied},
		{501, "NotImplemented", 1, objstore.ErrUnsupported},
		{404, "NoSuchBucket", 1, objstore.ErrNoBucket},
		{412, "PreconditionFailed", 1, objstore.ErrExist},
		{400, "WhoKnows", 1, objstore.ErrUnsupported},
	} {
		t.Run(fmt.Sprint(tt.status, tt.code), func(t *testing.T) {
			var n atomic.Int64
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("If-None-Match") != "*" {
					t.Errorf("%s %s without a condition", r.Method, r.URL)
				}
				body, _ := io.ReadAll(r.Body)
				if string(body) != "data" {
					t.Errorf("attempt %d sends %q", n.Load()+1, body)
				}
				switch {
				case n.Add(1) > int64(tt.times):
				case tt.status < 0:
					cut(w)
				default:
					answer(w, tt.status, tt.code, "why")
				}
			})
			err := s.Create(t.Context(), "log/1", []byte("data"))
			want := int64(tt.times)
			if tt.want == nil {
				want++
			}
			if !errors.Is(err, tt.want) || n.Load() != want {
				t.Errorf("%d requests and %v, want %d and %v", n.Load(), err, want, tt.want)
			}
		})
	}
}

// The SDK's retryer has tokens for about fifty failures; an outage has more.
func TestLongOutage(t *testing.T) {
	var n atomic.Int64
	down := atomic.Bool{}
	down.Store(true)
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1); down.Load() {
			answer(w, 503, "SlowDown", "")
		}
	})
	for i := range 60 {
		err := s.Create(t.Context(), "log/1", nil)
		if err == nil || objstore.Permanent(err) || !strings.Contains(err.Error(), "8 attempts") {
			t.Fatalf("operation %d: %v", i, err)
		}
	}
	if n.Load() != 60*8 {
		t.Errorf("%d requests, want 480", n.Load())
	}
	down.Store(false)
	if err := s.Create(t.Context(), "log/1", nil); err != nil {
		t.Errorf("after the outage: %v", err)
	}
}

func TestBackoff(t *testing.T) {
	var total time.Duration
	for n := 1; n < 100; n++ {
		d := backoff(n)
		if d <= 0 || d > 5*time.Second {
			t.Errorf("pause %d is %v", n, d)
		}
		if n < 8 {
			total += d
		}
	}
	if total < 4*time.Second || total > 12*time.Second {
		t.Errorf("default attempts pause for %v", total)
	}
}

// memServer is the least of S3 that Create and Get need.
type memServer struct {
	objects map[string]string
	// lose says whether the reply to a PUT that was carried out is lost.
	lose func(n int) bool
	puts int
}

func (m *memServer) handle(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPut:
		data, _ := io.ReadAll(r.Body)
		m.puts++
		if _, taken := m.objects[r.URL.Path]; taken {
			answer(w, 412, "PreconditionFailed", "taken")
			return
		}
		m.objects[r.URL.Path] = string(data)
		if m.lose != nil && m.lose(m.puts) {
			cut(w)
		}
	case http.MethodGet:
		data, ok := m.objects[r.URL.Path]
		if !ok {
			answer(w, 404, "NoSuchKey", "")
			return
		}
		_, _ = w.Write([]byte(data))
	}
}

// The reply to our own PUT is lost; the next attempt finds the key taken.
func TestCreateLostReply(t *testing.T) {
	m := &memServer{objects: map[string]string{}, lose: func(n int) bool { return n == 1 }}
	s := serve(t, m.handle)
	if err := s.Create(t.Context(), "log/1", []byte("ours")); err != nil {
		t.Errorf("create: %v, but the object is ours", err)
	}
	if m.puts != 2 || m.objects["/bucket/path/log/1"] != "ours" {
		t.Errorf("%d PUTs, objects %q", m.puts, m.objects)
	}
}

// The connection breaks before the server sees the request, and another writer
// gets the key: its bytes decide.
func TestCreateLostRace(t *testing.T) {
	for _, other := range []string{"theirs", "other", ""} {
		m := &memServer{objects: map[string]string{}}
		first := true
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if first {
				first = false
				m.objects["/bucket/path/log/1"] = other
				cut(w)
				return
			}
			m.handle(w, r)
		})
		if err := s.Create(t.Context(), "log/1", []byte("ours!!")); !errors.Is(err, objstore.ErrExist) {
			t.Errorf("other writer wrote %q: %v, want ErrExist", other, err)
		}
	}
}

// Nothing of ours was under way, so equal bytes don't make it ours.
func TestCreateCleanConflict(t *testing.T) {
	m := &memServer{objects: map[string]string{"/bucket/path/log/1": "same"}}
	gets := 0
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			gets++
		}
		m.handle(w, r)
	})
	if err := s.Create(t.Context(), "log/1", []byte("same")); !errors.Is(err, objstore.ErrExist) || gets != 0 {
		t.Errorf("%v after %d GETs, want ErrExist without any", err, gets)
	}
}

// The object that was in the way is gone when we look: the PUT is made again.
func TestCreateTakenAndGone(t *testing.T) {
	m := &memServer{objects: map[string]string{}}
	n := 0
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch n++; n {
		case 1:
			cut(w)
		case 2:
			answer(w, 412, "PreconditionFailed", "")
		default:
			m.handle(w, r)
		}
	})
	if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil || m.objects["/bucket/path/log/1"] != "x" {
		t.Errorf("%v, objects %q", err, m.objects)
	}
}

// A store that is down during the look-up leaves the outcome open: no ErrExist.
func TestCreateUndecided(t *testing.T) {
	n := 0
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch n++; {
		case n == 1:
			cut(w)
		case r.Method == http.MethodPut:
			answer(w, 412, "PreconditionFailed", "")
		default:
			answer(w, 503, "SlowDown", "")
		}
	})
	err := s.Create(t.Context(), "log/1", []byte("x"))
	if err == nil || objstore.Permanent(err) {
		t.Errorf("%v, want an error that is not permanent", err)
	}
	if n != 2+8 {
		t.Errorf("%d requests, want 2 PUTs and 8 GETs", n)
	}
}

// cuttingServer serves one object, with faults in its bodies.
type cuttingServer struct {
	data   []byte
	etag   string
	ranges []string
	// fault writes the body of the nth response, from byte at on.
	fault func(n int, w http.ResponseWriter, body []byte)
}

func (c *cuttingServer) handle(w http.ResponseWriter, r *http.Request) {
	c.ranges = append(c.ranges, r.Header.Get("Range")+" "+r.Header.Get("If-Match"))
	if m := r.Header.Get("If-Match"); m != "" && m != c.etag {
		answer(w, 412, "PreconditionFailed", "")
		return
	}
	from, to := 0, len(c.data)
	if rg := r.Header.Get("Range"); rg != "" {
		if n, _ := fmt.Sscanf(rg, "bytes=%d-%d", &from, &to); n == 2 {
			to++
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(c.data)))
	}
	w.Header().Set("ETag", c.etag)
	w.Header().Set("Content-Length", fmt.Sprint(to-from))
	if from != 0 || to != len(c.data) {
		w.WriteHeader(http.StatusPartialContent)
	}
	c.fault(len(c.ranges), w, c.data[from:to])
}

func TestBodyIsResumed(t *testing.T) {
	c := &cuttingServer{data: bytes.Repeat([]byte("0123456789"), 100_000), etag: `"v1"`}
	c.fault = func(n int, w http.ResponseWriter, body []byte) {
		if n <= 3 {
			_, _ = w.Write(body[:300_000-n])
			_ = http.NewResponseController(w).Flush()
			cut(w)
			return
		}
		_, _ = w.Write(body)
	}
	s := serve(t, c.handle)
	body, info, err := s.Get(t.Context(), "data/1", objstore.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if err != nil || !bytes.Equal(got, c.data) || info.Size != int64(len(c.data)) {
		t.Errorf("%d bytes of %d and %v", len(got), info.Size, err)
	}
	want := []string{" ", `bytes=299999-999999 "v1"`, `bytes=599997-999999 "v1"`, `bytes=899994-999999 "v1"`}
	if fmt.Sprint(c.ranges) != fmt.Sprint(want) {
		t.Errorf("requests %q, want %q", c.ranges, want)
	}
}

// Another version in the middle of a body must not be glued on.
func TestBodyChangesMeanwhile(t *testing.T) {
	c := &cuttingServer{data: make([]byte, 1000), etag: `"v1"`}
	c.fault = func(_ int, w http.ResponseWriter, body []byte) {
		_, _ = w.Write(body[:500])
		_ = http.NewResponseController(w).Flush()
		c.etag = `"v2"`
		cut(w)
	}
	s := serve(t, c.handle)
	body, _, err := s.Get(t.Context(), "data/1", objstore.Range{})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); !errors.Is(err, objstore.ErrChanged) || len(got) != 500 {
		t.Errorf("%d bytes and %v, want 500 and ErrChanged", len(got), err)
	}
}

// A body that never gets further is given up, with the error that says so.
func TestBodyStaysTruncated(t *testing.T) {
	for _, etag := range []string{"", `"v1"`} {
		c := &cuttingServer{data: make([]byte, 1000), etag: etag}
		c.fault = func(n int, w http.ResponseWriter, body []byte) {
			if n == 1 {
				_, _ = w.Write(body[:500])
			}
			_ = http.NewResponseController(w).Flush()
			cut(w)
		}
		s := serve(t, c.handle)
		body, _, err := s.Get(t.Context(), "data/1", objstore.Range{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		if !errors.Is(err, io.ErrUnexpectedEOF) || len(got) != 500 || objstore.Permanent(err) {
			t.Errorf("%d bytes and %v, want 500 and unexpected EOF", len(got), err)
		}
		if _, again := body.Read(make([]byte, 10)); again == nil || again == io.EOF {
			t.Errorf("reading on: %v", again)
		}
		body.Close()
		if want := map[string]int{"": 1, `"v1"`: 9}[etag]; len(c.ranges) != want {
			t.Errorf("ETag %q: %d requests, want %d", etag, len(c.ranges), want)
		}
	}
}

func TestRangesIgnored(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("everything")) })
	body, _, err := s.Get(t.Context(), "data/1", objstore.Range{Offset: 2})
	if err == nil {
		body.Close()
	}
	if !errors.Is(err, objstore.ErrUnsupported) {
		t.Errorf("%v, want ErrUnsupported", err)
	}
}
