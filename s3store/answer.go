package s3store

import (
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// A success that S3 never gave. Whoever stands between us and the server, or in its
// place, may well answer 200 to everything: the login page of a network, a proxy's
// notice, a web server at the endpoint. The SDK takes such a page for an object that
// was written, and for a listing of nothing.
var (
	errPage      = &smithy.GenericAPIError{Code: "NotS3", Message: "the answer is a web page"}
	errNoWrite   = &smithy.GenericAPIError{Code: "NotS3", Message: "the answer is not to a write"}
	errNoID      = &smithy.GenericAPIError{Code: "NotS3", Message: "the upload has no ID"}
	errNoListing = &smithy.GenericAPIError{Code: "NotS3", Message: "the answer is not a listing"}
)

// checkAnswer is a middleware that refuses web pages, and bounds what is read of an
// error.
func checkAnswer(stack *middleware.Stack) error {
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("OutwashAnswer", func(
		ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler,
	) (middleware.DeserializeOutput, middleware.Metadata, error) {
		out, md, err := next.HandleDeserialize(ctx, in)
		r, ok := out.RawResponse.(*smithyhttp.Response)
		if !ok || err != nil || r.Response == nil || r.Body == nil {
			return out, md, err
		}
		if r.StatusCode >= http.StatusMultipleChoices {
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.LimitReader(r.Body, maxErrorBody), r.Body}
			return out, md, nil
		}
		// Objects have the type that they were written with, by us or by who copied
		// them: never this one.
		if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "text/html" {
			r.Body.Close()
			return out, md, errPage
		}
		// S3 answers to a write with an ETag and nothing else (API Reference, PutObject,
		// UploadPart).
		if r.Request != nil && r.Request.Method == http.MethodPut && r.ContentLength > 0 && r.Header.Get("ETag") == "" {
			r.Body.Close()
			return out, md, errNoWrite
		}
		return out, md, nil
	}), middleware.After) // next to the wire: before the SDK reads the body
}

// listPage asks for one page of a listing.
func (s *store) listPage(ctx context.Context, op, key string, in *s3.ListObjectsV2Input) (out *s3.ListObjectsV2Output, err error) {
	err = s.retry(ctx, op, key, func(a *attempt) (err error) {
		out, err = s.client.ListObjectsV2(a.ctx, in, s.call)
		if err == nil && out.Name == nil && out.IsTruncated == nil && out.MaxKeys == nil && out.KeyCount == nil && len(out.Contents) == 0 {
			return fmt.Errorf("list: %w", errNoListing)
		}
		return err
	})
	return out, err
}
