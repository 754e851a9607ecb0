package model

// check is everything that must hold in every state.
func (x *explorer) check(s *state) {
	if s.log == x.checked.log && s.snaps == x.checked.snaps && s.swept == x.checked.swept && s.tail == x.checked.tail && s.acked == x.checked.acked {
		return
	}
	x.checked = *s
	tail := x.t.objects[s.tail]

	// One history: whatever is in the log is of the one line, or a claim that
	// somebody left in a gap of it.
	for k, i := range s.log {
		if i == 0 {
			continue
		}
		o := x.t.objects[i]
		if !x.t.isBefore(i, s.tail) && (o.kind != claim || o.max >= tail.min) {
			x.violate("%s is of another history than %s", x.t.text(i), x.t.text(s.tail))
			return
		}
		if uint8(k) != o.min {
			x.violate("%s is under a key that no reader looks for", x.t.text(i))
			return
		}
	}
	// Restoring gives the state at its end. It may fail on an empty line; and
	// behind an adopt entry whose snapshot is missing, where what was before that
	// entry can be restored by its TXID.
	db, why := x.restore(s)
	switch at := x.baseMissing(s); {
	case why != "" && tail.post == 0:
		db = 0
	case why != "" && at != 0:
		if db = x.restoreBefore(s, at); s.acked&^x.t.masks[db] == 0 && s.acked != 0 {
			x.note(byTXID)
		}
	case why != "":
		x.violate("a restore fails: %s", why)
		return
	case db != tail.post:
		x.violate("a restore gives %s, the line ends with %s", x.t.histText(db), x.t.text(s.tail))
		return
	}
	// Nothing acknowledged is lost, but for what an adopt entry overrode by name.
	if gone := s.acked &^ x.t.masks[db] &^ x.t.lost[s.tail]; gone != 0 {
		for c := range uint8(16) {
			if gone&(1<<c) != 0 {
				x.violate("%s was acknowledged and can't be restored", commitName(c))
				return
			}
		}
	}
}

// baseMissing is the adopt entry without pages behind which the line can't be
// restored, because neither it nor one that followed has its snapshot.
func (x *explorer) baseMissing(s *state) (at id) {
	for i := s.tail; i != 0; i = x.t.objects[i].prev {
		switch o := x.t.objects[i]; {
		case o.max <= x.t.max(s.whole(len(s.snaps))), o.kind == adopt:
			return at
		case o.kind == adoptRef:
			at = i
		}
	}
	return at
}

// restoreBefore restores the TXID before the segment o; 0 if that can't be.
func (x *explorer) restoreBefore(s *state, o id) hist {
	before := *s
	for k := x.t.objects[o].min; k < keys; k++ { // so that it is the newest
		before.log[k] = 0
	}
	db, _ := x.restore(&before)
	return db
}

// progress checks that some machine can go on alone: begin a session, upload what
// waits, and one more commit. It depends on the store and on what outlives
// sessions, so that few states need looking at.
func (x *explorer) progress(s *state) {
	key := state{log: s.log, snaps: s.snaps, swept: s.swept, tail: s.tail, mishaps: s.mishaps}
	for i := range x.world.n {
		m := &s.m[i]
		key.m[i] = machine{kept: m.kept}
	}
	if !x.solo.add(x.hash(&key)) {
		return
	}
	say := x.saying
	x.saying = false
	defer func() { x.saying = say }()
	person := false
	for i := range x.world.n {
		ok, refused := x.alone(key, i)
		if ok && !refused {
			return
		}
		person = person || refused
	}
	if !person {
		x.violate("no machine can go on")
	} else {
		x.note(needsPerson)
	}
}

// alone lets a machine go on without anybody else. person: after a mishap it
// can't by itself, and a person must decide.

func (x *explorer) alone(s state, i int) (ok, person bool) {
	m := &s.m[i]
	if m.sessions == perMachine || m.commits == perMachine {
		return false, false
	}
	m.begin()
	bad, found := x.bad, x.found
	defer func() { x.bad, x.found = bad, found }()
	committed := false
	for range 100 {
		if m.phase == running && m.is(claimed) && !committed {
			x.commit(&s, i)
			committed = true
		}
		if !x.step(&s, i, answered) {
			if s.mishaps > 0 && m.phase == refused {
				return true, true
			}
			if committed || m.phase != running {
				return committed && m.phase == running && m.end == s.tail && m.db == x.t.objects[m.end].post && x.bad == bad, false
			}
			x.commit(&s, i)
			committed = true
		}
	}
	return false, false
}
