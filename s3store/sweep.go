package s3store

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/outwash/outwash/internal/objstore"
)

const (
	// sweepPages bounds how much of a listing is read: uploads come a thousand to a
	// page. What is beyond is found by the next sweep, after these are gone.
	sweepPages = 10
	// sweepAborts bounds how many uploads one sweep ends.
	sweepAborts = 1000
)

// SweepUploads implements objstore.Sweeper. What a crash leaves of a multipart
// upload no listing of objects shows, and it is paid for until it is aborted.
//
// The time is the server's: when it says that the upload began, against the Date
// of the listing. This machine's clock doesn't count.
func (s *store) SweepUploads(ctx context.Context, prefix string, age time.Duration, ours func(key string) bool) (int, error) {
	base := s.fullKey("")
	in := &s3.ListMultipartUploadsInput{Bucket: &s.t.Bucket, Prefix: aws.String(base + prefix), EncodingType: types.EncodingTypeUrl}
	swept := 0
	for range sweepPages {
		var out *s3.ListMultipartUploadsOutput
		err := s.retry(ctx, "list uploads", prefix, func(a *attempt) (err error) {
			out, err = s.client.ListMultipartUploads(a.ctx, in, s.call)
			return err
		})
		if err != nil {
			return swept, err
		}
		now, ok := awsmiddleware.GetServerTime(out.ResultMetadata)
		if !ok || now.IsZero() {
			return swept, s.fail("list uploads", prefix, fmt.Errorf("%w: the server doesn't tell its time", objstore.ErrUnsupported))
		}
		for _, u := range out.Uploads {
			// The server may not have looked at the prefix, and 1970 is what some have
			// for a time that they don't know: one of these could be under way.
			full := listed(aws.ToString(u.Key), out.EncodingType, base+prefix)
			key, below := strings.CutPrefix(full, base)
			if !below || !strings.HasPrefix(key, prefix) || !ours(key) || aws.ToString(u.UploadId) == "" ||
				u.Initiated == nil || u.Initiated.Unix() <= 0 || now.Sub(*u.Initiated) < age {
				continue
			}
			if err := s.abortUpload(ctx, key, u.UploadId); err != nil {
				return swept, err
			}
			if swept++; swept == sweepAborts {
				return swept, nil
			}
		}
		// Markers are where the next page begins; an upload aborted meanwhile
		// doesn't move them. A server that repeats one would keep us for ever.
		key, id := listed(aws.ToString(out.NextKeyMarker), out.EncodingType, base), out.NextUploadIdMarker
		if !aws.ToBool(out.IsTruncated) || key == "" || key == aws.ToString(in.KeyMarker) && aws.ToString(id) == aws.ToString(in.UploadIdMarker) {
			break
		}
		in.KeyMarker, in.UploadIdMarker = &key, id
	}
	return swept, nil
}

// abortUpload ends a multipart upload; one that is gone already is all right.
func (s *store) abortUpload(ctx context.Context, key string, id *string) error {
	return s.retry(ctx, "abort upload", key, func(a *attempt) error {
		_, err := s.client.AbortMultipartUpload(a.ctx, &s3.AbortMultipartUploadInput{
			Bucket: &s.t.Bucket, Key: aws.String(s.fullKey(key)), UploadId: id,
		}, s.call)
		if f := factsOf(err); f.status == http.StatusNotFound && f.code != "NoSuchBucket" {
			return nil
		}
		return err
	})
}
