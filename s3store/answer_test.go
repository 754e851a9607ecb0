package s3store

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
)

// A login page, or whatever answers 200 in S3's place, is no success: nothing was
// written, and an empty listing would be an empty replica.
func TestWebPageIsNoAnswer(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<html><body>Please log in</body></html>")
	})
	s.opts.PartSize = testPart
	for op, err := range every(s) {
		if p, _ := Explain(err); p.Cause != "not-s3" || objstore.Permanent(err) {
			t.Errorf("%s: %v, cause %q", op, err, p.Cause)
		}
		checkText(t, op, err)
	}
}

// Some say no more than OK, to writes too.
func TestWriteIsAnswered(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, "OK")
	})
	s.opts.PartSize = testPart
	for op, err := range every(s) {
		if p, _ := Explain(err); op != "get" && !strings.HasPrefix(op, "delete") && (p.Cause != "not-s3" || objstore.Permanent(err)) {
			t.Errorf("%s: %v, cause %q", op, err, p.Cause)
		}
	}
}

// So is what is no listing.
func TestListingIsOne(t *testing.T) {
	for _, body := range []string{"", "OK", "<html></html>", `<?xml version="1.0"?><Other/>`} {
		asked := 0
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			asked++
			w.Header().Set("Content-Type", "application/xml")
			fmt.Fprint(w, body)
		})
		var err error
		for _, err = range s.List(t.Context(), "log/", "") {
		}
		if p, _ := Explain(err); p.Cause != "not-s3" || objstore.Permanent(err) || asked != s.opts.Attempts {
			t.Errorf("%q: %v after %d requests", body, err, asked)
		}
	}
}

// A 404 without S3's code may come from a load balancer that has lost its server. A
// listing shows whether the object is missing.
func TestNotFoundBySomebodyElse(t *testing.T) {
	for name, tt := range map[string]struct {
		listing func(http.ResponseWriter)
		want    error // nil: some error that passes
	}{
		"missing":            {list(), objstore.ErrNotExist},
		"there":              {list("path/log/1"), nil},
		"listing is denied":  {func(w http.ResponseWriter) { answer(w, 403, "AccessDenied", "") }, objstore.ErrNotExist},
		"listing fails":      {func(w http.ResponseWriter) { answer(w, 503, "SlowDown", "") }, nil},
		"nothing of S3's":    {func(w http.ResponseWriter) { w.WriteHeader(404) }, objstore.ErrNoBucket},
		"there is no bucket": {func(w http.ResponseWriter) { answer(w, 404, "NoSuchBucket", "") }, objstore.ErrNoBucket},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Get("list-type") == "2" {
					tt.listing(w)
					return
				}
				http.Error(w, "404 page not found", http.StatusNotFound)
			})
			_, _, err := s.Get(t.Context(), "log/1", objstore.Range{})
			if err == nil || tt.want == nil && objstore.Permanent(err) || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%v, expected %v", err, tt.want)
			}
			if tt.want != objstore.ErrNotExist && errors.Is(err, objstore.ErrNotExist) {
				t.Errorf("taken for missing: %v", err)
			}
			checkText(t, name, err)
		})
	}
}

// Who knows S3's code knows that the object is missing: nothing is listed.
func TestNoSuchKeyIsBelieved(t *testing.T) {
	asked := 0
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { asked++; answer(w, 404, "NoSuchKey", "") })
	if _, _, err := s.Get(t.Context(), "log/1", objstore.Range{}); !errors.Is(err, objstore.ErrNotExist) || asked != 1 {
		t.Errorf("%v after %d requests", err, asked)
	}
}

// An error may be of any length; it is neither read nor shown in full.
func TestErrorBodyIsBounded(t *testing.T) {
	for _, status := range []int{301, 400, 403, 501} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(status)
			fmt.Fprint(w, "<Error><Code>X</Code><Message>")
			_, _ = io.CopyN(w, zeros{}, 8<<20)
			fmt.Fprint(w, "</Message></Error>")
		})
		if err := s.Put(t.Context(), "log/1", []byte("x")); err == nil || len(err.Error()) > maxErrorBody+1000 {
			t.Errorf("%d: an error of %d bytes", status, len(fmt.Sprint(err)))
		}
	}
}

// zeros is without end, of the digit.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return copy(p, strings.Repeat("0", len(p))), nil }

// What a write and a listing do not find is the bucket, or S3: never an object,
// which would be no reason to try again. A load balancer that has lost its server
// for a moment would end the replication.
func TestNotFoundByWrites(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "404 page not found", http.StatusNotFound) })
	s.opts.PartSize = testPart
	for op, err := range every(s) {
		switch op {
		case "delete", "delete many":
		default:
			if !errors.Is(err, objstore.ErrNoBucket) || errors.Is(err, objstore.ErrNotExist) || !strings.Contains(err.Error(), "endpoint") {
				t.Errorf("%s: %v", op, err)
			}
		}
		checkText(t, op, err)
	}
}

// A lifecycle rule, or the server, may end an upload that takes long: it has to begin
// anew, which is nothing permanent.
func TestUploadThatWasAborted(t *testing.T) {
	m := &multipartServer{}
	m.fault = func(_ *multipartServer, w http.ResponseWriter, op string, _ bool) bool {
		if strings.HasPrefix(op, "part") {
			answer(w, 404, "NoSuchUpload", "")
			return true
		}
		return false
	}
	_, err := uploader(t, m).Upload(t.Context(), "data/1", strings.NewReader(strings.Repeat("x", testPart+1)))
	if p, _ := Explain(err); p.Cause != "no-upload" || objstore.Permanent(err) {
		t.Errorf("%v, cause %q", err, p.Cause)
	}
}

// A server that begins an upload without saying how it is called isn't S3.
func TestUploadWithoutID(t *testing.T) {
	s := serve(t, func(http.ResponseWriter, *http.Request) {})
	s.opts.PartSize = testPart
	_, err := s.Upload(t.Context(), "data/1", strings.NewReader(strings.Repeat("x", testPart+1)))
	if p, _ := Explain(err); p.Cause != "not-s3" || objstore.Permanent(err) {
		t.Errorf("%v, cause %q", err, p.Cause)
	}
}

// What is a wrong endpoint at first is a disturbance once it has worked: it must not
// end the replication.
func TestDisturbance(t *testing.T) {
	for cause, disturb := range map[string]func(http.ResponseWriter){
		"redirect": func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://login.example.com/")
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(http.StatusFound)
			fmt.Fprint(w, "<html></html>")
		},
		"https": func(w http.ResponseWriter) {
			http.Error(w, "Client sent an HTTP request to an HTTPS server.", http.StatusBadRequest)
		},
	} {
		t.Run(cause, func(t *testing.T) {
			broken := true
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if broken {
					disturb(w)
				}
			})
			for op, err := range every(s) {
				if p, _ := Explain(err); !objstore.Permanent(err) || p.Cause != cause {
					t.Errorf("%s, at first: %v, cause %q", op, err, p.Cause)
				}
			}
			broken = false
			if err := s.Put(t.Context(), "log/1", []byte("x")); err != nil {
				t.Fatal(err)
			}
			broken = true
			for op, err := range every(s) {
				if p, _ := Explain(err); objstore.Permanent(err) || p.Cause != cause {
					t.Errorf("%s, later: %v, cause %q", op, err, p.Cause)
				}
				checkText(t, op, err)
			}
		})
	}
}

func TestCertificateExpires(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(srv.Close)
	testEnv(t)
	put := func(s *store) error { return s.Put(t.Context(), "log/1", []byte("x")) }
	s := openTest(t, "s3://bucket/path?endpoint="+srv.URL)
	if err := put(s); !errors.Is(err, objstore.ErrConfig) {
		t.Errorf("not trusted from the beginning: %v", err)
	}
	s.worked.Store(true)
	err := put(s)
	if p, _ := Explain(err); p.Cause != "certificate-authority" || objstore.Permanent(err) {
		t.Errorf("not trusted any more: %v", err)
	}
}
