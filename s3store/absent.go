package s3store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/outwash/outwash/internal/objstore"
)

// ErrHidden is a missing object that the server forbade to read: a listing told
// that there is none. It does not show that reading is allowed.
var ErrHidden = fmt.Errorf("%w: the server forbids to read it, and does not list it", objstore.ErrNotExist)

// absent replaces the error of a read that was denied where the object does not
// exist. S3 says so only to whom it would list the key, and answers "forbidden"
// otherwise (S3 API Reference, GetObject, "Permissions"). Policies that are
// restricted to a path allow listing below it only, by the condition s3:prefix,
// and servers differ in whether that suffices for the truth: AWS and Ceph look at
// the condition with the key (ceph/ceph pull request 68577), others without one,
// so that it never holds. A listing of just this key tells.
func (s *store) absent(ctx context.Context, key string, err error) error {
	p, ok := Explain(err)
	if !ok || p.Status != http.StatusForbidden || !strings.HasPrefix(p.Cause, "denied") {
		return err
	}
	if m := deniedAction.FindStringSubmatch(factsOf(err).message); m != nil && m[1] != "s3:ListBucket" {
		return err // reading is what is denied, the object's existence aside
	}
	var out *s3.ListObjectsV2Output
	full := s.fullKey(key)
	lerr := s.retry(ctx, "get", key, func(a *attempt) (err error) {
		out, err = s.client.ListObjectsV2(a.ctx, &s3.ListObjectsV2Input{
			Bucket: &s.t.Bucket, Prefix: aws.String(full), MaxKeys: aws.Int32(1), EncodingType: types.EncodingTypeUrl,
		}, s.call)
		return err
	})
	switch {
	case errors.Is(lerr, objstore.ErrDenied):
		return err
	case lerr != nil:
		return lerr
	}
	// Its own key is the first that begins with it.
	if len(out.Contents) > 0 && listed(aws.ToString(out.Contents[0].Key), out.EncodingType, full) == full {
		return err
	}
	return &storeError{
		fmt.Sprintf("s3store: get %s: %v", s.name(key), ErrHidden),
		[]error{ErrHidden},
	}
}
