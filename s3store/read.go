package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/outwash/outwash/internal/objstore"
)

// maxResumes bounds how often one body is picked up again in all, whatever
// progress is made in between.
const maxResumes = 50

// Get implements objstore.Store.
func (s *store) Get(ctx context.Context, key string, r objstore.Range) (io.ReadCloser, objstore.Info, error) {
	if err := objstore.CheckKey(key); err != nil {
		return nil, objstore.Info{}, err
	}
	b := &body{s: s, ctx: ctx, key: key, etag: r.IfMatch, end: -1}
	info, err := b.open(rangeHeader(r))
	if factsOf(err).status == http.StatusRequestedRangeNotSatisfiable {
		// Beyond the end, or the end of an empty object.
		info, err = s.head(ctx, key, r.IfMatch)
		switch {
		case err == nil && r.Offset < 0 && info.Size > 0:
			// Some servers (rclone) refuse to give the last 1000 bytes of an
			// object of 900.
			b.etag = info.ETag
			info, err = b.open("")
		case err == nil:
			return io.NopCloser(strings.NewReader("")), info, nil
		}
	}
	if err != nil {
		return nil, objstore.Info{}, s.absent(ctx, key, err)
	}
	return b, info, nil
}

func rangeHeader(r objstore.Range) string {
	switch {
	case r.Offset < 0:
		return fmt.Sprintf("bytes=%d", r.Offset)
	case r.Length > 0:
		last := r.Offset + r.Length - 1
		if last < r.Offset { // beyond what an int64 holds
			return fmt.Sprintf("bytes=%d-", r.Offset)
		}
		return fmt.Sprintf("bytes=%d-%d", r.Offset, last)
	case r.Offset > 0:
		return fmt.Sprintf("bytes=%d-", r.Offset)
	}
	return ""
}

func (s *store) head(ctx context.Context, key, ifMatch string) (objstore.Info, error) {
	info := objstore.Info{Key: key}
	err := s.retry(ctx, "get", key, func(a *attempt) error {
		in := &s3.HeadObjectInput{Bucket: &s.t.Bucket, Key: aws.String(s.fullKey(key))}
		if ifMatch != "" {
			in.IfMatch = &ifMatch
		}
		out, err := s.client.HeadObject(a.ctx, in, s.call)
		if err != nil {
			return err
		}
		info.Size = aws.ToInt64(out.ContentLength)
		info.Modified = aws.ToTime(out.LastModified)
		info.ETag = aws.ToString(out.ETag)
		return nil
	})
	return info, err
}

// body is the content of a response, which asks for the rest when the connection
// breaks. It is used by one goroutine.
type body struct {
	s    *store
	ctx  context.Context
	key  string
	etag string

	a    *attempt
	rc   io.ReadCloser
	next int64 // offset in the object of the next byte
	end  int64 // offset after the last one, -1 if the server does not say

	failures, resumes int
	err               error // nothing more comes
}

// open requests a range ("" for all) and makes its response the current one.
func (b *body) open(rng string) (objstore.Info, error) {
	info := objstore.Info{Key: b.key}
	err := b.s.retry(b.ctx, "get", b.key, func(a *attempt) error {
		in := &s3.GetObjectInput{Bucket: &b.s.t.Bucket, Key: aws.String(b.s.fullKey(b.key))}
		if rng != "" {
			in.Range = &rng
		}
		if b.etag != "" {
			in.IfMatch = &b.etag
		}
		out, err := b.s.client.GetObject(a.ctx, in, b.s.call)
		if err != nil {
			return err
		}
		start, end, size, err := extent(rng, aws.ToString(out.ContentRange), out.ContentLength)
		if err == nil && b.rc != nil && start != b.next {
			err = fmt.Errorf("%w: asked for the bytes from %d, the server sent those from %d", objstore.ErrUnsupported, b.next, start)
		}
		if err != nil {
			out.Body.Close()
			return b.s.fail("get", b.key, err)
		}
		a.keep(b.s.opts.StallTimeout)
		b.a, b.rc = a, out.Body
		b.next, b.end = start, end
		b.etag = aws.ToString(out.ETag)
		info.Size, info.ETag, info.Modified = size, b.etag, aws.ToTime(out.LastModified)
		return nil
	})
	return info, err
}

// extent says which bytes of what size a response holds.
func extent(asked, contentRange string, length *int64) (start, end, size int64, err error) {
	if contentRange == "" {
		if asked != "" && (length == nil || *length != 0) { // an empty object has no ranges
			return 0, 0, 0, fmt.Errorf("%w: the server ignores ranges", objstore.ErrUnsupported)
		}
		if length == nil || *length < 0 {
			return 0, -1, -1, nil
		}
		return 0, *length, *length, nil
	}
	bad := fmt.Errorf("%w: the server answers with the malformed range %q", objstore.ErrUnsupported, contentRange)
	rest, ok := strings.CutPrefix(contentRange, "bytes ")
	span, total, ok2 := strings.Cut(rest, "/")
	from, to, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, bad
	}
	start, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	if errors.Join(err1, err2, err3) != nil || start < 0 || last < start || last >= size {
		return 0, 0, 0, bad
	}
	return start, last + 1, size, nil
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if err := b.s.ctxError(b.ctx, "get", b.key); err != nil {
			return 0, err
		}
		n, err := b.readOnce(p)
		if n > 0 {
			b.failures = 0
			return n, nil // an error comes again with the next call
		}
		switch {
		case err == nil:
			continue
		case err == io.EOF && (b.end < 0 || b.next == b.end):
			return 0, io.EOF
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
		}
		if cerr := b.s.ctxError(b.ctx, "get", b.key); cerr != nil {
			return 0, cerr
		}
		if b.err = b.resume(err); b.err != nil {
			return 0, b.err
		}
	}
}

func (b *body) readOnce(p []byte) (int, error) {
	b.a.touch()
	defer b.a.rest()
	var probe [1]byte
	if b.next == b.end {
		// All is there; the SDK compares its checksum when it sees the end.
		p = probe[:]
	} else if b.end >= 0 {
		p = p[:min(int64(len(p)), b.end-b.next)]
	}
	n, err := b.rc.Read(p)
	if b.next == b.end {
		if n > 0 {
			return 0, io.EOF // more than was announced: not ours
		}
		return 0, err
	}
	b.next += int64(n)
	return n, b.a.cause(err)
}

// resume asks for the rest of a body that broke for the given reason.
func (b *body) resume(reason error) error {
	// b.rc stays set: it tells open that this is a continuation.
	b.rc.Close()
	b.a.close()
	b.failures++
	b.resumes++
	if b.next == b.end || b.end < 0 || b.etag == "" || b.failures > b.s.opts.Attempts || b.resumes > maxResumes {
		return &storeError{
			fmt.Sprintf("s3store: get %s: the body broke off at byte %d of %d and can't be resumed: %v", b.s.name(b.key), b.next, b.end, reason),
			[]error{io.ErrUnexpectedEOF, withoutContext(reason)},
		}
	}
	if err := b.s.pause(b.ctx, backoff(b.failures)); err != nil {
		return b.s.fail("get", b.key, err)
	}
	end := b.end
	_, err := b.open(fmt.Sprintf("bytes=%d-%d", b.next, end-1))
	if err != nil {
		return err
	}
	if b.end != end {
		return b.s.fail("get", b.key, fmt.Errorf("%w: asked for the bytes to %d, the server sends to %d", objstore.ErrUnsupported, end, b.end))
	}
	return nil
}

// withoutContext keeps the end of an attempt from looking like the caller's.
func withoutContext(err error) error {
	if isContextError(err) {
		return errors.New(err.Error())
	}
	return err
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.err = errors.New("s3store: the body is closed")
	// Cancelled first: closing alone might read the rest in order to reuse the
	// connection.
	b.a.close()
	b.rc.Close()
	return nil
}
