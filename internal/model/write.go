package model

// request sends a request to create i: created, or taken by another object; lost:
// nobody knows, and the session will try again.
func (x *explorer) request(s *state, i int, o id, how mode) (created, answer bool) {
	x.say("%s creates %s", x.who(s, i), x.t.text(o))
	if how == lost {
		x.say("  … and gets no reply")
		s.addLate(o)
		return false, false
	}
	created = x.create(s, o)
	if !created {
		x.say("  … the key is taken")
	}
	return created, true
}

// key is where a segment goes.
func (x *explorer) key(o *object) {
	o.key = o.min
	if !x.has(NextKey) {
		o.key = o.max
	}
	if o.max >= keys-1 {
		panic("model: too many TXIDs in world " + x.world.name)
	}
}

// claim is one attempt of Engine.claim (replicate/claim.go).
func (x *explorer) claim(s *state, i int, how mode) bool {
	m := &s.m[i]
	if !x.has(ClaimFirst) && m.end != 0 {
		m.set(claimed, true)
		return x.step(s, i, how)
	}
	self := m.session(i)
	c := object{kind: claim, session: self, min: x.t.max(m.end) + 1, max: x.t.max(m.end) + 1, prev: m.end, post: x.t.objects[m.end].post}
	x.key(&c)
	ours := x.t.intern(c)
	x.saveSession(m, self, ours)
	created, ok := x.request(s, i, ours, how)
	if !ok {
		return true
	}
	theirs := s.log[c.key]
	t := x.t.objects[theirs]
	switch {
	case created:
		m.frozen, m.phase = ours, confirming
	case !x.has(Compare):
		m.frozen, m.phase = ours, confirming
	case theirs == ours:
		m.frozen, m.phase = ours, confirming
	case x.has(OwnEarlier) && m.lineage&(1<<t.session) != 0:
		x.landed(s, i, theirs)
	default:
		x.fence(s, i, theirs)
	}
	if m.phase == confirming && !x.has(Confirm) {
		x.claimDone(s, i)
	}
	return true
}

// confirm is Engine.confirm: a listing of what is behind the claim.
func (x *explorer) confirm(s *state, i int, how mode) bool {
	m := &s.m[i]
	behind := s.last()
	if how == lost || how == stale && x.has(FreshList) {
		return false
	}
	if how == stale && behind > x.t.objects[m.frozen].key {
		for behind--; s.log[behind] == 0; {
			behind--
		}
	}
	if behind > x.t.objects[m.frozen].key {
		x.say("%s finds log/%d behind its claim", x.who(s, i), behind)
		x.fence(s, i, s.log[behind])
		return true
	}
	x.say("%s finds nothing behind its claim", x.who(s, i))
	x.claimDone(s, i)
	return true
}

func (x *explorer) claimDone(s *state, i int) {
	m := &s.m[i]
	m.end, m.frozen, m.phase = m.frozen, 0, running
	m.lineage |= 1 << m.session(i)
	m.set(claimed, true)
	x.noteLineage(m)
}

// fence is Engine.fencedBy.
func (x *explorer) fence(s *state, i int, by id) {
	m := &s.m[i]
	x.say("  %s is fenced by %s", x.who(s, i), x.t.text(by))
	if int(x.t.objects[by].session)/perMachine == i {
		x.violate("%s is fenced by its own machine", x.who(s, i))
	}
	*m = machine{kept: m.kept, phase: fenced, end: m.end}
}

// landed is Engine.landed: o, of one of this machine's sessions, has the key.
func (x *explorer) landed(s *state, i int, o id) {
	m := &s.m[i]
	t := x.t.objects[o]
	_, ok := x.t.grewFrom(m.db, t.post)
	switch {
	case t.prev != m.end:
		if !x.world.clone {
			x.violate("%s finds its own %s, which does not follow", x.who(s, i), x.t.text(o))
		}
		x.say("  … by another machine with the same lineage: refused")
		x.note(strayClone)
		m.phase = refused
	case t.kind == claim:
		x.say("  … by an earlier session of the machine, which counts")
		m.end = o
	case m.is(exporting),
		m.is(adopting) != (t.kind == adopt),
		m.is(repairing) != (t.kind == repair),
		m.is(adopting|repairing) && t.post != m.db,
		!ok, // then match finds no entry that ends there
		m.merged != 0 && t.post != m.merged && !x.grew(t.post, m.merged):
		x.say("  … by an earlier attempt with other entries: it decides anew")
		m.phase, m.frozen = listing, 0
	default:
		x.say("  … by an earlier attempt, which counts")
		x.acknowledge(s, i, o)
	}
}

func (x *explorer) grew(h, old hist) bool {
	_, ok := x.t.grewFrom(h, old)
	return ok
}

// upload is Engine.uploadNext with freeze and createLog (replicate/upload.go).
func (x *explorer) upload(s *state, i int, how mode) bool {
	m := &s.m[i]
	if m.frozen == 0 || !x.has(Frozen) && !m.is(adopting|repairing) {
		if m.frozen = x.freeze(s, i); m.frozen == 0 {
			return true
		}
		if m.is(reached) && m.safe == m.db { // settleFrozen
			m.durable, m.provedOf = m.frozen, m.file
		}
	}
	created, ok := x.request(s, i, m.frozen, how)
	if !ok {
		return true
	}
	theirs := s.log[x.t.objects[m.frozen].key]
	switch {
	case created, theirs == m.frozen, !x.has(Compare):
		x.acknowledge(s, i, m.frozen)
		m.set(fresh, created)
	case x.t.objects[theirs].session == m.session(i) && x.t.objects[theirs].prev == m.end:
		if !x.has(OwnAttempt) {
			x.acknowledge(s, i, m.frozen)
			break
		}
		m.frozen = 0
		x.landed(s, i, theirs)
	default:
		x.fence(s, i, theirs)
	}
	return true
}

// freeze makes a segment of everything that waits.
func (x *explorer) freeze(s *state, i int) id {
	m := &s.m[i]
	n, ok := x.t.grewFrom(m.db, x.t.objects[m.end].post)
	o := object{kind: entries, session: m.session(i), min: x.t.max(m.end) + 1, prev: m.end, post: m.db}
	switch {
	case m.is(adopting):
		o.kind, n = adopt, 1
	case m.is(repairing):
		o.kind, n = repair, 1
	case !ok:
		x.violate("%s: what waits does not follow the line's end", x.who(s, i))
		m.phase = refused
		return 0
	}
	o.max = o.min + uint8(n) - 1
	x.key(&o)
	return x.t.intern(o)
}

// acknowledge is Engine.acknowledge: o is the line's end, and who waits for the
// commits in it is told.
func (x *explorer) acknowledge(s *state, i int, o id) {
	m := &s.m[i]
	m.end, m.frozen = o, 0
	m.set(adopting|repairing, false)
	m.set(reached, true)
	x.noteLineage(m)
	x.say("  %s acknowledges %s", x.who(s, i), x.t.histText(x.t.objects[o].post))
	s.acked |= x.t.masks[x.t.objects[o].post]
	if !x.t.isBefore(o, s.tail) {
		x.violate("%s acknowledges %s, which is not in the line", x.who(s, i), x.t.text(o))
	}
}
