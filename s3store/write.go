package s3store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/outwash/outwash/internal/objstore"
)

// Create implements objstore.Store by a conditional PUT.
func (s *store) Create(ctx context.Context, key string, data []byte) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	lost := false // an earlier attempt of ours may have created the object
	return s.retry(ctx, "create", key, func(a *attempt) error {
		err := s.putObject(a, key, data, aws.String("*"))
		if err == nil {
			return nil
		}
		if factsOf(err).status != http.StatusPreconditionFailed {
			lost = lost || mayHaveHappened(a.cause(err))
			return err
		}
		if !lost {
			return s.taken(key, err)
		}
		a.rest()
		same, gerr := s.holds(ctx, key, data)
		switch {
		case errors.Is(gerr, objstore.ErrNotExist):
			// Taken and gone again: as if it had never been there.
			return &notYet{err}
		case gerr != nil:
			return gerr
		case same:
			return nil
		}
		return s.taken(key, err)
	})
}

// taken is the error of a key that another writer has.
func (s *store) taken(key string, cause error) error {
	return &storeError{
		fmt.Sprintf("s3store: create %s: %v", s.name(key), objstore.ErrExist),
		[]error{objstore.ErrExist, cause},
	}
}

// notYet hides an error's meaning, so that it is retried.
type notYet struct{ err error }

func (e *notYet) Error() string { return e.err.Error() }

// holds reports whether the object consists of data.
func (s *store) holds(ctx context.Context, key string, data []byte) (bool, error) {
	body, info, err := s.Get(ctx, key, objstore.Range{})
	if err != nil {
		return false, err
	}
	defer body.Close()
	if info.Size != int64(len(data)) {
		return false, nil
	}
	got, err := io.ReadAll(body)
	if err != nil {
		return false, err
	}
	return bytes.Equal(got, data), nil
}

// Put implements objstore.Store.
func (s *store) Put(ctx context.Context, key string, data []byte) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	return s.put(ctx, "put", key, data)
}

// put writes an object in one request, replacing what was there.
func (s *store) put(ctx context.Context, op, key string, data []byte) error {
	return s.retry(ctx, op, key, func(a *attempt) error { return s.putObject(a, key, data, nil) })
}

// putObject is one attempt to write an object: only if there is none, with "*".
func (s *store) putObject(a *attempt, key string, data []byte, ifNoneMatch *string) error {
	end, err := s.turn(a)
	if err != nil {
		return err
	}
	defer end()
	_, err = s.client.PutObject(a.ctx, &s3.PutObjectInput{
		Bucket:        &s.t.Bucket,
		Key:           aws.String(s.fullKey(key)),
		Body:          a.body(data),
		ContentLength: aws.Int64(int64(len(data))),
		IfNoneMatch:   ifNoneMatch,
	}, s.call)
	return err
}
