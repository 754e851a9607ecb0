package model

import "slices"

// firstContact is Engine.firstContact (replicate/export.go) behind the claim:
// the pages are copied, the adopt entry says which state they make, and then the
// snapshot is published.
func (x *explorer) firstContact(s *state, i int, how mode) bool {
	m := &s.m[i]
	if m.frozen == 0 && m.snap == 0 {
		a := object{kind: adoptRef, session: m.session(i), min: x.t.max(m.end) + 1, max: x.t.max(m.end) + 1, prev: m.end, post: m.db}
		x.key(&a)
		m.frozen = x.t.intern(a)
		m.snap = x.t.intern(object{kind: snapshot, session: a.session, max: a.max, prev: m.frozen, post: m.db})
		if !x.has(AdoptFirst) {
			return x.publish(s, i, how)
		}
	}
	created, ok := x.request(s, i, m.frozen, how)
	if !ok {
		return true
	}
	theirs := s.log[x.t.objects[m.frozen].key]
	if !created && theirs != m.frozen && x.has(Compare) {
		x.fence(s, i, theirs)
		return true
	}
	m.end, m.frozen = m.frozen, 0
	m.set(reached, true)
	x.noteLineage(m)
	if m.snap == 0 { // only with AdoptFirst off
		x.published(s, i)
	}
	return true
}

// export begins a snapshot of the state that the line ends with.
func (x *explorer) export(s *state, i int) bool {
	m := &s.m[i]
	end := x.t.objects[m.end]
	o := object{kind: snapshot, session: m.session(i), max: end.max, prev: m.end, post: end.post}
	if m.phase != running || !m.is(claimed) || m.is(exporting|adopting|repairing) || m.frozen != 0 || m.snap != 0 || m.del != 0 || m.delOld != 0 ||
		int(s.exports) >= x.world.exports {
		return false
	}
	if !x.has(Acknowledged) && m.db != end.post { // what will be the next segment
		next := x.freeze(s, i)
		if next == 0 {
			return true
		}
		o.max, o.prev, o.post = x.t.max(next), next, m.db
	}
	if o.post == 0 || o.max <= x.t.max(s.newest()) {
		return false
	}
	s.exports++
	m.snap = x.t.intern(o)
	m.set(fresh, false)
	x.say("%s has exported %s", x.who(s, i), x.t.text(m.snap))
	return true
}

// publish is Engine.publish: any snapshot that has the key will do.
func (x *explorer) publish(s *state, i int, how mode) bool {
	m := &s.m[i]
	if _, ok := x.request(s, i, m.snap, how); !ok {
		return true
	}
	m.snap = 0
	if m.is(exporting) && m.frozen == 0 {
		x.published(s, i)
	}
	return true
}

// published ends first contact: commits up to the snapshot's are told to be safe.
func (x *explorer) published(s *state, i int) {
	m := &s.m[i]
	m.set(exporting, false)
	x.say("  %s acknowledges %s", x.who(s, i), x.t.histText(x.t.objects[m.end].post))
	s.acked |= x.t.masks[x.t.objects[m.end].post]
}

// retain plans deletions from two listings: of the log whatever the newest
// snapshot covers but claims and the newest segment, and all other snapshots.
// It is replicate/retain.go with a log that is kept for no time at all.
func (x *explorer) retain(s *state, i int) bool {
	m := &s.m[i]
	allowed := m.phase == running && m.is(fresh)
	if !x.has(AfterCreate) {
		allowed = m.phase == fenced || m.phase == running && m.is(claimed)
	}
	newest := x.newest(s, len(s.snaps))
	if !allowed || m.del != 0 || m.delOld != 0 || newest == 0 {
		return false
	}
	base, last := x.t.max(newest), s.last()
	for k := uint8(1); k <= last; k++ {
		o := x.t.objects[s.log[k]]
		switch {
		case s.log[k] == 0, o.kind == claim && x.has(KeepClaims), k == last && x.has(KeepNewest), o.max > base && x.has(KeepLog):
		default:
			m.del |= 1 << k
		}
	}
	if s.snaps[len(s.snaps)-2] != 0 {
		m.delOld = base
	}
	m.set(fresh, false)
	x.say("%s finds what the snapshot of TXID %d makes superfluous", x.who(s, i), base)
	return m.del != 0 || m.delOld != 0
}

// sweep deletes the data of snapshots that are not published: of sessions that are
// gone, it seems. They may have been paused for longer than the margin.
func (x *explorer) sweep(s *state, i int) bool {
	if m := &s.m[i]; !x.world.sweeps || m.phase != running || !m.is(fresh) || m.del != 0 || m.delOld != 0 {
		return false
	}
	n := 0
	orphan := func(snap id) {
		if snap == 0 || snap >= deletion || x.t.objects[snap].kind != snapshot || s.void(snap) || slices.Contains(s.snaps[:], snap) {
			return
		}
		if s.swept[0] != 0 {
			panic("model: too much is swept")
		}
		x.say("%s sweeps the data of %s", x.who(s, i), x.t.text(snap))
		s.swept[0] = snap
		slices.Sort(s.swept[:])
		n++
	}
	for j := range x.world.n {
		if j != i { // its own it knows
			orphan(s.m[j].snap)
		}
	}
	for _, late := range s.late {
		orphan(late)
	}
	return n > 0
}

// newest is the newest of the first n snapshots that counts.
func (x *explorer) newest(s *state, n int) id {
	if x.has(Whole) {
		return s.whole(n)
	}
	return s.snaps[n-1]
}

// remove deletes the next object of the plan, whatever it is by now.
func (x *explorer) remove(s *state, i int, how mode) bool {
	m := &s.m[i]
	if m.del == 0 {
		if how == lost {
			return false
		}
		x.say("%s deletes snapshots before TXID %d, and those without data", x.who(s, i), m.delOld)
		kept := len(s.snaps)
		for n := len(s.snaps) - 1; n >= 0; n-- { // the newest is the last
			if o := s.snaps[n]; x.t.max(o) >= m.delOld && !s.void(o) {
				kept--
				s.snaps[kept] = o
			}
		}
		clear(s.snaps[:kept])
		m.delOld = 0
		return true
	}
	k := uint8(0)
	for n := uint8(1); n < keys; n++ {
		if m.del&(1<<n) != 0 {
			if k = n; x.has(Ascending) {
				break
			}
		}
	}
	x.say("%s deletes log/%d", x.who(s, i), k)
	if how == lost {
		x.say("  … and gets no reply")
		if s.log[k] == 0 {
			return false
		}
		s.addLate(deletion | id(k))
		return true
	}
	s.log[k] = 0
	m.del &^= 1 << k
	return true
}
