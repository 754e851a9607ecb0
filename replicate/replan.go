package replicate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/outwash/outwash/internal/segment"
)

const (
	// planAttempts is how many plans are made: retention goes on meanwhile.
	planAttempts = 10
	// lostAttempts is how often one object may be missing where a listing, made
	// anew each time, has it.
	lostAttempts = 3
)

// aside are the exports that plans do without, because what they need is missing.
type aside struct {
	keys  map[string]bool
	notes []string
	lost  map[string]int // how often each object was missing
	first error          // about the first export that was put aside
	// timeless is about one that is damaged, while a time was looked for. Without it
	// only an answer counts that is exact.
	timeless error
}

// attempts makes a plan and carries it out. Where objects of it are gone by then,
// retired or swept, it begins anew, with new listings. An export is put aside whose
// own data is missing: a publisher that slept for a day may name data that was swept
// meanwhile as nobody's. What comes before it can stand in for it.
func (r *restorer) attempts(ctx context.Context, carryOut func() error) error {
	r.aside = aside{keys: map[string]bool{}, lost: map[string]int{}}
	for attempt := 1; ; attempt++ {
		var err error
		r.a = &applier{line: r.line, target: r.target}
		if r.plan, err = r.line.makePlan(ctx, r.target, r.aside.keys); err == nil {
			err = carryOut()
		}
		if err == nil {
			return nil
		}
		if attempt < planAttempts && ctx.Err() == nil && r.retires(err) {
			if attempt > 1 { // or a listing lags behind
				d := 50 * time.Millisecond << min(attempt, 4)
				select {
				case <-ctx.Done():
				case <-time.After(d/2 + rand.N(d/2)):
				}
			}
			continue
		}
		err = r.explain(ctx, err)
		if first := r.aside.first; first != nil && !errors.Is(err, first) {
			err = fmt.Errorf("%w; without it: %w", first, err)
		}
		return err
	}
}

// retires reports whether err says that an object is missing without which another
// plan can be made.
func (r *restorer) retires(err error) bool {
	if timeless := (*timelessError)(nil); errors.As(err, &timeless) {
		r.leaveOut(timeless.key, err, "%s could not be used: it is damaged", timeless.key)
		r.aside.timeless = err
		return true
	}
	lost := (*lostError)(nil)
	if !errors.As(err, &lost) {
		return errors.Is(err, errGap) && r.gap()
	}
	r.log.Warn("an object of the plan is gone: planning anew", "key", lost.key)
	r.aside.lost[lost.key]++
	n := r.aside.lost[lost.key]
	if _, ok := segment.ParseLogKey(lost.key); ok {
		return n < lostAttempts
	}
	k, isData := r.exportOf(lost.key)
	switch {
	case k == "": // data of the log, say
		return n < lostAttempts
	case isData && n > 1 || n >= lostAttempts:
		r.leaveOut(k, err, "%s could not be used: %s is missing", k, lost.key)
	}
	return true
}

// leaveOut puts an export aside.
func (r *restorer) leaveOut(key string, err error, note string, args ...any) {
	r.aside.keys[key] = true
	r.aside.notes = append(r.aside.notes, fmt.Sprintf(note, args...))
	if r.aside.first == nil {
		r.aside.first = err
	}
}

// gap reports whether a gap in the log can be planned around: what was listed first
// can be older than what was listed last. For a time, the log can be left out.
func (r *restorer) gap() bool {
	r.aside.lost[segment.LogPrefix]++
	switch n := r.aside.lost[segment.LogPrefix]; {
	case n == 1:
		return true
	case n == 2 && r.target.time != 0 && r.plan.beyond < len(r.plan.exports):
		r.aside.keys[segment.LogPrefix] = true
		return true
	}
	return false
}

// exportOf returns the export of the plan that an object is of, or whose data it has.
func (r *restorer) exportOf(key string) (export string, isData bool) {
	for _, o := range r.base {
		if o.Header.External && o.DataKey() == key {
			return o.Header.Key(), true
		}
	}
	for _, k := range r.plan.exports {
		if k.key() == key {
			return key, false
		}
	}
	return "", false
}
