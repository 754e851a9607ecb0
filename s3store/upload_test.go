package s3store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/objstore/storetest"
)

// multipartServer does multipart uploads in memory.
type multipartServer struct {
	mu     sync.Mutex
	parts  map[string][]byte // of the one upload, by number
	object []byte
	exists bool
	open   bool
	log    []string // what was asked for
	// fault may answer a request instead, before (done false) or after it was
	// carried out; it reports whether it did.
	fault func(m *multipartServer, w http.ResponseWriter, what string, done bool) bool
}

func what(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case r.Method == http.MethodPost && q.Has("uploads"):
		return "initiate"
	case r.Method == http.MethodPost:
		return "complete"
	case r.Method == http.MethodPut && q.Has("partNumber"):
		return "part" + q.Get("partNumber")
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		return "abort"
	}
	return strings.ToLower(r.Method)
}

func (m *multipartServer) handle(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	op := what(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, op)
	if m.fault != nil && m.fault(m, w, op, false) {
		return
	}
	var reply bytes.Buffer
	switch {
	case op == "initiate":
		m.open, m.parts = true, map[string][]byte{}
		reply.WriteString("<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>")
	case strings.HasPrefix(op, "part") || op == "complete" || op == "abort":
		if !m.open {
			answer(w, 404, "NoSuchUpload", "gone")
			return
		}
		switch op {
		case "abort":
			m.open = false
		case "complete":
			m.open, m.exists, m.object = false, true, nil
			for i := range len(m.parts) {
				m.object = append(m.object, m.parts[fmt.Sprintf("part%d", i+1)]...)
			}
			reply.WriteString("<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")
		default:
			m.parts[op] = body
			w.Header().Set("ETag", `"`+op+`"`)
		}
	case op == "put":
		m.exists, m.object = true, body
	case op == "delete":
		m.exists, m.object = false, nil
	case op == "head":
		if !m.exists {
			w.WriteHeader(404)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(m.object)))
	}
	if m.fault != nil && m.fault(m, w, op, true) {
		return
	}
	_, _ = w.Write(reply.Bytes())
}

const testPart = 5 << 20

func uploader(t *testing.T, m *multipartServer) *store {
	s := serve(t, m.handle)
	s.opts.PartSize = testPart
	return s
}

func TestUploadRequests(t *testing.T) {
	for _, tt := range []struct {
		size int64
		want string
	}{
		{0, "put"}, {1, "put"}, {testPart, "put"},
		{testPart + 1, "initiate part1 part2 complete"},
		{2 * testPart, "initiate part1 part2 complete"},
	} {
		m := &multipartServer{}
		s := uploader(t, m)
		data := storetest.Random(7, tt.size)
		n, err := s.Upload(t.Context(), "data/1", bytes.NewReader(data))
		if err != nil || n != tt.size || !bytes.Equal(m.object, data) {
			t.Errorf("%d bytes: %d, %v", tt.size, n, err)
		}
		slices.Sort(m.log[:max(0, len(m.log)-1)])
		if got := strings.Join(m.log, " "); got != tt.want {
			t.Errorf("%d bytes: requests %q, want %q", tt.size, got, tt.want)
		}
	}
}

// Parts that fail for a passing reason are sent again, alone.
func TestUploadPartsAreRetried(t *testing.T) {
	failed := map[string]int{}
	m := &multipartServer{fault: func(_ *multipartServer, w http.ResponseWriter, op string, done bool) bool {
		failed[op]++
		if done || failed[op] > 2 {
			return false
		}
		if failed[op] == 1 {
			cut(w)
		} else {
			answer(w, 503, "SlowDown", "")
		}
		return true
	}}
	s := uploader(t, m)
	// Counted here: a server is not done with a request when its answer has arrived.
	o := s.client.Options()
	next, busy, most := o.HTTPClient, 0, 0
	var mu sync.Mutex
	count := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		busy += n
		most = max(most, busy)
	}
	o.HTTPClient = roundTripper(func(r *http.Request) (*http.Response, error) {
		count(1)
		defer count(-1)
		return next.Do(r)
	})
	s.client = s3.New(o)
	data := storetest.Random(8, 3*testPart+100)
	if _, err := s.Upload(t.Context(), "data/1", bytes.NewReader(data)); err != nil || !bytes.Equal(m.object, data) {
		t.Errorf("%v; object has %d bytes of %d", err, len(m.object), len(data))
	}
	if most > 2 {
		t.Errorf("%d requests at once, want 2", most)
	}
}

// Complete was carried out, its reply lost: the upload is gone, the object there.
func TestCompleteLostReply(t *testing.T) {
	lost := false
	m := &multipartServer{fault: func(_ *multipartServer, w http.ResponseWriter, op string, done bool) bool {
		if op == "complete" && done && !lost {
			lost = true
			cut(w)
			return true
		}
		return false
	}}
	s := uploader(t, m)
	data := storetest.Random(9, testPart+100)
	n, err := s.Upload(t.Context(), "data/1", bytes.NewReader(data))
	if err != nil || n != int64(len(data)) || !m.exists {
		t.Errorf("%d, %v", n, err)
	}
	if got := strings.Join(m.log[len(m.log)-3:], " "); got != "complete complete head" {
		t.Errorf("requests end with %q", got)
	}
}

// S3 may answer 200 and then an error in the body.
func TestCompleteErrorIn200(t *testing.T) {
	n := 0
	m := &multipartServer{fault: func(_ *multipartServer, w http.ResponseWriter, op string, done bool) bool {
		if op != "complete" || done {
			return false
		}
		if n++; n > 1 {
			return false
		}
		answer(w, 200, "InternalError", "We encountered an internal error. Please try again.")
		return true
	}}
	s := uploader(t, m)
	if _, err := s.Upload(t.Context(), "data/1", bytes.NewReader(make([]byte, testPart+1))); err != nil || n != 2 {
		t.Errorf("%v after %d completes", err, n)
	}
}

// Someone aborted the upload (a lifecycle rule): an object of another size does
// not make it ours.
func TestCompleteUploadGone(t *testing.T) {
	m := &multipartServer{fault: func(m *multipartServer, _ http.ResponseWriter, op string, done bool) bool {
		if op == "complete" && !done {
			m.open, m.exists, m.object = false, true, []byte("other")
		}
		return false
	}}
	s := uploader(t, m)
	if _, err := s.Upload(t.Context(), "data/1", bytes.NewReader(make([]byte, testPart+1))); err == nil {
		t.Error("no error")
	}
	if m.exists {
		t.Error("something is left under the key")
	}
}

func TestUploadIsAborted(t *testing.T) {
	broken := errors.New("broken disk")
	for name, tt := range map[string]struct {
		fault func(m *multipartServer, w http.ResponseWriter, op string, done bool) bool
		tail  io.Reader
		want  error
	}{
		"reader fails": {tail: errReader{broken}, want: broken},
		"part refused": {
			fault: func(_ *multipartServer, w http.ResponseWriter, op string, _ bool) bool {
				if op != "part2" {
					return false
				}
				answer(w, 403, "AccessDenied", "")
				return true
			},
			tail: bytes.NewReader(make([]byte, 5*testPart)), want: objstore.ErrDenied,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := &multipartServer{fault: tt.fault}
			s := uploader(t, m)
			r := io.MultiReader(bytes.NewReader(make([]byte, 2*testPart+5)), tt.tail)
			if _, err := s.Upload(t.Context(), "data/1", r); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.open || m.exists {
				t.Errorf("left behind: upload %v, object %v; requests %q", m.open, m.exists, m.log)
			}
		})
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// The caller's context is over, and so can't be the one to clean up with.
func TestUploadCancelledIsAborted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m := &multipartServer{fault: func(_ *multipartServer, _ http.ResponseWriter, op string, _ bool) bool {
		if op == "part2" {
			cancel()
		}
		return false
	}}
	s := uploader(t, m)
	_, err := s.Upload(ctx, "data/1", bytes.NewReader(make([]byte, 6*testPart)))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.open || !slices.Contains(m.log, "abort") {
		t.Errorf("not aborted: requests %q", m.log)
	}
}

// A small object must not cost the memory of a large part.
func TestFillGrowsOnlyAsNeeded(t *testing.T) {
	for _, n := range []int{0, 1, 1000, 256 << 10, 256<<10 + 1, 3 << 20} {
		buf, end, err := fill(bytes.NewReader(make([]byte, n)), nil, 8<<20)
		if err != nil || !end || len(buf) != n || cap(buf) > max(256<<10, 4*n+1) {
			t.Errorf("%d bytes: length %d, capacity %d, end %v, %v", n, len(buf), cap(buf), end, err)
		}
	}
	buf, end, err := fill(bytes.NewReader(make([]byte, 100)), make([]byte, 0, 50), 30)
	if err != nil || end || len(buf) != 30 {
		t.Errorf("a part of 30: %d, %v, %v", len(buf), end, err)
	}
}
