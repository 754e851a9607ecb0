package s3store

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/versitygw"
)

func listing(keys string, more string) string {
	var b strings.Builder
	b.WriteString("<ListBucketResult>")
	if more != "" {
		b.WriteString("<IsTruncated>true</IsTruncated>" + more)
	}
	for _, k := range strings.Fields(keys) {
		b.WriteString("<Contents><Key>" + k + "</Key><Size>1</Size><ETag>e</ETag><LastModified>2026-01-02T03:04:05Z</LastModified></Contents>")
	}
	return b.String() + "</ListBucketResult>"
}

// What servers do to listings, and what we make of it.
func TestListOddities(t *testing.T) {
	const token = "<NextContinuationToken>t</NextContinuationToken>"
	for name, tt := range map[string]struct {
		pages []string
		want  string
		err   error
	}{
		"directory marker":        {[]string{listing("path/ path/log/1", "")}, "log/1", nil},
		"StartAfter ignored":      {[]string{listing("path/log/0 path/log/00 path/log/1", "")}, "log/1", nil},
		"two pages":               {[]string{listing("path/log/1", token), listing("path/log/2", "")}, "log/1 log/2", nil},
		"an empty page":           {[]string{listing("", token), listing("path/log/2", "")}, "log/2", nil},
		"page repeated":           {slices.Repeat([]string{listing("path/log/1", token)}, 6), "log/1", objstore.ErrUnsupported},
		"page repeated once":      {[]string{listing("path/log/1", token), listing("path/log/1", token), listing("path/log/2", "")}, "log/1 log/2", nil},
		"out of order":            {slices.Repeat([]string{listing("path/log/2 path/log/1", "")}, 5), "", objstore.ErrUnsupported},
		"out of order once":       {[]string{listing("path/log/2 path/log/1", ""), listing("path/log/1 path/log/2", "")}, "log/1 log/2", nil},
		"truncated without token": {[]string{listing("path/log/1", "<x/>")}, "log/1", objstore.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if q := r.URL.Query(); q.Get("prefix") != "path/log/" || q.Has("start-after") == q.Has("continuation-token") || q.Get("start-after") != "" && q.Get("start-after") != "path/log/00" {
					t.Errorf("page %d is asked for with %s", n, r.URL.RawQuery)
				}
				_, _ = w.Write([]byte(tt.pages[n]))
				n++
			})
			defer func() {
				if n != len(tt.pages) {
					t.Errorf("%d pages were asked for, want %d", n, len(tt.pages))
				}
			}()
			var keys []string
			var last error
			for info, err := range s.List(t.Context(), "log/", "log/00") {
				if last = err; err == nil {
					keys = append(keys, info.Key)
				}
			}
			if strings.Join(keys, " ") != tt.want || !errors.Is(last, tt.err) || (tt.err == nil) != (last == nil) {
				t.Errorf("%q, %v; want %q, %v", keys, last, tt.want, tt.err)
			}
		})
	}
}

// A page that fails is asked for again, without losing or repeating anything.
func TestListPageIsRetried(t *testing.T) {
	n := 0
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch n++; n {
		case 1:
			_, _ = w.Write([]byte(listing("path/a", "<NextContinuationToken>t</NextContinuationToken>")))
		case 2:
			answer(w, 500, "InternalError", "")
		case 3: // XML that ends early
			_, _ = io.WriteString(w, listing("path/b", "")[:40])
		default:
			_, _ = w.Write([]byte(listing("path/b", "")))
		}
	})
	var keys []string
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	if fmt.Sprint(keys) != "[a b]" || n != 4 {
		t.Errorf("%v after %d requests", keys, n)
	}
}

// DeleteObjects answers key by key: only what failed for a passing reason is
// asked for again, and what is refused is reported.
func TestDeletePartly(t *testing.T) {
	n := 0
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked := strings.Count(string(body), "<Key>")
		reply := ""
		switch n++; n {
		case 1:
			if asked != 4 {
				t.Errorf("first request for %d keys", asked)
			}
			for _, e := range []string{"b InternalError", "c AccessDenied", "d NoSuchKey"} {
				key, code, _ := strings.Cut(e, " ")
				reply += "<Error><Key>path/log/" + key + "</Key><Code>" + code + "</Code><Message>why</Message></Error>"
			}
		default:
			if asked != 1 || !strings.Contains(string(body), "path/log/b<") {
				t.Errorf("second request: %s", body)
			}
		}
		_, _ = io.WriteString(w, "<DeleteResult>"+reply+"</DeleteResult>")
	})
	err := s.Delete(t.Context(), "log/a", "log/b", "log/c", "log/d")
	if n != 2 || !errors.Is(err, objstore.ErrDenied) || !strings.Contains(err.Error(), "log/c") || strings.Contains(err.Error(), "log/b") {
		t.Errorf("after %d requests: %v", n, err)
	}
	checkText(t, "delete", err)
}

func TestListed(t *testing.T) {
	for _, tt := range []struct{ key, encoding, prefix, want string }{
		{"path/log/1", "", "path/", "path/log/1"},
		{"path/a%2Bb", "", "path/", "path/a%2Bb"},
		{"path/log/1", "url", "path/", "path/log/1"},
		{"path/a%2Bb+c%0Ad%25", "url", "path/", "path/a+b c\nd%"},
		{"path%2Fa", "url", "path/", "path/a"},
		{"a%2Bb/x%2By", "url", "a+b/", "a+b/x+y"},
		{"a+b/x", "url", "a+b/", "a+b/x"},       // says url, means nothing
		{"a%20b/x", "url", "a%20b/", "a%20b/x"}, // the same
		{"path/100%", "url", "path/", "path/100%"},
		{"my+path/a", "", "my path/", "my path/a"}, // does it and doesn't say so
	} {
		if got := listed(tt.key, types.EncodingType(tt.encoding), tt.prefix); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

// An object whose key XML can't carry is no reason why others can't be listed.
func TestListEncoding(t *testing.T) {
	for _, encodes := range []bool{true, false} {
		testEnv(t)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			q := r.URL.Query()
			if q.Get("encoding-type") != "url" || q.Get("prefix") != "a+b%20c/" {
				t.Errorf("asked %s", r.URL.RawQuery)
			}
			keys := "a+b%20c/log/1 a+b%20c/x+y"
			if encodes {
				keys = "a%2Bb%2520c/log/1 a%2Bb%2520c/x%01%2By+z"
			}
			reply := listing(keys, "")
			if encodes {
				reply = strings.Replace(reply, "<ListBucketResult>", "<ListBucketResult><EncodingType>url</EncodingType>", 1)
			}
			_, _ = io.WriteString(w, reply)
		}))
		defer srv.Close()
		s := openTest(t, "s3://bucket/a+b%20c?endpoint="+srv.URL)
		var keys []string
		for info, err := range s.List(t.Context(), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, info.Key)
		}
		want := "[log/1 x+y]"
		if encodes {
			want = "[log/1 x\x01+y z]"
		}
		if fmt.Sprint(keys) != want {
			t.Errorf("%q, want %q", keys, want)
		}
	}
}

// A path with characters that URLs and forms treat specially is one like others.
func TestOddPath(t *testing.T) {
	gw := versitygw.Start(t)
	for _, path := range []string{"a+b", "a b%20c", "ä/100%", "a&b=c"} {
		s := openTest(t, "s3://bucket/"+path+"?endpoint="+gw.Endpoint)
		if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		n := 0
		for info, err := range s.List(t.Context(), "log/", "") {
			if n++; err != nil || info.Key != "log/1" {
				t.Errorf("%s: listed %q, %v", path, info.Key, err)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d objects", path, n)
		}
		if err := s.Delete(t.Context(), "log/1", "log/2"); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}
