package s3store

import (
	"crypto/md5"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/versitygw"
)

// In a bucket with versioning a deletion leaves a marker, which no listing shows;
// the versions below it stay.
func TestVersionedBucket(t *testing.T) {
	gw := versitygw.StartWith(t, versitygw.Options{Versioning: true})
	s := openTest(t, gw.URL("path"))
	ctx := t.Context()
	listed := func() string {
		t.Helper()
		var keys []string
		for info, err := range s.List(ctx, "", "") {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, info.Key)
		}
		return strings.Join(keys, " ")
	}
	for _, key := range []string{"log/1", "log/2", "log/3"} {
		if err := s.Create(ctx, key, []byte("x")); err != nil {
			t.Fatalf("create %s: %v", key, err)
		}
		if err := s.Create(ctx, key, []byte("y")); !errors.Is(err, objstore.ErrExist) {
			t.Fatalf("create %s once more: %v", key, err)
		}
	}
	for range 2 {
		if _, err := s.Upload(ctx, "data/1", strings.NewReader("z")); err != nil {
			t.Fatal(err)
		}
	}
	if got := listed(); got != "data/1 log/1 log/2 log/3" {
		t.Errorf("listed %q", got)
	}
	if err := s.Delete(ctx, "log/1"); err != nil {
		t.Error(err)
	}
	if err := s.Delete(ctx, "log/2", "log/3", "log/4", "data/1"); err != nil {
		t.Error(err)
	}
	if got := listed(); got != "" {
		t.Errorf("listed %q after the deletion", got)
	}
	if _, _, err := s.Get(ctx, "log/1", objstore.Range{}); !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("get: %v, want ErrNotExist", err)
	}
	for key, want := range map[string][2]int{"path/log/1": {1, 1}, "path/data/1": {2, 1}} {
		out, err := s.client.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &s.t.Bucket, Prefix: &key})
		if err != nil || len(out.Versions) != want[0] || len(out.DeleteMarkers) != want[1] {
			t.Errorf("%s: %d versions and %d markers, want %v; %v", key, len(out.Versions), len(out.DeleteMarkers), want, err)
		}
	}
	// At AWS the key is free now: a conditional write succeeds where the current
	// version is a delete marker (S3 User Guide, "How to prevent object overwrites
	// with conditional writes"). versitygw 1.8 says that it is taken. Nothing here
	// creates a key again that was deleted, so the difference is only noted.
	if err := s.Create(ctx, "log/1", []byte("x")); !errors.Is(err, objstore.ErrExist) {
		t.Errorf("create after the deletion: %v: versitygw is as AWS now: say so here", err)
	}
	if err := s.Put(ctx, "log/1", []byte("x")); err != nil || listed() != "log/1" {
		t.Errorf("put after the deletion: %v; listed %q", err, listed())
	}
}

// What S3 says of a key whose newest version is a delete marker: 404 with
// x-amz-delete-marker to GET and HEAD, as if there had never been an object.
func TestDeleteMarker(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Amz-Delete-Marker", "true")
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			answer(w, 404, "NoSuchKey", "The specified key does not exist.")
		case http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		case http.MethodPut:
			if r.Header.Get("If-None-Match") != "*" {
				t.Error("a create without a condition")
			}
		}
	})
	if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil {
		t.Errorf("create: %v", err)
	}
	if _, _, err := s.Get(t.Context(), "log/1", objstore.Range{Offset: -10}); !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("get: %v", err)
	}
	if _, err := s.head(t.Context(), "log/1", ""); !errors.Is(err, objstore.ErrNotExist) {
		t.Errorf("head: %v", err)
	}
	if err := s.Delete(t.Context(), "log/1"); err != nil {
		t.Errorf("delete: %v", err)
	}
}

// What object lock and MFA delete refuse is an error that says so, of a single key
// and of one among many.
func TestLockedObjects(t *testing.T) {
	for message, want := range map[string]string{
		"Access Denied because object protected by object lock.":                                       "object lock keeps the object",
		"Mfa Authentication must be used for this request: multi-factor authentication is not present": "multi-factor authentication",
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodDelete {
				answer(w, 403, "AccessDenied", message)
				return
			}
			_, _ = io.WriteString(w, "<DeleteResult><Error><Key>path/log/2</Key><Code>AccessDenied</Code><Message>"+message+"</Message></Error></DeleteResult>")
		})
		for keys, named := range map[string]string{"log/1": "log/1", "log/1 log/2": "log/2"} {
			err := s.Delete(t.Context(), strings.Fields(keys)...)
			if !errors.Is(err, objstore.ErrDenied) || !strings.Contains(err.Error(), named) || !strings.Contains(err.Error(), want) {
				t.Errorf("delete %s: %v\nwant %s", keys, err, want)
			}
		}
	}
}

// A bucket whose object lock has a default retention takes writes with a checksum
// alone; servers that don't know the newer ones take Content-MD5.
func TestObjectLockWantsChecksums(t *testing.T) {
	testEnv(t)
	m := &multipartServer{}
	refused := 0
	srv := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			sum := md5.Sum(body)
			if got := r.Header.Get("Content-MD5"); got != base64.StdEncoding.EncodeToString(sum[:]) {
				refused++
				answer(w, 400, "InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters")
				return
			}
		}
		m.handle(w, r)
	})
	err := srv.Create(t.Context(), "log/1", []byte("x"))
	if !errors.Is(err, objstore.ErrUnsupported) || !strings.Contains(err.Error(), "put-object-content-md5=true") || refused != 1 {
		t.Errorf("without: %v after %d refusals", err, refused)
	}
	s := openTest(t, "s3://bucket/path?put-object-content-md5=true&endpoint="+srv.t.Endpoint)
	s.opts.PartSize = testPart
	if err := s.Create(t.Context(), "log/1", []byte("x")); err != nil {
		t.Error(err)
	}
	for _, size := range []int{1, testPart + 1} {
		if _, err := s.Upload(t.Context(), "data/1", strings.NewReader(strings.Repeat("x", size))); err != nil || len(m.object) != size {
			t.Errorf("upload of %d: %v, the object has %d", size, err, len(m.object))
		}
	}
}
