package s3proxy

import (
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestOperation(t *testing.T) {
	for _, tt := range []struct{ method, url, copyOf, want, key, action string }{
		{"GET", "/", "", "ListBuckets", "", "s3:ListAllMyBuckets"},
		{"HEAD", "/b", "", "HeadBucket", "", "s3:ListBucket"},
		{"GET", "/b?location", "", "GetBucketLocation", "", "s3:GetBucketLocation"},
		{"GET", "/b/?list-type=2&prefix=a/&start-after=a/b&encoding-type=url", "", "ListObjectsV2", "", "s3:ListBucket"},
		{"GET", "/b?prefix=a/", "", "ListObjects", "", "s3:ListBucket"},
		{"GET", "/b?uploads&prefix=a", "", "ListMultipartUploads", "", "s3:ListBucketMultipartUploads"},
		{"GET", "/b?versions", "", "ListObjectVersions", "", "s3:ListBucketVersions"},
		{"POST", "/b?delete", "", "DeleteObjects", "", "s3:DeleteObject"},
		{"PUT", "/b", "", "CreateBucket", "", "s3:CreateBucket"},
		{"GET", "/b/a/k?x-id=GetObject", "", "GetObject", "a/k", "s3:GetObject"},
		{"GET", "/b/a/k?versionId=1", "", "GetObject", "a/k", "s3:GetObjectVersion"},
		{"HEAD", "/b/a/k?versionId=1", "", "HeadObject", "a/k", "s3:GetObjectVersion"},
		{"HEAD", "/b/k", "", "HeadObject", "k", "s3:GetObject"},
		{"PUT", "/b/k%20k?x-id=PutObject", "", "PutObject", "k k", "s3:PutObject"},
		{"PUT", "/b/k", "/b/other", "CopyObject", "k", "s3:PutObject"},
		{"DELETE", "/b/k?x-id=DeleteObject", "", "DeleteObject", "k", "s3:DeleteObject"},
		{"POST", "/b/k?uploads", "", "CreateMultipartUpload", "k", "s3:PutObject"},
		{"PUT", "/b/k?partNumber=1&uploadId=u", "", "UploadPart", "k", "s3:PutObject"},
		{"PUT", "/b/k?partNumber=1&uploadId=u", "/b/o", "UploadPartCopy", "k", "s3:PutObject"},
		{"POST", "/b/k?uploadId=u", "", "CompleteMultipartUpload", "k", "s3:PutObject"},
		{"DELETE", "/b/k?uploadId=u", "", "AbortMultipartUpload", "k", "s3:AbortMultipartUpload"},
		{"GET", "/b/k?uploadId=u", "", "ListParts", "k", "s3:ListMultipartUploadParts"},
		// What isn't known has no name of another operation.
		{"GET", "/b/k?torrent", "", "GET o ?torrent", "k", ""},
		{"PATCH", "/b/k", "", "PATCH o ?", "k", ""},
	} {
		r := httptest.NewRequest(tt.method, "http://127.0.0.1:1"+tt.url, nil)
		if tt.copyOf != "" {
			r.Header.Set("X-Amz-Copy-Source", tt.copyOf)
		}
		c := Parse(r)
		if c.Operation != tt.want || c.Key != tt.key || c.Action() != tt.action {
			t.Errorf("%s %s: %s of %q, takes %q; expected %s of %q, %q", tt.method, tt.url, c.Operation, c.Key, c.Action(), tt.want, tt.key, tt.action)
		}
		if Operation(r) != tt.want {
			t.Errorf("Operation: %s", Operation(r))
		}
	}
	// The bucket in the host's name.
	r := httptest.NewRequest(http.MethodGet, "http://b.s3.example.com:80/a/k", nil)
	if c := Parse(r, "s3.example.com"); c.Bucket != "b" || c.Key != "a/k" || c.Operation != "GetObject" || c.Resource() != "arn:aws:s3:::b/a/k" {
		t.Errorf("virtual-hosted: %+v", c)
	}
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKID/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x")
	if c := Parse(r); c.AccessKey != "AKID" {
		t.Errorf("access key %q", c.AccessKey)
	}
}

// Keys to delete are read from the body, which stays.
func TestDeletedKeys(t *testing.T) {
	const body = `<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Object><Key>a&amp;b</Key></Object><Object><Key>c</Key></Object><Quiet>true</Quiet></Delete>`
	r := httptest.NewRequest(http.MethodPost, "/b?delete", strings.NewReader(body))
	if c := Parse(r); !slices.Equal(c.Keys, []string{"a&b", "c"}) {
		t.Errorf("%q", c.Keys)
	}
	if got, err := io.ReadAll(r.Body); string(got) != body || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
