package s3store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/outwash/outwash/internal/objstore"
)

// deleteBatch is the most keys that one DeleteObjects takes.
const deleteBatch = 1000

// orderTries is how often a page is asked for that is out of order. A server that
// keeps objects as files can list one twice or at the wrong place while it gets its
// name; one that is out of order each time can't be used: keys would be missed.
const orderTries = 5

// List implements objstore.Store.
func (s *store) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	return func(yield func(objstore.Info, error) bool) {
		base := s.fullKey("") // ends in a slash, or is empty
		in := &s3.ListObjectsV2Input{Bucket: &s.t.Bucket, Prefix: aws.String(base + prefix), EncodingType: types.EncodingTypeUrl}
		if after != "" {
			in.StartAfter = aws.String(base + after)
		}
		last := after
		for {
			var infos []objstore.Info
			var out *s3.ListObjectsV2Output
			var err error
			for range orderTries {
				if out, err = s.listPage(ctx, "list", prefix, in); err != nil {
					break
				}
				if infos, err = page(out, base, prefix, after, last); err == nil {
					break
				}
				err = s.fail("list", prefix, err)
			}
			if err != nil {
				yield(objstore.Info{}, err)
				return
			}
			for _, info := range infos {
				last = info.Key
				if !yield(info, nil) {
					return
				}
			}
			if !aws.ToBool(out.IsTruncated) {
				return
			}
			if aws.ToString(out.NextContinuationToken) == "" {
				yield(objstore.Info{}, s.fail("list", prefix, fmt.Errorf("%w: the server cuts the listing and does not say where it goes on", objstore.ErrUnsupported)))
				return
			}
			in.StartAfter = nil
			in.ContinuationToken = out.NextContinuationToken
		}
	}
}

// page is what one page lists: keys below base that start with prefix and come after
// after, which a server may ignore, and after last, where the page before ended.
func page(out *s3.ListObjectsV2Output, base, prefix, after, last string) ([]objstore.Info, error) {
	infos := make([]objstore.Info, 0, len(out.Contents))
	for _, o := range out.Contents {
		key, ok := strings.CutPrefix(listed(aws.ToString(o.Key), out.EncodingType, base+prefix), base)
		if !ok || key == "" || key <= after || !strings.HasPrefix(key, prefix) {
			continue // a "directory"; a server that ignores StartAfter, or Prefix
		}
		if key <= last {
			return nil, fmt.Errorf("%w: the server lists %q after %q, out of order", objstore.ErrUnsupported, key, last)
		}
		last = key
		infos = append(infos, objstore.Info{Key: key, Size: aws.ToInt64(o.Size), Modified: aws.ToTime(o.LastModified), ETag: aws.ToString(o.ETag)})
	}
	return infos, nil
}

// listed is a key as it is, from one in a listing. Listings are asked for with
// encoding-type=url, since XML can't carry every character that a key can have, and
// one such object would make all others unreadable (API Reference, ListObjectsV2).
// The encoding is that of forms: a space is a plus. A server that says url and
// doesn't mean it, or does it and doesn't say so, is known by the prefix, if there
// is something to encode in it.
func listed(key string, encoding types.EncodingType, prefix string) string {
	plain, err := url.QueryUnescape(key)
	if err != nil {
		return key
	}
	encoded := encoding == types.EncodingTypeUrl
	if fits := strings.HasPrefix(plain, prefix); fits != strings.HasPrefix(key, prefix) {
		encoded = fits
	}
	if encoded {
		return plain
	}
	return key
}

// Delete implements objstore.Store. A single key takes DeleteObject, which every
// server has.
func (s *store) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := objstore.CheckKey(key); err != nil {
			return err
		}
	}
	var errs []error
	for len(keys) > 0 {
		n := min(len(keys), deleteBatch)
		var err error
		if n == 1 {
			err = s.deleteOne(ctx, keys[0])
		} else {
			err = s.deleteMany(ctx, keys[:n])
		}
		if err != nil {
			errs = append(errs, err)
			if !isPermanent(err) {
				break // the next batch would wait as long, in vain
			}
		}
		keys = keys[n:]
	}
	return errors.Join(errs...)
}

func (s *store) deleteOne(ctx context.Context, key string) error {
	err := s.retry(ctx, "delete", key, func(a *attempt) error {
		_, err := s.client.DeleteObject(a.ctx, &s3.DeleteObjectInput{Bucket: &s.t.Bucket, Key: aws.String(s.fullKey(key))}, s.call)
		return err
	})
	if errors.Is(err, objstore.ErrNotExist) {
		return nil
	}
	return err
}

// deleteMany asks anew for the keys that failed for a passing reason.
func (s *store) deleteMany(ctx context.Context, keys []string) error {
	var final []error
	err := s.retry(ctx, "delete", keys[0], func(a *attempt) error {
		ids := make([]types.ObjectIdentifier, len(keys))
		for i, key := range keys {
			ids[i].Key = aws.String(s.fullKey(key))
		}
		out, err := s.client.DeleteObjects(a.ctx, &s3.DeleteObjectsInput{
			Bucket: &s.t.Bucket,
			Delete: &types.Delete{Objects: ids, Quiet: aws.Bool(true)},
		}, s.call)
		if err != nil {
			return err
		}
		var again []string
		var passing error
		for _, e := range out.Errors {
			key := strings.TrimPrefix(aws.ToString(e.Key), s.fullKey(""))
			err := &keyError{code: aws.ToString(e.Code), message: aws.ToString(e.Message)}
			switch v := s.judge(err); {
			case v.kind == objstore.ErrNotExist:
			case v.retry:
				again, passing = append(again, key), err
			default:
				final = append(final, s.fail("delete", key, err))
			}
		}
		if passing != nil {
			keys = again
		}
		return passing
	})
	if err != nil {
		final = append(final, err)
	}
	const shown = 5 // of a thousand that say the same
	if len(final) > shown {
		final = append(final[:shown:shown], fmt.Errorf("s3store: delete: %d more objects failed: %w", len(final)-shown, final[len(final)-1]))
	}
	return errors.Join(final...)
}

// keyError is what DeleteObjects says of one key. It is a smithy.APIError.
type keyError struct{ code, message string }

func (e *keyError) Error() string                 { return e.code + ": " + e.message }
func (e *keyError) ErrorCode() string             { return e.code }
func (e *keyError) ErrorMessage() string          { return e.message }
func (e *keyError) ErrorFault() smithy.ErrorFault { return smithy.FaultUnknown }
