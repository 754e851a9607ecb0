package s3store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/outwash/outwash/internal/objstore"
)

const (
	minPart  = 5 << 20 // of all parts but the last
	maxPart  = 5 << 30
	maxParts = 10_000
	// maxConcurrency keeps a typing error from costing all memory.
	maxConcurrency = 1000
	// hintParts leaves room for a hint that was a little low.
	hintParts = 9_000
	// cleanupTime is how long a failed upload is cleaned up after. It has a time of
	// its own, as the usual reason for failing is that the caller's is over.
	cleanupTime = 5 * time.Second
)

// partSize is the size of all parts of one upload but the last: some servers
// want them equal, so it can't grow on the way.
func (o Options) partSize(hint int64) int64 {
	return min(max(o.PartSize, (hint+hintParts-1)/hintParts), maxPart)
}

// Upload implements objstore.Store: one PUT for what fits into one part, else a
// multipart upload.
func (s *store) Upload(ctx context.Context, key string, r io.Reader) (int64, error) {
	if err := objstore.CheckKey(key); err != nil {
		return 0, err
	}
	if err := s.ctxError(ctx, "upload", key); err != nil {
		return 0, err
	}
	part := s.opts.partSize(objstore.SizeHint(ctx))
	r = contextReader{ctx, r}
	first, end, err := fill(r, nil, part)
	if err == nil && !end {
		// Exactly one part is one part too.
		var peek [1]byte
		switch _, err = io.ReadFull(r, peek[:]); err {
		case nil:
			r = io.MultiReader(bytes.NewReader(peek[:]), r)
		case io.EOF:
			end, err = true, nil
		}
	}
	if err != nil {
		return 0, s.readFailed(key, err)
	}
	if end {
		if err := s.put(forUpload(ctx), "upload", key, first); err != nil {
			if mayHaveHappened(err) {
				s.cleanup(ctx, func(ctx context.Context) error { return s.Delete(ctx, key) })
			}
			return 0, err
		}
		return int64(len(first)), nil
	}
	u := &upload{store: s, key: key, part: part}
	n, err := u.run(ctx, first, r)
	if err != nil {
		return 0, err
	}
	return n, nil
}

func (s *store) readFailed(key string, err error) error {
	return &storeError{fmt.Sprintf("s3store: upload %s: reading the data: %v", s.name(key), err), []error{err}}
}

// contextReader ends a read when ctx does, so that a reader without end can't
// outlive it.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// cleanup runs f with a time of its own. Its failure is not reported: the reason
// for cleaning up is.
func (s *store) cleanup(ctx context.Context, f func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	_ = f(ctx)
}

// fill reads a part into buf, which grows as needed so that small objects take
// little memory. It reports whether r has ended.
func fill(r io.Reader, buf []byte, part int64) ([]byte, bool, error) {
	buf = buf[:0]
	for {
		if int64(len(buf)) == part {
			return buf, false, nil
		}
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(part, max(256<<10, 4*int64(cap(buf)))))
			copy(grown, buf)
			buf = grown
		}
		n, err := r.Read(buf[len(buf):min(int64(cap(buf)), part)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, true, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// upload is one multipart upload.
type upload struct {
	*store
	key  string
	part int64
	id   *string

	mu   sync.Mutex
	done []types.CompletedPart
	err  error // the first part's that failed
}

// run uploads first, then what is left in r. Parts are read by this goroutine and
// sent by as many others as Options say; Concurrency+1 buffers go around.
func (u *upload) run(ctx context.Context, first []byte, r io.Reader) (int64, error) {
	err := u.retry(ctx, "upload", u.key, func(a *attempt) error {
		in := &s3.CreateMultipartUploadInput{Bucket: &u.t.Bucket, Key: aws.String(u.fullKey(u.key))}
		if !u.t.checksumsRequired {
			in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc32
		}
		out, err := u.client.CreateMultipartUpload(a.ctx, in, u.call)
		switch {
		case err != nil:
			return err
		case aws.ToString(out.UploadId) == "":
			return errNoID
		}
		u.id = out.UploadId
		return nil
	})
	if err != nil {
		return 0, err
	}
	size, err := u.send(ctx, first, r)
	completing := err == nil
	if completing {
		err = u.complete(ctx, size)
	}
	if err == nil {
		return size, nil
	}
	u.cleanup(ctx, func(ctx context.Context) error {
		_ = u.abortUpload(ctx, u.key, u.id)
		if !completing {
			return nil
		}
		// A Complete whose reply was lost may have made the object.
		return u.Delete(ctx, u.key)
	})
	return 0, err
}

type numbered struct {
	n    int32
	data []byte
}

func (u *upload) send(ctx context.Context, first []byte, r io.Reader) (size int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := make(chan numbered)
	free := make(chan []byte, u.opts.Concurrency+1)
	for range u.opts.Concurrency {
		free <- nil // allocated when first filled
	}
	var wg sync.WaitGroup
	for range u.opts.Concurrency {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for p := range parts {
				if err := u.sendPart(ctx, p); err != nil {
					u.failed(err)
					cancel()
				}
				free <- p.data
			}
		}()
	}
	buf, end := first, false
	for n := int32(1); err == nil; n++ {
		if n > maxParts {
			err = &storeError{fmt.Sprintf("s3store: upload %s: %v: more than %d parts of %d bytes: raise PartSize, or say the size beforehand", u.name(u.key), objstore.ErrConfig, maxParts, u.part),
				[]error{objstore.ErrConfig}}
			break
		}
		select {
		case parts <- numbered{n, buf}:
			size += int64(len(buf))
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil || end {
			break
		}
		select {
		case buf = <-free:
		case <-ctx.Done():
			err = ctx.Err()
			continue
		}
		if buf, end, err = fill(r, buf, u.part); err != nil {
			err = u.readFailed(u.key, err)
		} else if end && len(buf) == 0 {
			break // the object's size is a multiple of the part's
		}
	}
	close(parts)
	wg.Wait()
	if u.err != nil {
		return 0, u.err // the reason why ctx ended
	}
	if err != nil {
		return 0, u.fail("upload", u.key, err)
	}
	return size, nil
}

func (u *upload) failed(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == nil {
		u.err = err
	}
}

func (u *upload) sendPart(ctx context.Context, p numbered) error {
	return u.retry(ctx, "upload", u.key, func(a *attempt) error {
		end, err := u.turn(a)
		if err != nil {
			return err
		}
		defer end()
		in := &s3.UploadPartInput{
			Bucket:        &u.t.Bucket,
			Key:           aws.String(u.fullKey(u.key)),
			UploadId:      u.id,
			PartNumber:    &p.n,
			Body:          a.body(p.data),
			ContentLength: aws.Int64(int64(len(p.data))),
		}
		if !u.t.checksumsRequired {
			in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc32
		}
		out, err := u.client.UploadPart(a.ctx, in, u.call)
		if err != nil {
			return err
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		u.done = append(u.done, types.CompletedPart{PartNumber: &p.n, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32})
		return nil
	})
}

func (u *upload) complete(ctx context.Context, size int64) error {
	slices.SortFunc(u.done, func(a, b types.CompletedPart) int { return int(*a.PartNumber - *b.PartNumber) })
	return u.retryWithin(ctx, "upload", u.key, 5*u.opts.ResponseTimeout, func(a *attempt) error {
		_, err := u.client.CompleteMultipartUpload(a.ctx, &s3.CompleteMultipartUploadInput{
			Bucket:          &u.t.Bucket,
			Key:             aws.String(u.fullKey(u.key)),
			UploadId:        u.id,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: u.done},
		}, u.call)
		if err == nil || factsOf(err).code != "NoSuchUpload" {
			return err
		}
		// An earlier attempt may have completed it, and its reply was lost. Nobody
		// else uses the key, so the size tells.
		a.rest()
		if info, herr := u.head(ctx, u.key, ""); herr != nil || info.Size != size {
			return err
		}
		return nil
	})
}
