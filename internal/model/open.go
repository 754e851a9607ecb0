package model

// mode is what becomes of a step's request.
type mode uint8

const (
	answered mode = iota
	lost          // the reply of a PUT or DELETE is lost; it may have arrived, or arrive later
	stale         // a listing lacks the newest objects
)

// step lets the session of machine i do what comes next; false: nothing does, or
// not in this mode.
func (x *explorer) step(s *state, i int, how mode) bool {
	m := &s.m[i]
	switch m.phase {
	case listing:
		return x.list(s, i, how)
	case reading:
		return how == answered && x.read(s, i)
	case confirming:
		return x.confirm(s, i, how)
	case fenced:
		return (m.del != 0 || m.delOld != 0) && x.remove(s, i, how) // only with AfterCreate off
	case running:
		created := m.is(fresh)
		m.set(fresh, false)
		switch {
		case how == stale:
			return false
		case m.del != 0 || m.delOld != 0:
			return x.remove(s, i, how)
		case m.snap != 0 && (!m.is(exporting) || m.frozen == 0 || !x.has(AdoptFirst)):
			return x.publish(s, i, how)
		case !m.is(claimed) && (m.is(restored|exporting|adopting|repairing) || m.db != x.t.objects[m.end].post):
			return x.claim(s, i, how)
		case m.is(exporting):
			return x.firstContact(s, i, how)
		case m.frozen != 0 || m.is(adopting|repairing) || m.db != x.t.objects[m.end].post:
			return x.upload(s, i, how)
		}
		m.set(fresh, created)
	}
	return false
}

// list is the listing with which line.end (replicate/line.go) begins. How far it
// reaches back doesn't matter, only which key is the last.
func (x *explorer) list(s *state, i int, how mode) bool {
	m := &s.m[i]
	m.next = s.last()
	if how == lost || how == stale && m.next == 0 {
		return false
	}
	if how == stale {
		for m.next--; m.next > 0 && s.log[m.next] == 0; {
			m.next--
		}
	}
	m.phase, m.end = reading, 0
	m.set(listed, m.next > 0)
	m.set(sawBase, s.newest() != 0)
	m.next = max(m.next, 1)
	x.say("%s lists the log: its last key is %d", x.who(s, i), m.next)
	return true
}

// read is one GET of line.end; the last of them ends in checkBase and decide.
func (x *explorer) read(s *state, i int) bool {
	m := &s.m[i]
	first := m.end == 0
	o := s.log[m.next]
	switch {
	case o == 0 && first && m.is(listed): // deleted since
		x.say("%s finds log/%d deleted and lists anew", x.who(s, i), m.next)
		m.phase = listing
	case o == 0 && first && m.is(sawBase):
		if x.note(lateList); !x.world.lag {
			x.violate("there is a snapshot but no log")
		}
		m.phase = refused
	case o == 0:
		x.say("%s finds no log/%d: the line ends with %s", x.who(s, i), m.next, x.t.text(m.end))
		x.decide(s, i)
	case (!first || m.next == 1) && x.t.objects[o].prev != m.end:
		// The one before was the end of the line once, and read in time; this one
		// is what a third session left in the gap that deletion made, or behind it.
		x.say("%s reads %s, which does not follow: refused", x.who(s, i), x.t.text(o))
		x.note(strayRead)
		m.phase = refused
	default:
		x.say("%s reads %s", x.who(s, i), x.t.text(o))
		m.end, m.next = o, x.t.max(o)+1
	}
	return true
}

// checkBase is line.checkBase: whether the line's last content is an adopt entry
// without pages whose snapshot is missing.
func (x *explorer) checkBase(s *state, end id) bool {
	switch k := x.t.objects[end].kind; {
	case end == 0, x.t.objects[end].post == 0, k == entries, k == adopt, k == repair:
		return false
	}
	for o := end; o != 0; o = s.log[x.t.objects[o].min-1] { // claims cover one TXID
		switch x.t.objects[o].kind {
		case adoptRef:
			return x.t.max(s.newest()) < x.t.max(o)
		case entries, adopt, repair:
			return false
		}
	}
	return false
}
