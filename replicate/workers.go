package replicate

import (
	"slices"
	"sync"
)

// workers lends things to whoever is first in line: not to who has waited longest,
// but to who has the lowest number. So of many that read at once a few go on and come
// to an end, and what they have just read is still in the processor's cache; and
// nobody waits for more than those that began before.
type workers[T any] struct {
	mu      sync.Mutex
	free    []T
	waiting []inLine[T] // by number
}

type inLine[T any] struct {
	number int
	take   chan T
}

// take returns a worker when there is one for this number.
func (p *workers[T]) take(number int) T {
	p.mu.Lock()
	if n := len(p.free); n > 0 {
		defer p.mu.Unlock()
		w := p.free[n-1]
		p.free = p.free[:n-1]
		return w
	}
	mine := inLine[T]{number, make(chan T, 1)}
	at, _ := slices.BinarySearchFunc(p.waiting, number, func(w inLine[T], n int) int { return w.number - n })
	p.waiting = slices.Insert(p.waiting, at, mine)
	p.mu.Unlock()
	return <-mine.take
}

// give returns a worker.
func (p *workers[T]) give(w T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 {
		p.free = append(p.free, w)
		return
	}
	p.waiting[0].take <- w
	p.waiting = slices.Delete(p.waiting, 0, 1)
}
