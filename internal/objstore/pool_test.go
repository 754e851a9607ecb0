package objstore

import (
	"context"
	"errors"
	"testing"
)

func TestShare(t *testing.T) {
	type key struct{ name string }
	made := 0
	get := func(ctx context.Context, name string, err error) int {
		n, got := Share(ctx, key{name}, func() (int, error) { made++; return made, err })
		if !errors.Is(got, err) {
			t.Errorf("Share: %v, want %v", got, err)
		}
		return n
	}
	pooled := WithPool(t.Context(), new(Pool))
	failed := errors.New("failed")
	get(pooled, "a", failed) // is not kept
	for _, c := range []struct {
		ctx  context.Context
		name string
		want int
	}{
		{pooled, "a", 2},
		{pooled, "a", 2},
		{pooled, "b", 3},
		{t.Context(), "a", 4},
		{t.Context(), "a", 5},
		{pooled, "b", 3},
	} {
		if got := get(c.ctx, c.name, nil); got != c.want {
			t.Errorf("%s: got the %d. value, want the %d.", c.name, got, c.want)
		}
	}
}
