package replicate

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// Whatever the order in which they ask, the lowest number comes first, and each
// worker is with one at a time.
func TestWorkersGoToTheLowestNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &workers[string]{free: []string{"a", "b"}}
		first, second := p.take(9), p.take(8)
		if first == second {
			t.Fatalf("both have %s", first)
		}
		var mu sync.Mutex
		var got []int
		for _, n := range []int{5, 2, 7, 3} {
			go func() {
				w := p.take(n)
				mu.Lock()
				got = append(got, n)
				mu.Unlock()
				p.give(w)
			}()
			synctest.Wait()
		}
		p.give(first)
		synctest.Wait()
		if want := []int{2, 3, 5, 7}; !slices.Equal(got, want) {
			t.Fatalf("in the order %v, expected %v", got, want)
		}
		p.give(second)
		if len(p.free) != 2 || p.free[0] == p.free[1] || len(p.waiting) != 0 {
			t.Fatalf("left: %v, and %d wait", p.free, len(p.waiting))
		}
	})
}
