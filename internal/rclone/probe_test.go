package rclone

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// A client speaks S3 without any SDK, which would hide what a server does.
type client struct {
	t        *testing.T
	endpoint string
	bucket   string
	creds    aws.Credentials
	region   string
	at       time.Time // the client's clock; zero: right
}

// A reply is what a server answered.
type reply struct {
	status int
	header http.Header
	body   []byte
	code   string // of the error
}

// String is how probes compare replies: "404 NoSuchKey".
func (r reply) String() string { return strings.TrimSpace(fmt.Sprintf("%d %s", r.status, r.code)) }

// do sends a request: path below the bucket, with a query; header is pairs of
// names and values.
func (c client) do(method, path, body string, header ...string) reply {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.endpoint+"/"+c.bucket+path, bytes.NewReader([]byte(body)))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	sum := sha256.Sum256([]byte(body))
	hash := hex.EncodeToString(sum[:])
	req.Header.Set("X-Amz-Content-Sha256", hash)
	at := c.at
	if at.IsZero() {
		at = time.Now()
	}
	err = v4.NewSigner().SignHTTP(c.t.Context(), c.creds, req, hash, "s3", c.region, at, func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	r := reply{status: resp.StatusCode, header: resp.Header}
	if r.body, err = io.ReadAll(resp.Body); err != nil {
		c.t.Fatal(err)
	}
	var e struct{ Code string }
	if resp.StatusCode >= 300 || bytes.Contains(r.body, []byte("<Error>")) {
		_ = xml.Unmarshal(r.body, &e) // what can't be read has no code
	}
	r.code = e.Code
	return r
}

// upload begins a multipart upload and sends its parts, and returns what completes
// it: the path and the body.
func (c client) upload(key string, parts ...string) (path, body string) {
	c.t.Helper()
	var begun struct{ UploadId string }
	if err := xml.Unmarshal(c.do(http.MethodPost, key+"?uploads=", "").body, &begun); err != nil || begun.UploadId == "" {
		c.t.Fatalf("no upload ID: %v", err)
	}
	var b strings.Builder
	b.WriteString("<CompleteMultipartUpload>")
	for i, p := range parts {
		r := c.do(http.MethodPut, fmt.Sprintf("%s?partNumber=%d&uploadId=%s", key, i+1, begun.UploadId), p)
		fmt.Fprintf(&b, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i+1, r.header.Get("Etag"))
	}
	b.WriteString("</CompleteMultipartUpload>")
	return key + "?uploadId=" + begun.UploadId, b.String()
}

// A probe is one thing that S3 does, with what it answers and where that is
// written.
type probe struct {
	name   string
	s3     string
	source string
	run    func(c client) string
}

const api = "S3 API Reference, "

var part = strings.Repeat("x", 5<<20)

var probes = []probe{
	{"create of a key that is taken, with If-None-Match: *", "412 PreconditionFailed", api + "PutObject", func(c client) string {
		c.do("PUT", "/k", "1")
		return c.do("PUT", "/k", "2", "If-None-Match", "*").String()
	}},
	{"completing an upload to a key that is taken, with If-None-Match: *", "412 PreconditionFailed", api + "CompleteMultipartUpload", func(c client) string {
		c.do("PUT", "/k", "1")
		path, body := c.upload("/k", "2")
		return c.do("POST", path, body, "If-None-Match", "*").String()
	}},
	{"completing an upload that does not exist, to a key that does", "404 NoSuchUpload", api + "CompleteMultipartUpload", func(c client) string {
		r := c.do("PUT", "/k", "1")
		return c.do("POST", "/k?uploadId=nosuchupload", "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"+r.header.Get("Etag")+"</ETag></Part></CompleteMultipartUpload>").String()
	}},
	{"completing an upload whose first part is smaller than 5 MiB", "400 EntityTooSmall", api + "CompleteMultipartUpload", func(c client) string {
		path, body := c.upload("/k", "1", "2")
		return c.do("POST", path, body).String()
	}},
	{"the ETag of an object of two parts", "ends with -2", api + "CompleteMultipartUpload", func(c client) string {
		path, body := c.upload("/k", part, "2")
		if r := c.do("POST", path, body); r.status != 200 || r.code != "" {
			return r.String()
		}
		if strings.HasSuffix(strings.Trim(c.do("HEAD", "/k", "").header.Get("Etag"), `"`), "-2") {
			return "ends with -2"
		}
		return "is that of any object"
	}},
	{"listing uploads by a prefix", "names the upload", api + "ListMultipartUploads", func(c client) string {
		c.upload("/a/b/k", "1")
		r := c.do("GET", "?uploads=&prefix=a/", "")
		if r.status != 200 {
			return r.String()
		}
		if bytes.Contains(r.body, []byte("<Key>a/b/k</Key>")) {
			return "names the upload"
		}
		return "is empty"
	}},
	{"the last 1000 bytes of an object of 5", "206 bytes 0-4/5", api + "GetObject (Range)", func(c client) string {
		c.do("PUT", "/k", "12345")
		r := c.do("GET", "/k", "", "Range", "bytes=-1000")
		return strings.TrimSpace(r.String() + " " + r.header.Get("Content-Range"))
	}},
	{"bytes beyond the end", "416 InvalidRange", api + "GetObject (Range)", func(c client) string {
		c.do("PUT", "/k", "12345")
		return c.do("GET", "/k", "", "Range", "bytes=5-").String()
	}},
	{"read of another version, with If-Match", "412 PreconditionFailed", api + "GetObject", func(c client) string {
		c.do("PUT", "/k", "1")
		return c.do("GET", "/k", "", "If-Match", `"00000000000000000000000000000000"`).String()
	}},
	{"objects k and k/below", "both", "S3 User Guide, Naming Amazon S3 objects", func(c client) string {
		c.do("PUT", "/k", "1")
		if r := c.do("PUT", "/k/below", "2"); r.status != 200 {
			return r.String()
		}
		if r := c.do("GET", "/k", ""); string(r.body) != "1" {
			return "k is lost: " + r.String()
		}
		return "both"
	}},
	{"a key with a newline, listed with encoding-type=url", "a%0Ab", api + "ListObjectsV2", func(c client) string {
		if r := c.do("PUT", "/a%0Ab", "1"); r.status != 200 {
			return r.String()
		}
		_, rest, _ := strings.Cut(string(c.do("GET", "?list-type=2&encoding-type=url", "").body), "<Key>")
		key, _, _ := strings.Cut(rest, "</Key>")
		return key
	}},
	{"delete of a missing key", "204", api + "DeleteObject", func(c client) string { return c.do("DELETE", "/none", "").String() }},
	{"delete of another version, with If-Match", "412 PreconditionFailed", api + "DeleteObject", func(c client) string {
		c.do("PUT", "/k", "1")
		return c.do("DELETE", "/k", "", "If-Match", `"00000000000000000000000000000000"`).String()
	}},
	{"a body that does not fit its Content-MD5", "400 BadDigest", api + "PutObject", func(c client) string {
		return c.do("PUT", "/k", "1", "Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA==").String()
	}},
	{"a body that does not fit its x-amz-checksum-crc32", "400 BadDigest", "S3 User Guide, Checking object integrity", func(c client) string {
		return c.do("PUT", "/k", "1", "X-Amz-Checksum-Crc32", "AAAAAA==").String()
	}},
	{"encryption that is asked for (AES256)", "AES256", api + "PutObject", func(c client) string {
		r := c.do("PUT", "/k", "1", "X-Amz-Server-Side-Encryption", "AES256")
		return strings.TrimSpace(map[bool]string{false: r.String()}[r.status == 200] + header(r, "X-Amz-Server-Side-Encryption"))
	}},
	{"read without the customer's key of an object that was written with it", "400 InvalidRequest", "S3 User Guide, Using server-side encryption with customer-provided keys", func(c client) string {
		r := c.do("PUT", "/k", "1", "X-Amz-Server-Side-Encryption-Customer-Algorithm", "AES256",
			"X-Amz-Server-Side-Encryption-Customer-Key", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
			"X-Amz-Server-Side-Encryption-Customer-Key-Md5", "KYvwGXoFFJ42a2u2GDWhwQ==")
		if r.status != 200 {
			return "write: " + r.String()
		}
		return c.do("GET", "/k", "").String()
	}},
	{"a storage class (STANDARD_IA)", "STANDARD_IA", api + "HeadObject", func(c client) string {
		if r := c.do("PUT", "/k", "1", "X-Amz-Storage-Class", "STANDARD_IA"); r.status != 200 {
			return r.String()
		}
		return header(c.do("HEAD", "/k", ""), "X-Amz-Storage-Class")
	}},
	{"the region of a bucket", "us-east-1", api + "HeadBucket", func(c client) string { return header(c.do("HEAD", "", ""), "X-Amz-Bucket-Region") }},
	{"a request signed for another region", "400 AuthorizationHeaderMalformed", api + "Error responses", func(c client) string {
		c.region = "eu-north-1"
		return c.do("GET", "/k", "").String()
	}},
	{"an unknown access key", "403 InvalidAccessKeyId", api + "Error responses", func(c client) string {
		c.creds.AccessKeyID = "AKIAIOSFODNN7EXAMPLE"
		return c.do("GET", "/k", "").String()
	}},
	{"a wrong secret key", "403 SignatureDoesNotMatch", api + "Error responses", func(c client) string {
		c.creds.SecretAccessKey = "wrong"
		return c.do("GET", "/k", "").String()
	}},
	{"a missing bucket", "404 NoSuchBucket", api + "Error responses", func(c client) string {
		c.bucket = "nosuchbucket"
		return c.do("GET", "/k", "").String()
	}},
	{"a missing object", "404 NoSuchKey", api + "Error responses", func(c client) string { return c.do("GET", "/none", "").String() }},
	{"a clock that is 20 minutes behind", "403 RequestTimeTooSkewed", api + "Error responses", func(c client) string {
		c.at = time.Now().Add(-20 * time.Minute)
		return c.do("GET", "/k", "").String()
	}},
	{"a clock that is 20 minutes ahead", "403 RequestTimeTooSkewed", api + "Error responses", func(c client) string {
		c.at = time.Now().Add(20 * time.Minute)
		return c.do("GET", "/k", "").String()
	}},
}

func header(r reply, name string) string {
	if v := r.header.Get(name); v != "" {
		return v
	}
	return "not said"
}
