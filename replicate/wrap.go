package replicate

import (
	"context"
	"io"
	"time"
)

// timedStore bounds how long small requests may take.
type timedStore struct {
	Store
	timeout time.Duration
}

func (s timedStore) Create(ctx context.Context, key string, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.Store.Create(ctx, key, data)
}

func (s timedStore) Get(ctx context.Context, key string, r Range) (io.ReadCloser, ObjectInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	body, info, err := s.Store.Get(ctx, key, r)
	if err != nil {
		cancel()
		return nil, info, err
	}
	return cancelBody{body, cancel}, info, nil
}

// cancelBody lets a context live as long as a body.
type cancelBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b cancelBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}
