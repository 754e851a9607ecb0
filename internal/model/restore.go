package model

// A reader is a restore of the newest state, request by request.
type reader struct {
	phase  readerPhase
	next   uint8 // key that is read when all that were listed are
	done   uint8 // TXID that db is the state of
	keys   uint16
	base   id   // snapshot
	prev   id   // log segment read last
	db     hist // so far
	owed   uint16
	failed bool
}

type readerPhase uint8

const (
	unread readerPhase = iota
	planning
	applying
	finished
)

// restoreStep is the next request of a restore: restorer.run (replicate/restore.go),
// makePlan (plan.go), applier.segment (apply.go). why says why the restore fails;
// a real one may be tried again, which is another restore.
func (x *explorer) restoreStep(s *state, r *reader, how mode) (why string) {
	switch r.phase {
	case unread:
		n := len(s.snaps) - 1
		if how == stale {
			n--
		}
		base := x.newest(s, n+1)
		*r = reader{phase: planning, base: base, db: x.t.objects[base].post, done: x.t.max(base), owed: s.acked}
		if s.void(base) {
			return "the data of the snapshot is missing"
		}
		x.say("a restore lists the snapshots: the newest is %s", x.t.text(r.base))
		return ""
	case planning:
		return x.planRestore(s, r, how)
	}
	k := r.next
	if r.keys != 0 {
		for k = 1; r.keys&(1<<k) == 0; k++ {
		}
	}
	o := s.log[k]
	switch {
	case o == 0 && r.keys != 0:
		return "a segment is gone"
	case o == 0 && r.prev == 0 && r.base != 0: // restorer.atEnd
		return "the log behind the snapshot is missing"
	case o == 0 && r.db == 0:
		return "nothing was replicated yet"
	case o == 0:
		x.say("a restore finds no log/%d: it gives %s", k, x.t.histText(r.db))
		r.phase = finished
		return ""
	}
	x.say("a restore reads %s", x.t.text(o))
	r.keys &^= 1 << k
	return x.apply(r, o)
}

// planRestore lists the log and begins with the segment that holds the TXID
// behind the snapshot's, or the last one before it: choosePlan.
func (x *explorer) planRestore(s *state, r *reader, how mode) (why string) {
	last := s.last()
	if how == stale {
		for last > 1 {
			if last--; s.log[last] != 0 {
				break
			}
		}
	}
	r.phase, r.next = applying, r.done+1
	first := uint8(0)
	for k := uint8(1); k <= last; k++ {
		if s.log[k] == 0 {
			continue
		}
		if k <= r.next {
			first, r.keys = k, 0
		}
		r.keys |= 1 << k
	}
	x.say("a restore lists the log up to %d", last)
	if first == 0 && r.keys != 0 {
		return "gap in the log"
	}
	return ""
}

// apply is applier.segment, with joins and wanted.
func (x *explorer) apply(r *reader, i id) (why string) {
	o, base := x.t.objects[i], x.t.objects[r.base]
	switch {
	case r.prev != 0 || r.base == 0:
		if o.prev != r.prev || o.min != x.t.max(r.prev)+1 {
			return "a segment does not follow the one before"
		}
	case o.min > base.max+1, o.min <= base.max && o.max < base.max:
		return "gap in the log"
	case o.min <= base.max && (o.max > base.max || i != base.prev),
		o.min > base.max && (o.prev != base.prev || x.t.objects[o.prev].post != base.post):
		return "the snapshot is not of this line"
	}
	r.prev, r.next = i, o.max+1
	switch {
	case o.max > r.done && o.kind == adoptRef:
		return "the snapshot of a database taken over is missing"
	case o.max > r.done:
		r.db, r.done = o.post, o.max
	case o.post != r.db:
		return "the snapshot has another state than the log"
	}
	return ""
}

// restore is a whole restore at one moment.
func (x *explorer) restore(s *state) (db hist, why string) {
	saying := x.saying
	x.saying = false
	defer func() { x.saying = saying }()
	var r reader
	for r.phase != finished {
		if why := x.restoreStep(s, &r, answered); why != "" {
			return 0, why
		}
	}
	return r.db, ""
}

// slowly is a step of the world's slow restore, which may fail but not give less
// than was acknowledged when it began.
func (x *explorer) slowly(s *state, how mode) bool {
	r := &s.reader
	if !x.world.reader || r.phase == finished || how == lost || how == stale && (x.has(FreshList) || r.phase >= applying) {
		return false
	}
	if why := x.restoreStep(s, r, how); why != "" {
		x.say("  … fails: %s", why)
		*r = reader{phase: finished, failed: true}
		return true
	}
	if r.phase != finished {
		return true
	}
	if gone := r.owed &^ x.t.masks[r.db] &^ x.t.lost[s.tail]; gone != 0 {
		x.violate("a restore gives %s without an error, more was acknowledged when it began", x.t.histText(r.db))
	}
	if o := x.t.objects[r.prev]; !x.t.isBefore(r.prev, s.tail) && o.kind != claim {
		x.violate("a restore gives %s, which is of another history", x.t.histText(r.db))
	}
	*r = reader{phase: finished}
	return true
}
