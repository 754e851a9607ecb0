package s3store

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/versitygw"
)

type pending struct {
	key, id string
	age     time.Duration
}

// uploadsServer lists and aborts multipart uploads as S3 does.
type uploadsServer struct {
	uploads  []pending
	page     int
	now      time.Time // the server's clock
	noPrefix bool      // the server doesn't look at prefix
	raw      bool      // nor at encoding-type
	noDate   bool
	stuck    bool // every page says that it goes on with the first
	lists    int
	aborted  []string
	// refuse answers a request instead.
	refuse func(w http.ResponseWriter, op string) bool
}

func (u *uploadsServer) handle(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Date", u.now.UTC().Format(http.TimeFormat))
	if u.noDate {
		w.Header()["Date"] = nil
	}
	q := r.URL.Query()
	op := what(r)
	if op == "get" && q.Has("uploads") {
		op = "list"
		u.lists++
	}
	if u.refuse != nil && u.refuse(w, op) {
		return
	}
	switch op {
	case "list":
		u.list(w, q)
	case "abort":
		key := strings.TrimPrefix(r.URL.Path, "/bucket/")
		n := len(u.uploads)
		u.uploads = slices.DeleteFunc(u.uploads, func(p pending) bool { return p.key == key && p.id == q.Get("uploadId") })
		if n == len(u.uploads) {
			answer(w, 404, "NoSuchUpload", "")
			return
		}
		u.aborted = append(u.aborted, key)
		w.WriteHeader(http.StatusNoContent)
	default:
		answer(w, 400, "Unexpected", r.URL.String())
	}
}

func (u *uploadsServer) list(w http.ResponseWriter, q url.Values) {
	encode := func(s string) string {
		if u.raw {
			return s
		}
		return strings.ReplaceAll(url.QueryEscape(s), "%2F", "/")
	}
	var b strings.Builder
	b.WriteString("<ListMultipartUploadsResult>")
	if !u.raw {
		b.WriteString("<EncodingType>" + q.Get("encoding-type") + "</EncodingType>")
	}
	slices.SortFunc(u.uploads, func(a, b pending) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.id, b.id)) })
	n := 0
	var last pending
	for _, p := range u.uploads {
		if !u.noPrefix && !strings.HasPrefix(p.key, q.Get("prefix")) {
			continue
		}
		if m := q.Get("key-marker"); !u.stuck && (p.key < m || p.key == m && p.id <= q.Get("upload-id-marker")) {
			continue
		}
		if n == u.page {
			fmt.Fprintf(&b, "<IsTruncated>true</IsTruncated><NextKeyMarker>%s</NextKeyMarker><NextUploadIdMarker>%s</NextUploadIdMarker>", encode(last.key), last.id)
			break
		}
		n++
		last = p
		fmt.Fprintf(&b, "<Upload><Key>%s</Key><UploadId>%s</UploadId><Initiated>%s</Initiated></Upload>",
			encode(p.key), p.id, u.now.Add(-p.age).UTC().Format(time.RFC3339))
	}
	b.WriteString("</ListMultipartUploadsResult>")
	_, _ = w.Write([]byte(b.String()))
}

func isData(key string) bool { return strings.HasPrefix(key, "data/") && len(key) == len("data/0001") }

const day = 24 * time.Hour

// Only what is below our path, has a key of ours, and is old, is aborted; by the
// server's clock, however wrong this machine's is.
func TestSweep(t *testing.T) {
	for _, tt := range []struct {
		name string
		u    uploadsServer
	}{
		{"plain", uploadsServer{}},
		{"server's clock is behind", uploadsServer{now: time.Now().Add(-1000 * day)}},
		{"server's clock is ahead", uploadsServer{now: time.Now().Add(1000 * day)}},
		{"prefix ignored", uploadsServer{noPrefix: true}},
		{"not encoded", uploadsServer{raw: true}},
		{"one to a page", uploadsServer{page: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u := &tt.u
			if u.page = cmp.Or(u.page, 1000); u.now.IsZero() {
				u.now = time.Now()
			}
			gone := []pending{{"path/data/0001", "a", 25 * time.Hour}, {"path/data/0001", "b", 100 * day}, {"path/data/0002", "a", day}}
			stays := []pending{
				{"path/data/0003", "young", 23 * time.Hour},
				{"path/data/0004", "future", -day},
				{"path/data/something+else", "a", 100 * day},
				{"path/log/0001", "a", 100 * day},
				{"path/data-other/0001", "a", 100 * day},
				{"path2/data/0001", "a", 100 * day},
				{"path", "a", 100 * day},
				{"data/0001", "a", 100 * day},
				{"other/path/data/0001", "a", 100 * day},
			}
			u.uploads = slices.Concat(stays, gone)
			s := serve(t, u.handle)
			n, err := s.SweepUploads(t.Context(), "data/", day, isData)
			if err != nil || n != len(gone) || fmt.Sprint(u.aborted) != "[path/data/0001 path/data/0001 path/data/0002]" || len(u.uploads) != len(stays) {
				t.Errorf("%d, %v; aborted %v", n, err, u.aborted)
			}
		})
	}
}

// Thousands are read page by page; how many requests that makes is bounded.
func TestSweepIsBounded(t *testing.T) {
	u := &uploadsServer{page: 1000, now: time.Now()}
	for i := range 4500 {
		age := time.Minute
		if i%10 == 0 {
			age = 2 * day
		}
		u.uploads = append(u.uploads, pending{fmt.Sprintf("path/data/%04d", i), "id", age})
	}
	s := serve(t, u.handle)
	if n, err := s.SweepUploads(t.Context(), "data/", day, isData); err != nil || n != 450 || u.lists != 5 || len(u.uploads) != 4050 {
		t.Errorf("%d, %v: %d lists, %d uploads left", n, err, u.lists, len(u.uploads))
	}
	// More pages than one sweep reads, and more uploads than one sweep aborts.
	u.page, u.lists = 10, 0
	if n, err := s.SweepUploads(t.Context(), "data/", day, isData); err != nil || n != 0 || u.lists != sweepPages {
		t.Errorf("%d, %v: %d lists", n, err, u.lists)
	}
	u.page, u.lists = 1000, 0
	if n, err := s.SweepUploads(t.Context(), "data/", 0, isData); err != nil || n != sweepAborts || u.lists > 2 {
		t.Errorf("%d, %v: %d lists", n, err, u.lists)
	}
	u = &uploadsServer{page: 1, now: time.Now(), stuck: true, uploads: []pending{{"path/data/0001", "a", 0}, {"path/data/0002", "a", 0}}}
	s = serve(t, u.handle)
	if n, err := s.SweepUploads(t.Context(), "data/", day, isData); err != nil || n != 0 || u.lists != 2 {
		t.Errorf("a listing without end: %d, %v: %d lists", n, err, u.lists)
	}
}

// Who may not, or can't, is told so by one request.
func TestSweepRefused(t *testing.T) {
	for _, tt := range []struct {
		op     string
		status int
		code   string
		kind   error
	}{
		{"list", 403, "AccessDenied", objstore.ErrDenied},
		{"list", 501, "NotImplemented", objstore.ErrUnsupported},
		{"list", 405, "MethodNotAllowed", objstore.ErrUnsupported},
		{"abort", 403, "AccessDenied", objstore.ErrDenied},
		{"abort", 404, "NoSuchBucket", objstore.ErrNoBucket},
	} {
		n := 0
		u := &uploadsServer{page: 1000, now: time.Now(), uploads: []pending{{"path/data/0001", "a", 2 * day}, {"path/data/0002", "a", 2 * day}}}
		u.refuse = func(w http.ResponseWriter, op string) bool {
			if op != tt.op {
				return false
			}
			n++
			answer(w, tt.status, tt.code, "")
			return true
		}
		s := serve(t, u.handle)
		swept, err := s.SweepUploads(t.Context(), "data/", day, isData)
		if !errors.Is(err, tt.kind) || swept != 0 || n != 1 {
			t.Errorf("%s %s: %d, %v after %d requests", tt.op, tt.code, swept, err, n)
		}
		checkText(t, tt.op, err)
	}
	// Somebody else ended it meanwhile.
	u := &uploadsServer{page: 1000, now: time.Now(), uploads: []pending{{"path/data/0001", "a", 2 * day}, {"path/data/0002", "a", 2 * day}}}
	u.refuse = func(_ http.ResponseWriter, op string) bool {
		if op == "abort" {
			u.uploads = nil
		}
		return false
	}
	s := serve(t, u.handle)
	if n, err := s.SweepUploads(t.Context(), "data/", day, isData); n != 2 || err != nil {
		t.Errorf("uploads that are gone: %d, %v", n, err)
	}
}

// A server that doesn't tell its time is no reason to trust this machine's.
func TestSweepWithoutServerTime(t *testing.T) {
	u := &uploadsServer{page: 1000, now: time.Now(), noDate: true, uploads: []pending{{"path/data/0001", "a", 2 * day}}}
	s := serve(t, u.handle)
	if _, err := s.SweepUploads(t.Context(), "data/", day, isData); !errors.Is(err, objstore.ErrUnsupported) || len(u.aborted) != 0 {
		t.Errorf("%v; aborted %v", err, u.aborted)
	}
}

// Uploads that began in 1970 are those of which the server doesn't know when.
func TestSweepUnknownTime(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	u := &uploadsServer{now: now, page: 10, uploads: []pending{
		{"path/data/0001", "id", now.Sub(time.Unix(0, 0))}, {"path/data/0002", "id", 2 * day},
	}}
	n, err := serve(t, u.handle).SweepUploads(t.Context(), "data/", day, isData)
	if err != nil || n != 1 || len(u.aborted) != 1 || !strings.Contains(u.aborted[0], "0002") {
		t.Errorf("%d %v, aborted %q", n, err, u.aborted)
	}
}

// What a crash leaves at a real server.
func TestSweepRealServer(t *testing.T) {
	gw := versitygw.Start(t)
	s := openTest(t, gw.URL("a/b"))
	begin := func(key string) {
		t.Helper()
		out, err := s.client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &s.t.Bucket, Key: &key})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.client.UploadPart(t.Context(), &s3.UploadPartInput{Bucket: &s.t.Bucket, Key: &key, UploadId: out.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("x")})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"a/b/data/0001", "a/b/data/0002", "a/b/data/something", "a/b/log/0001", "a/data/0001", "a/bb/data/0001"} {
		begin(key)
	}
	left := func() string {
		t.Helper()
		out, err := s.client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &s.t.Bucket})
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, u := range out.Uploads {
			keys = append(keys, *u.Key)
		}
		slices.Sort(keys)
		return strings.Join(keys, " ")
	}
	all := left()
	if n, err := s.SweepUploads(t.Context(), "data/", day, isData); n != 0 || err != nil || left() != all {
		t.Errorf("young ones: %d, %v, left %s", n, err, left())
	}
	// An age that even those have which were begun a moment ago.
	n, err := s.SweepUploads(t.Context(), "data/", -time.Hour, isData)
	if want := "a/b/data/something a/b/log/0001 a/bb/data/0001 a/data/0001"; n != 2 || err != nil || left() != want {
		t.Errorf("%d, %v, left %s, want %s", n, err, left(), want)
	}
}
