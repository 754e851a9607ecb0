package model

// decide is decide (replicate/decide.go), Engine.bind and Engine.begin (open.go).
func (x *explorer) decide(s *state, i int) {
	m := &s.m[i]
	role := x.world.roles[i]
	end := x.t.objects[m.end]
	_, contains := x.t.grewFrom(m.db, end.post)
	continues := end.post != 0 && (m.db == end.post || contains && !m.blind) || !x.has(Follows)
	known := m.end != 0 && m.lineage&(1<<end.session) != 0
	knowsFile := m.file != 0 && (m.file == m.lineOf || m.file == m.notedOf || m.file == m.provedOf)
	otherFile := m.file != 0 && m.lineOf != 0 && !knowsFile
	m.flags &= restored | claimed | used
	if m.is(claimed) && end.session != m.session(i) {
		m.set(claimed, false)
	}
	m.frozen, m.merged, m.phase = 0, 0, running
	ask := false // refused, unless the database is adopted
	switch {
	case m.noted != 0 && x.t.max(m.noted) > end.max:
		x.say("%s misses what was acknowledged before", x.who(s, i))
		switch {
		case x.world.lag:
			x.note(lateList)
		case !x.t.isBefore(m.end, s.tail):
			x.note(strayRead)
		default:
			x.violate("%s: the replica ends before what was acknowledged", x.who(s, i))
		}
		ask = true
	case x.has(NeedsBase) && x.checkBase(s, m.end):
		if m.db != 0 && (continues || known && !otherFile) {
			m.set(exporting, true)
		} else {
			ask = true
		}
	case m.db == 0 && end.post == 0: // both are empty
	case m.db == 0 && role.restores && !m.is(used):
		x.restoreFile(s, i)
		return
	case m.db == 0:
		m.phase = refused
	case continues:
	case end.post == 0:
		m.set(exporting, role.large)
		m.set(adopting, !role.large)
	case m.is(used) && x.repairable(m):
		m.set(repairing, true)
	case x.has(OldState) && x.earlier(s, m):
		if role.restores && !m.is(used) && (knowsFile || !x.has(SameFile)) && !x.repairable(m) {
			x.restoreFile(s, i)
			return
		}
		ask = true
	case x.repairable(m):
		m.set(repairing, true)
	default:
		ask = true
	}
	if ask && m.db != 0 && role.adopts && int(s.adopts) < x.world.adopts {
		s.adopts++
		x.say("%s is told to adopt", x.who(s, i))
		ref := x.checkBase(s, m.end)
		m.set(exporting, ref)
		m.set(adopting, !ref)
		if m.noted != 0 && x.t.max(m.noted) > end.max {
			m.noted = m.end
		}
	} else if ask {
		m.phase = refused
	}
	switch {
	case m.phase == refused:
		x.say("%s is refused: it has %s", x.who(s, i), x.t.histText(m.db))
		return
	case m.is(exporting):
		x.say("%s takes over the database: %s", x.who(s, i), x.t.histText(m.db))
	case m.is(adopting):
		x.say("%s begins with the database's content: %s", x.who(s, i), x.t.histText(m.db))
	case m.is(repairing):
		x.say("%s repairs: it has %s", x.who(s, i), x.t.histText(m.db))
	default:
		x.say("%s continues with %s", x.who(s, i), x.t.histText(m.db))
	}
	m.blind, m.over = false, false
	m.set(reached, !m.is(adopting|exporting))
	m.set(used, true)
}

// restoreFile makes the database anew; then it is decided again.
func (x *explorer) restoreFile(s *state, i int) {
	m := &s.m[i]
	db, why := x.restore(s)
	if why != "" {
		m.phase = refused
		return
	}
	x.say("%s restores: %s", x.who(s, i), x.t.histText(db))
	m.db, m.safe, m.phase, m.blind = db, db, listing, false
	m.file++
	m.set(restored, true)
}

// earlier is line.earlier (replicate/earlier.go): the database's state is one that
// the line had.
func (x *explorer) earlier(s *state, m *machine) bool {
	for _, o := range s.snaps {
		if o != 0 && x.t.objects[o].post == m.db {
			return true
		}
	}
	for k := x.t.objects[m.end].key; k > 0; k-- {
		at := x.t.objects[s.log[k]]
		if s.log[k] == 0 {
			continue
		}
		if at.post == m.db || at.kind == entries && x.grew(at.post, m.db) && x.grew(m.db, x.t.objects[at.prev].post) {
			return true
		}
	}
	return false
}
