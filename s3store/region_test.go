package s3store

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
)

// fakeAWS has a bucket in eu-north-1 and answers as S3 does to who comes from
// elsewhere: in one of the ways that are documented.
type fakeAWS struct {
	mu    sync.Mutex
	way   string
	asked []string // METHOD HOST
}

func (f *fakeAWS) handle(r *http.Request, w *httptest.ResponseRecorder) {
	f.mu.Lock()
	f.asked = append(f.asked, r.Method+" "+r.URL.Host)
	f.mu.Unlock()
	if strings.Contains(r.Header.Get("Authorization"), "/eu-north-1/s3/") {
		return
	}
	malformed := func(extra string) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(400)
		_, _ = w.WriteString("<Error><Code>AuthorizationHeaderMalformed</Code><Message>The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-north-1'</Message>" +
			extra + "<RequestId>REQ123</RequestId></Error>")
	}
	switch {
	case f.way == "301":
		w.Header().Set(regionHeader, "eu-north-1")
		answer(w, 301, "PermanentRedirect", "The bucket you are attempting to access must be addressed using the specified endpoint.")
	case f.way == "bare 301":
		w.Header().Set(regionHeader, "eu-north-1")
		w.WriteHeader(301)
	case f.way == "bare 400": // to HEAD
		w.Header().Set(regionHeader, "eu-north-1")
		w.WriteHeader(400)
	case f.way == "body":
		malformed("<Region>eu-north-1</Region>")
	case f.way == "evil body":
		malformed("<Region>eu.example.com/</Region>")
	case f.way == "evil header":
		w.Header().Set(regionHeader, "x@example.com")
		answer(w, 301, "PermanentRedirect", "")
	case r.Method == http.MethodHead:
		// HeadBucket without s3:ListBucket.
		w.Header().Set(regionHeader, "eu-north-1")
		w.WriteHeader(403)
	case f.way == "untold 301":
		answer(w, 301, "PermanentRedirect", "")
	case f.way == "untold":
		malformed("")
	}
}

const (
	hereHost  = "bucket.s3.us-east-1.amazonaws.com"
	thereHost = "bucket.s3.eu-north-1.amazonaws.com"
)

// A bucket elsewhere is followed there, however the answer says so, and no request
// needs more than the bucket's own permissions: no GetBucketLocation.
func TestRegionIsDiscovered(t *testing.T) {
	for _, tt := range []struct{ way, want string }{
		{"301", ""},
		{"bare 301", ""},
		{"bare 400", ""},
		{"body", ""},
		{"untold 301", "HEAD " + hereHost + " "},
		{"untold", "HEAD " + hereHost + " "},
	} {
		t.Run(tt.way, func(t *testing.T) {
			aws := &fakeAWS{way: tt.way}
			s := offline(t, "bucket", "us-east-1", aws.handle)
			for range 2 {
				if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil {
					t.Fatal(err)
				}
			}
			want := "[PUT " + hereHost + " " + tt.want + "PUT " + thereHost + " PUT " + thereHost + "]"
			if fmt.Sprint(aws.asked) != want {
				t.Errorf("asked %v, want %s", aws.asked, want)
			}
		})
	}
}

// What a server says becomes part of the next host: only a region's name may.
func TestRegionIsNoHost(t *testing.T) {
	for _, way := range []string{"evil body", "evil header"} {
		aws := &fakeAWS{way: way}
		s := offline(t, "bucket", "us-east-1", aws.handle)
		err := s.Create(t.Context(), "log/1", []byte("x"))
		if !errors.Is(err, objstore.ErrConfig) || fmt.Sprint(aws.asked) != "[PUT "+hereHost+"]" {
			t.Errorf("%s: asked %v: %v", way, aws.asked, err)
		}
	}
}

// A region that somebody insists on is not left; the error says which to set.
func TestRegionGivenWrongly(t *testing.T) {
	for _, way := range []string{"301", "bare 301", "bare 400", "body"} {
		aws := &fakeAWS{way: way}
		s := offline(t, "bucket", "us-east-1", aws.handle)
		s.t.regionGiven = true
		err := s.Create(t.Context(), "log/1", []byte("x"))
		if !errors.Is(err, objstore.ErrConfig) || len(aws.asked) != 1 ||
			!strings.Contains(err.Error(), "the bucket is in region eu-north-1, the request was for us-east-1 (from the aws.Config): set region=eu-north-1") {
			t.Errorf("%s: asked %v: %v", way, aws.asked, err)
		}
	}
}

// Requests that were under way when another one found the region follow it, too.
func TestRegionIsFollowedByAll(t *testing.T) {
	const n = 8
	var all sync.WaitGroup // the first request of each has been sent
	all.Add(n)
	s := offline(t, "bucket", "us-east-1", func(r *http.Request, w *httptest.ResponseRecorder) {
		if strings.Contains(r.URL.Host, "eu-north-1") {
			return
		}
		all.Done()
		all.Wait()
		w.Header().Set(regionHeader, "eu-north-1")
		answer(w, 301, "PermanentRedirect", "")
	})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := s.Create(t.Context(), fmt.Sprintf("log/%d", i), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A server of one's own may have another region's name, too: it is signed for, at
// the same address.
func TestRegionOfOtherServers(t *testing.T) {
	aws := &fakeAWS{way: "body"}
	n := 0
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n++
		rec := httptest.NewRecorder()
		aws.handle(r, rec)
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	})
	if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil || n != 2 {
		t.Errorf("%v after %d requests, want success with the second", err, n)
	}
}
