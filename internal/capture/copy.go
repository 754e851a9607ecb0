package capture

import (
	"context"
	"errors"

	"github.com/outwash/outwash/internal/local"
)

// Copy copies pages while the database is in use; see replicate.Source.
func (d *DB) Copy(ctx context.Context, req local.CopyRequest) (local.Copied, error) {
	return local.Copied{}, errors.ErrUnsupported
}
