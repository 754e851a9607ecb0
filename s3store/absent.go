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

// absent settles whether an object whose reading failed with err exists, where the
// answer leaves that open. A listing of just this key tells.
//
// "Forbidden": S3 says that an object does not exist only to whom it would list the
// key (S3 API Reference, GetObject, "Permissions"). Policies that are restricted to
// a path allow listing below it only, by the condition s3:prefix, and servers differ
// in whether that suffices for the truth: AWS and Ceph look at the condition with the
// key (ceph/ceph pull request 68577), others without one, so that it never holds.
//
// "Not found", without S3's code: so says also a load balancer that has lost its
// server for a moment. Who believes it takes a replica for empty.
func (s *store) absent(ctx context.Context, key string, err error) error {
	p, ok := Explain(err)
	denied := p.Status == http.StatusForbidden && strings.HasPrefix(p.Cause, "denied")
	notFound := p.Status == http.StatusNotFound && p.Cause == "no-object" && p.Code != "NoSuchKey"
	if !ok || !denied && !notFound {
		return err
	}
	if m := deniedAction.FindStringSubmatch(factsOf(err).message); m != nil && m[1] != "s3:ListBucket" {
		return err // reading is what is denied, the object's existence aside
	}
	full := s.fullKey(key)
	out, lerr := s.listPage(ctx, "get", key, &s3.ListObjectsV2Input{
		Bucket: &s.t.Bucket, Prefix: aws.String(full), MaxKeys: aws.Int32(1), EncodingType: types.EncodingTypeUrl,
	})
	switch {
	case errors.Is(lerr, objstore.ErrDenied):
		return err
	case lerr != nil:
		return lerr
	}
	// Its own key is the first that begins with it. A server that doesn't look at the
	// prefix tells nothing.
	exists := false
	if len(out.Contents) > 0 {
		first := listed(aws.ToString(out.Contents[0].Key), out.EncodingType, full)
		exists = first == full || !strings.HasPrefix(first, full)
	}
	switch {
	case denied && exists:
		return err
	case exists: // not Permanent: one of the two answers was wrong
		return &storeError{fmt.Sprintf("s3store: get %s: the server lists it, and says that it is not found: %s", s.name(key), p.Said), nil}
	case notFound:
		return err
	}
	return &storeError{
		fmt.Sprintf("s3store: get %s: %v", s.name(key), ErrHidden),
		[]error{ErrHidden},
	}
}
