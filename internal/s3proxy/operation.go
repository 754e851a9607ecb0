package s3proxy

import (
	"bytes"
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// A Call is a request as S3 understands it.
type Call struct {
	Operation string   // PutObject, ListObjectsV2 …
	Bucket    string   // as addressed: an access point's host label, too
	Key       string   // "" for operations on the bucket
	Prefix    string   // of listings
	Keys      []string // that DeleteObjects names in its body
	AccessKey string   // who signed it, "" for nobody
	Header    http.Header
	Query     url.Values
}

// Resource is what the call is about, as policies name it.
func (c Call) Resource() string {
	if c.Key == "" {
		return "arn:aws:s3:::" + c.Bucket
	}
	return "arn:aws:s3:::" + c.Bucket + "/" + c.Key
}

// Action is the permission that the call takes, "" if none is known. Deleting
// several objects takes it for each; multi-part uploads take PutObject.
//
// Source: S3 User Guide, "Required permissions for Amazon S3 API operations".
func (c Call) Action() string {
	if c.Query.Has("versionId") {
		switch c.Operation {
		case "GetObject", "HeadObject", "DeleteObject":
			return "s3:" + strings.Replace(c.Operation, "Head", "Get", 1) + "Version"
		}
	}
	return actions[c.Operation]
}

var actions = map[string]string{
	"AbortMultipartUpload":    "s3:AbortMultipartUpload",
	"CompleteMultipartUpload": "s3:PutObject",
	"CopyObject":              "s3:PutObject",
	"CreateBucket":            "s3:CreateBucket",
	"CreateMultipartUpload":   "s3:PutObject",
	"DeleteBucket":            "s3:DeleteBucket",
	"DeleteObject":            "s3:DeleteObject",
	"DeleteObjects":           "s3:DeleteObject",
	"GetBucketLocation":       "s3:GetBucketLocation",
	"GetBucketVersioning":     "s3:GetBucketVersioning",
	"GetObject":               "s3:GetObject",
	"GetObjectAttributes":     "s3:GetObject",
	"HeadBucket":              "s3:ListBucket",
	"HeadObject":              "s3:GetObject",
	"ListBuckets":             "s3:ListAllMyBuckets",
	"ListMultipartUploads":    "s3:ListBucketMultipartUploads",
	"ListObjectVersions":      "s3:ListBucketVersions",
	"ListObjects":             "s3:ListBucket",
	"ListObjectsV2":           "s3:ListBucket",
	"ListParts":               "s3:ListMultipartUploadParts",
	"PutBucketPolicy":         "s3:PutBucketPolicy",
	"PutBucketVersioning":     "s3:PutBucketVersioning",
	"PutObject":               "s3:PutObject",
	"UploadPart":              "s3:PutObject",
	"UploadPartCopy":          "s3:PutObject",
}

// Operation names the S3 operation of a request. Hosts below one of domains have
// the bucket in their name, all others in the path. What it doesn't know it names
// by method and query, so that a record never hides it.
func Operation(r *http.Request, domains ...string) string { return Parse(r, domains...).Operation }

// Parse says what a request asks for. See Operation.
func Parse(r *http.Request, domains ...string) Call {
	c := Call{AccessKey: accessKey(r), Header: r.Header.Clone(), Query: r.URL.Query()}
	c.Bucket, c.Key = address(r, domains)
	c.Prefix = c.Query.Get("prefix")
	c.Operation = operation(r, c)
	if c.Operation == "DeleteObjects" && r.Body != nil {
		c.Keys = deleted(r)
	}
	return c
}

// deleted reads the keys to delete, and leaves the body as it was.
func deleted(r *http.Request) []string {
	data, err := io.ReadAll(r.Body)
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(data), failing{err}), r.Body}
	var list struct{ Object []struct{ Key string } }
	if xml.Unmarshal(data, &list) != nil {
		return nil
	}
	var keys []string
	for _, o := range list.Object {
		keys = append(keys, o.Key)
	}
	return keys
}

// failing ends a body as it ended when it was read first.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return 0, io.EOF
}

func address(r *http.Request, domains []string) (bucket, key string) {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	for _, d := range domains {
		if b, ok := strings.CutSuffix(host, "."+d); ok {
			return b, path
		}
	}
	bucket, key, _ = strings.Cut(path, "/")
	return bucket, key
}

// accessKey reads "AWS4-HMAC-SHA256 Credential=KEY/date/region/s3/aws4_request, …".
func accessKey(r *http.Request) string {
	_, rest, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	key, _, _ := strings.Cut(rest, "/")
	return key
}

// subresources are the operations that a query parameter selects: method, level
// ("b"ucket or "o"bject), parameter.
var subresources = map[string]string{
	"GET b location":   "GetBucketLocation",
	"GET b versioning": "GetBucketVersioning",
	"GET b uploads":    "ListMultipartUploads",
	"GET b versions":   "ListObjectVersions",
	"GET b list-type":  "ListObjectsV2",
	"PUT b versioning": "PutBucketVersioning",
	"PUT b policy":     "PutBucketPolicy",
	"POST b delete":    "DeleteObjects",

	"GET o uploadId":    "ListParts",
	"GET o attributes":  "GetObjectAttributes",
	"PUT o uploadId":    "UploadPart",
	"POST o uploads":    "CreateMultipartUpload",
	"POST o uploadId":   "CompleteMultipartUpload",
	"DELETE o uploadId": "AbortMultipartUpload",
}

// plain are the operations of requests that no parameter changes.
var plain = map[string]string{
	"GET s": "ListBuckets",

	"GET b": "ListObjects", "HEAD b": "HeadBucket", "PUT b": "CreateBucket", "DELETE b": "DeleteBucket",

	"GET o": "GetObject", "HEAD o": "HeadObject", "PUT o": "PutObject", "DELETE o": "DeleteObject",
}

// parameters change nothing about what is done.
var parameters = []string{
	"x-id", "prefix", "start-after", "continuation-token", "max-keys", "delimiter", "encoding-type", "fetch-owner", "marker",
	"key-marker", "upload-id-marker", "max-uploads", "partNumber", "versionId", "response-content-type",
}

func operation(r *http.Request, c Call) string {
	level := "o"
	switch {
	case c.Bucket == "":
		level = "s"
	case c.Key == "":
		level = "b"
	}
	var selects []string
	for name := range c.Query {
		if !slices.Contains(parameters, name) {
			selects = append(selects, name)
		}
	}
	slices.Sort(selects)
	request := r.Method + " " + level
	op := ""
	switch len(selects) {
	case 0:
		op = plain[request]
	case 1:
		op = subresources[request+" "+selects[0]]
	}
	switch copies := r.Header.Get("X-Amz-Copy-Source") != ""; {
	case op == "":
		return strings.TrimSpace(request + " ?" + strings.Join(selects, "&"))
	case copies && op == "PutObject":
		return "CopyObject"
	case copies && op == "UploadPart":
		return "UploadPartCopy"
	}
	return op
}
