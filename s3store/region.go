package s3store

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// regionHeader says in which region a bucket is. AWS sends it with whatever
// answers to HeadBucket, a refusal included, and with redirects (API Reference,
// HeadBucket, "x-amz-bucket-region"). So nobody needs s3:GetBucketLocation.
const regionHeader = "X-Amz-Bucket-Region"

// maxErrorBody bounds what is read of an error's body. The SDK reads all that there
// is, into memory.
const maxErrorBody = 64 << 10

// tellRegion is a middleware for errors that name the region in their body alone,
// as AuthorizationHeaderMalformed does: <Region>. The SDK keeps no such thing, but
// it keeps headers.
func tellRegion(stack *middleware.Stack) error {
	return stack.Deserialize.Add(middleware.DeserializeMiddlewareFunc("OutwashRegion", func(
		ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler,
	) (middleware.DeserializeOutput, middleware.Metadata, error) {
		out, md, err := next.HandleDeserialize(ctx, in)
		if r, ok := out.RawResponse.(*smithyhttp.Response); ok && err == nil && r.Response != nil && r.Body != nil &&
			(r.StatusCode == http.StatusBadRequest || r.StatusCode == http.StatusMovedPermanently) && r.Header.Get(regionHeader) == "" {
			start, rerr := io.ReadAll(io.LimitReader(r.Body, maxErrorBody))
			if rerr != nil {
				return out, md, rerr
			}
			var body struct{ Region string }
			if xml.Unmarshal(start, &body) == nil && body.Region != "" {
				r.Header.Set(regionHeader, body.Region)
			}
			r.Body = struct {
				io.Reader
				io.Closer
			}{bytes.NewReader(start), r.Body}
		}
		return out, md, err
	}), middleware.After) // next to the wire: before the SDK reads the body
}

// wrongRegion reports whether an answer may come of a request that was signed for,
// or sent to, another region than the bucket's. Answers to HEAD have no code.
func wrongRegion(f facts) bool {
	switch f.code {
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "AuthorizationQueryParameterError", "IllegalLocationConstraintException":
		return true
	}
	return f.status == http.StatusMovedPermanently || f.status == http.StatusBadRequest && f.region != ""
}

// follows reports whether the store goes where the bucket is: not where somebody
// said which region it must be, and not with an access point, whose region is part
// of its name.
func (s *store) follows() bool { return !s.t.regionGiven && !s.t.AccessPoint }

// follow makes the region that an answer names the one in force, and reports
// whether the request is worth repeating: it was made for the region was. Where
// the answer doesn't name one, the server is asked.
func (s *store) follow(ctx context.Context, was string, f facts) bool {
	if !wrongRegion(f) || !s.follows() {
		return false
	}
	if now := s.regionInForce(); now != was {
		return true // another request has found it meanwhile
	}
	region := f.region
	if region == "" && s.t.Endpoint == "" {
		region = s.askRegion(ctx)
	}
	// What a server says becomes part of a host's name.
	if !isHostLabel(region) || region == was {
		return false
	}
	s.region.Store(&region)
	return true
}

// askRegion returns the bucket's region, "" if the server doesn't tell.
func (s *store) askRegion(ctx context.Context) string {
	out, err := s.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &s.t.Bucket}, s.call)
	if err != nil {
		return factsOf(err).region
	}
	return aws.ToString(out.BucketRegion)
}

func (s *store) regionInForce() string {
	if r := s.region.Load(); r != nil {
		return *r
	}
	return s.t.Region
}
