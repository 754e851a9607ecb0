package s3store

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/outwash/outwash/internal/objstore"
)

// sent is a request as it went out.
type sent struct {
	op     string
	url    string
	host   string
	header http.Header
	length int64
	body   []byte
}

// signed reports whether the signature covers a header.
func (r sent) signed(name string) bool {
	_, list, _ := strings.Cut(r.header.Get("Authorization"), "SignedHeaders=")
	list, _, _ = strings.Cut(list, ",")
	return slices.Contains(strings.Split(list, ";"), strings.ToLower(name))
}

// recorder plays any S3 server, and notes what it was sent.
type recorder struct {
	mu   sync.Mutex
	sent []sent
}

func (c *recorder) RoundTrip(r *http.Request) (*http.Response, error) {
	s := sent{url: r.URL.String(), host: r.URL.Host, header: r.Header.Clone(), length: r.ContentLength}
	if r.Body != nil {
		var err error
		if s.body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	q := r.URL.Query()
	w := httptest.NewRecorder()
	w.Header().Set("ETag", `"e"`)
	reply := func(op, body string) { s.op = op; _, _ = w.WriteString(body) }
	switch {
	case r.Method == http.MethodPut && q.Has("partNumber"):
		reply("UploadPart", "")
	case r.Method == http.MethodPut:
		reply("PutObject", "")
	case r.Method == http.MethodPost && q.Has("uploads"):
		reply("CreateMultipartUpload", "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>")
	case r.Method == http.MethodPost && q.Has("uploadId"):
		reply("CompleteMultipartUpload", "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")
	case r.Method == http.MethodPost && q.Has("delete"):
		reply("DeleteObjects", "<DeleteResult></DeleteResult>")
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
		reply("DeleteObject", "")
	case r.Method == http.MethodHead:
		reply("HeadObject", "")
	case q.Has("list-type"):
		reply("ListObjectsV2", "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
	case r.Header.Get("Range") == "bytes=99-":
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		reply("GetObject", "")
	default:
		reply("GetObject", "content")
	}
	c.mu.Lock()
	c.sent = append(c.sent, s)
	c.mu.Unlock()
	return w.Result(), nil
}

// ofOp returns the requests of one operation.
func (c *recorder) ofOp(op string) []sent {
	var list []sent
	for _, r := range c.sent {
		if r.op == op {
			list = append(list, r)
		}
	}
	return list
}

// record opens the store that a URL and settings name at a recorder.
func record(t *testing.T, rawURL string, given objstore.Settings) (*store, *recorder) {
	t.Helper()
	a, err := parseURL(rawURL, given)
	if err != nil {
		t.Fatal(err)
	}
	rec := &recorder{}
	s, err := newStore(aws.Config{
		Credentials: credentials.NewStaticCredentialsProvider(testKey, testSecret, ""),
		HTTPClient:  &http.Client{Transport: rec},
	}, a, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.opts.PartSize = testPart // TestUploadsOfProviders looks at real ones
	return quick(s), rec
}

// everything makes a store do each operation that it knows.
func everything(t *testing.T, s *store) {
	t.Helper()
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(s.Create(ctx, "log/1", []byte("created")))
	check(s.Put(ctx, "log/2", []byte("put")))
	_, err := s.Upload(ctx, "data/1", strings.NewReader("small"))
	check(err)
	_, err = s.Upload(ctx, "data/2", bytes.NewReader(make([]byte, s.opts.PartSize+1000)))
	check(err)
	body, _, err := s.Get(ctx, "log/1", objstore.Range{})
	check(err)
	_, err = io.ReadAll(body)
	check(err)
	body.Close()
	body, _, err = s.Get(ctx, "log/1", objstore.Range{Offset: 99})
	check(err)
	body.Close()
	for _, err := range s.List(ctx, "", "") {
		check(err)
	}
	check(s.Delete(ctx, "log/1"))
	check(s.Delete(ctx, "log/1", "log/2"))
}

var operations = []string{"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "GetObject", "HeadObject", "ListObjectsV2", "DeleteObject", "DeleteObjects"}

// What each provider is sent, request by request.
func TestProvidersRequests(t *testing.T) {
	for _, tt := range []struct {
		url, host, region string
	}{
		{"s3://bucket/p?endpoint=https://minio.example.com", "minio.example.com", "us-east-1"},
		{"s3://bucket.s3.us-west-004.backblazeb2.com/p", "s3.us-west-004.backblazeb2.com", "us-west-004"},
		{"s3://bucket.nyc3.digitaloceanspaces.com/p", "bucket.nyc3.digitaloceanspaces.com", "us-east-1"},
		{"s3://bucket.eu-central-1.linodeobjects.com/p", "bucket.eu-central-1.linodeobjects.com", "us-east-1"},
		{"s3://bucket.s3.fr-par.scw.cloud/p", "bucket.s3.fr-par.scw.cloud", "fr-par"},
		{"s3://bucket.acc.r2.cloudflarestorage.com/p", "acc.r2.cloudflarestorage.com", "auto"},
		{"s3://bucket.t3.storage.dev/p", "bucket.t3.storage.dev", "auto"},
		{"s3://bucket.storage.googleapis.com/p", "storage.googleapis.com", "auto"},
		{"s3://bucket.s3.eu-central-1.wasabisys.com/p", "s3.eu-central-1.wasabisys.com", "eu-central-1"},
		{"s3://bucket.fsn1.your-objectstorage.com/p", "bucket.fsn1.your-objectstorage.com", "fsn1"},
		{"s3://bucket.s3.gra.io.cloud.ovh.net/p", "bucket.s3.gra.io.cloud.ovh.net", "gra"},
		{"s3://bucket.s3.filebase.com/p", "s3.filebase.com", "us-east-1"},
		{"s3://bucket/p?endpoint=https://x.storage.supabase.co/storage/v1/s3&region=eu-west-1", "x.storage.supabase.co", "eu-west-1"},
		{"s3://bucket.br-x.storage.c-6.us-east-2.aws.neon.tech/p", "br-x.storage.c-6.us-east-2.aws.neon.tech", "us-east-2"},
	} {
		t.Run(tt.host, func(t *testing.T) {
			s, rec := record(t, tt.url, nil)
			everything(t, s)
			if s.t.Host != tt.host {
				t.Errorf("Target.Host is %s", s.t.Host)
			}
			for _, op := range operations {
				if len(rec.ofOp(op)) == 0 {
					t.Errorf("no %s", op)
				}
			}
			tigris, google := s.t.Provider == "Tigris", s.t.Provider == "Google Cloud Storage"
			for _, r := range rec.sent {
				if r.host != tt.host || !strings.Contains(r.header.Get("Authorization"), "/"+tt.region+"/s3/") {
					t.Errorf("%s went to %s, signed %s", r.op, r.url, r.header.Get("Authorization"))
				}
				// The signature covers the content, nothing is chunked, and the
				// length is known.
				sum := sha256.Sum256(r.body)
				if got := r.header.Get("X-Amz-Content-Sha256"); got != hex.EncodeToString(sum[:]) {
					t.Errorf("%s: X-Amz-Content-Sha256 is %q", r.op, got)
				}
				if e := r.header.Get("Content-Encoding"); e != "" || r.header.Get("X-Amz-Decoded-Content-Length") != "" || r.length != int64(len(r.body)) {
					t.Errorf("%s: Content-Encoding %q, length %d for %d bytes", r.op, e, r.length, len(r.body))
				}
				for name := range r.header {
					low := strings.ToLower(name)
					if strings.Contains(low, "checksum") && (r.op != "DeleteObjects" || !tigris) || low == "x-amz-trailer" {
						t.Errorf("%s: %s: %s", r.op, name, r.header.Get(name))
					}
				}
				sumMD5 := md5.Sum(r.body)
				wantMD5 := ""
				if r.op == "DeleteObjects" && !tigris {
					wantMD5 = base64.StdEncoding.EncodeToString(sumMD5[:])
				}
				if got := r.header.Get("Content-MD5"); got != wantMD5 {
					t.Errorf("%s: Content-MD5 is %q, want %q", r.op, got, wantMD5)
				}
				if got := r.header.Get("X-Tigris-Consistent"); tigris && (got != "true" || !r.signed("X-Tigris-Consistent")) || !tigris && got != "" {
					t.Errorf("%s: X-Tigris-Consistent is %q", r.op, got)
				}
				if r.signed("Accept-Encoding") == google && r.header.Get("Accept-Encoding") != "" || google && r.header.Get("Accept-Encoding") != "identity" {
					t.Errorf("%s: Accept-Encoding %q, signed: %v", r.op, r.header.Get("Accept-Encoding"), r.signed("Accept-Encoding"))
				}
			}
		})
	}
}

// What AWS gets: checksums, as trailers where there is a body.
func TestRequestsAtAWS(t *testing.T) {
	s, rec := record(t, "s3://bucket/p?region=eu-west-1", nil)
	everything(t, s)
	for _, r := range rec.sent {
		switch r.op {
		case "PutObject", "UploadPart":
			if r.header.Get("X-Amz-Trailer") != "x-amz-checksum-crc32" || r.header.Get("X-Amz-Content-Sha256") != "STREAMING-UNSIGNED-PAYLOAD-TRAILER" {
				t.Errorf("%s: %v", r.op, r.header)
			}
		case "DeleteObjects":
			if r.header.Get("X-Amz-Checksum-Crc32") == "" || r.header.Get("Content-MD5") != "" {
				t.Errorf("%s: %v", r.op, r.header)
			}
		}
		if r.host != "bucket.s3.eu-west-1.amazonaws.com" || r.header.Get("Accept-Encoding") != "" && !r.signed("Accept-Encoding") {
			t.Errorf("%s: %s %v", r.op, r.host, r.header)
		}
	}
}

// Part size and concurrency: settings win over options, options over what the
// provider wants.
func TestUploadsOfProviders(t *testing.T) {
	for _, tt := range []struct {
		url   string
		opts  Options
		size  int64
		count int
	}{
		{"s3://bucket/p", Options{}, 8 << 20, 2},
		{"s3://bucket.t3.storage.dev/p", Options{}, 16 << 20, 2},
		{"s3://bucket.acc.r2.cloudflarestorage.com/p", Options{}, 8 << 20, 2},
		{"s3://bucket.t3.storage.dev/p", Options{PartSize: 6 << 20, Concurrency: 3}, 6 << 20, 3},
		{"s3://bucket.t3.storage.dev/p?part-size=10MB&concurrency=4", Options{PartSize: 6 << 20, Concurrency: 3}, 10_000_000, 4},
	} {
		a, err := parseURL(tt.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		rec := &recorder{}
		s, err := newStore(aws.Config{Credentials: credentials.NewStaticCredentialsProvider(testKey, testSecret, ""), HTTPClient: &http.Client{Transport: rec}}, a, tt.opts)
		if err != nil {
			t.Fatal(err)
		}
		if s.opts.PartSize != tt.size || s.opts.Concurrency != tt.count {
			t.Errorf("%s: parts of %d, %d at a time", tt.url, s.opts.PartSize, s.opts.Concurrency)
		}
		if tt.size == 8<<20 {
			continue // as everything does
		}
		if _, err := s.Upload(t.Context(), "data/1", bytes.NewReader(make([]byte, tt.size+5))); err != nil {
			t.Error(err)
		}
		parts := rec.ofOp("UploadPart")
		if len(parts) != 2 || max(parts[0].length, parts[1].length) != tt.size {
			t.Errorf("%s: %d parts", tt.url, len(parts))
		}
	}
}

// Settings that are headers: which operation gets which.
func TestSettingsOnRequests(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	raw := md5.Sum(bytes.Repeat([]byte{7}, 32))
	keyMD5 := base64.StdEncoding.EncodeToString(raw[:])
	const sse = "X-Amz-Server-Side-Encryption"
	writes := []string{"PutObject", "CreateMultipartUpload"}
	withKey := []string{"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "GetObject", "HeadObject"}
	for _, tt := range []struct {
		url    string
		given  objstore.Settings
		header string
		want   string
		ops    []string
	}{
		{"s3://bucket/p", nil, sse, "", nil},
		{"s3://bucket/p", nil, "X-Amz-Storage-Class", "", nil},
		{"s3://bucket/p?sse=AES256", nil, sse, "AES256", writes},
		{"s3://bucket/p?sse=aws:kms:dsse", nil, sse, "aws:kms:dsse", writes},
		{"s3://bucket/p?sse-kms-key-id=alias/outwash", nil, sse, "aws:kms", writes},
		{"s3://bucket/p?sse-kms-key-id=alias/outwash", nil, sse + "-Aws-Kms-Key-Id", "alias/outwash", writes},
		{"s3://bucket/p?sse=aws:kms:dsse&sseKmsKeyId=alias/outwash", nil, sse, "aws:kms:dsse", writes},
		{"s3://bucket/p", objstore.Settings{"sse-customer-key": key}, sse + "-Customer-Algorithm", "AES256", withKey},
		{"s3://bucket/p", objstore.Settings{"sse-customer-key": key, "sse-customer-algorithm": "AES256"}, sse + "-Customer-Key", key, withKey},
		{"s3://bucket/p", objstore.Settings{"sse-customer-key": key}, sse + "-Customer-Key-Md5", keyMD5, withKey},
		{"s3://bucket/p?endpoint=minio.example.com", objstore.Settings{"sse-customer-key": key}, sse + "-Customer-Key", key, withKey},
		{"s3://bucket/p?sign-payload=false&endpoint=minio.example.com", nil, "X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD", operations},
		{"s3://bucket/p?put-object-content-md5=true", nil, "Content-MD5", "*", []string{"PutObject", "UploadPart"}},
		{"s3://bucket/p?require-content-md5=true", nil, "Content-MD5", "*", []string{"DeleteObjects"}},
		{"s3://bucket/p?endpoint=minio.example.com&require-content-md5=false", nil, "X-Amz-Checksum-Crc32", "*", []string{"DeleteObjects"}},
	} {
		t.Run(tt.url+" "+tt.header, func(t *testing.T) {
			s, rec := record(t, tt.url, tt.given)
			everything(t, s)
			for _, r := range rec.sent {
				got := r.header.Get(tt.header)
				want := ""
				if slices.Contains(tt.ops, r.op) {
					want = tt.want
				}
				if got != want && !(want == "*" && got != "") {
					t.Errorf("%s: %s is %q, want %q", r.op, tt.header, got, want)
				}
				if got != "" && strings.HasPrefix(tt.header, "X-") && !r.signed(tt.header) {
					t.Errorf("%s: %s is not signed", r.op, tt.header)
				}
				if tt.header == "Content-MD5" && got != "" {
					if sum := md5.Sum(r.body); got != base64.StdEncoding.EncodeToString(sum[:]) {
						t.Errorf("%s: Content-MD5 is wrong", r.op)
					}
				}
			}
		})
	}
}

// Snapshots, and whatever else Upload writes, may have another class than the log,
// however large they are.
func TestStorageClasses(t *testing.T) {
	for _, tt := range []struct{ query, log, data string }{
		{"", "", ""},
		{"storage-class=STANDARD_IA", "STANDARD_IA", "STANDARD_IA"},
		{"snapshot-storage-class=GLACIER_IR", "", "GLACIER_IR"},
		{"storageClass=INTELLIGENT_TIERING&snapshot-storage-class=STANDARD_IA", "INTELLIGENT_TIERING", "STANDARD_IA"},
	} {
		s, rec := record(t, "s3://bucket/p?"+tt.query, nil)
		everything(t, s)
		n := 0
		for _, r := range rec.sent {
			want := ""
			switch {
			case r.op == "PutObject" && strings.Contains(r.url, "/log/"):
				want, n = tt.log, n+1
			case r.op == "PutObject" || r.op == "CreateMultipartUpload":
				want, n = tt.data, n+1
			}
			if got := r.header.Get("X-Amz-Storage-Class"); got != want {
				t.Errorf("%s: %s %s has class %q, want %q", tt.query, r.op, r.url, got, want)
			}
		}
		if n != 4 {
			t.Errorf("%d writes seen", n)
		}
	}
}

// sign-payload=true at AWS: the signature covers the content, no trailer does.
func TestSignPayloadAtAWS(t *testing.T) {
	s, rec := record(t, "s3://bucket/p?sign-payload=true", nil)
	everything(t, s)
	for _, r := range rec.sent {
		sum := sha256.Sum256(r.body)
		if r.header.Get("X-Amz-Content-Sha256") != hex.EncodeToString(sum[:]) || r.header.Get("X-Amz-Trailer") != "" {
			t.Errorf("%s: %v", r.op, r.header)
		}
	}
}

// Facts is complete, and free of secrets.
func TestFacts(t *testing.T) {
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	s, _ := record(t, "s3://bucket.t3.storage.dev/a/b?snapshot-storage-class=STANDARD_IA&skip-verify=false", objstore.Settings{
		"access-key-id": testKey, "secret-access-key": testSecret, "session-token": testToken, "sse-customer-key": key,
	})
	var lines []string
	for _, f := range s.t.Facts() {
		lines = append(lines, f.Name+": "+f.Value)
	}
	got := strings.Join(lines, "\n")
	want := `provider: Tigris
bucket: bucket
path: a/b
endpoint: https://t3.storage.dev (from the URL's host)
host: bucket.t3.storage.dev
region: auto (from what Tigris wants)
style: virtual-hosted: the bucket is part of the host
integrity: content signed
headers: X-Tigris-Consistent: true
encryption: SSE-C
snapshots' class: STANDARD_IA`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	all := got + s.String() + fmt.Sprintf("%+v", s.t)
	for _, secret := range []string{testKey, testSecret, testToken, key} {
		if strings.Contains(all, secret) {
			t.Errorf("a secret is shown: %s", all)
		}
	}
	s, _ = record(t, "s3://"+accessPoint, nil)
	if f := s.t.Facts(); f[1] != (Fact{"access point", accessPoint}) {
		t.Errorf("%v", f)
	}
	if _, err := s.creds.Retrieve(context.Background()); err != nil {
		t.Error(err)
	}
}
