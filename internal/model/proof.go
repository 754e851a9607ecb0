package model

// What a machine can prove about its file after a crash: replicate/lineage.go and
// internal/local/lineage.go.

// repairable is situation.repairable, that is Lineage.Reached.
func (x *explorer) repairable(m *machine) bool {
	return x.proves(m, m.durable, m.provedOf) || (!m.outdated || !x.has(SameBoot)) && x.proves(m, m.noted, m.notedOf)
}

// proves is Lineage.proves: whether a file that had reached p had reached the end.
func (x *explorer) proves(m *machine, p id, file uint8) bool {
	a, t := x.t.objects[p], x.t.objects[m.end]
	switch {
	case p == 0 || file == 0 || m.end == 0 || file != m.file && x.has(SameFile):
		return false
	case m.lineage&(1<<a.session) == 0 || m.lineage&(1<<t.session) == 0 || a.session < t.session:
		return false
	case a.session == t.session && a.max == t.max:
		return a.post == t.post
	}
	return a.max > t.max
}

// saveSession is Engine.saveSession.
func (x *explorer) saveSession(m *machine, self uint8, c id) {
	if !x.has(Durable) {
		return
	}
	newFile := m.is(reached) && m.file != 0 && m.file != m.lineOf
	if m.lineage&(1<<self) != 0 && !newFile {
		return
	}
	m.lineage |= 1 << self
	if newFile {
		m.lineOf = m.file
	}
	if m.is(reached) && x.proves(m, m.durable, m.provedOf) {
		m.durable, m.provedOf = c, m.file
	}
}

// noteLineage is Engine.noteLineage.
func (x *explorer) noteLineage(m *machine) {
	m.noted, m.notedOf, m.outdated = m.end, 0, false
	if m.is(reached) {
		m.notedOf = m.file
		if m.file != 0 {
			m.lineOf = m.file
		}
	}
}

// settle is a checkpoint with Engine.settle.
func (x *explorer) settle(s *state, i int) bool {
	m := &s.m[i]
	if !x.world.power || m.phase != running || m.safe == m.db {
		return false
	}
	if x.has(SyncFirst) {
		m.safe = m.db
	}
	x.say("%s checkpoints %s", x.who(s, i), x.t.histText(m.db))
	if m.is(reached) && m.end != 0 {
		m.durable, m.provedOf = m.end, m.file
	}
	return true
}

// mishap is what can befall a machine between two sessions.
func (x *explorer) mishap(s *state, i int, v verb) bool {
	m := &s.m[i]
	if int(s.mishaps) >= x.world.mishaps || m.sessions == 0 || int(m.sessions) >= x.world.roles[i].sessions || m.db == 0 {
		return false
	}
	switch v {
	case doPower:
		if !x.world.power || m.safe == m.db {
			return false
		}
		m.db, m.outdated = m.safe, true
		if m.db == 0 {
			m.file = 0
		}
		x.say("%c loses power, and has %s", 'a'+i, x.t.histText(m.db))
	case doBlind:
		if !x.world.blind || m.over && x.has(Untouched) || int(m.commits) >= x.world.roles[i].content+x.world.roles[i].commits {
			return false
		}
		m.blind = true
		x.commit(s, i)
		x.say("%c changes while nobody looks: %s", 'a'+i, x.t.histText(m.db))
	case doSwap:
		if !x.world.swap {
			return false
		}
		m.db = x.t.hists[m.db].before
		if m.db == 0 || x.world.over && x.has(Untouched) && !x.earlier(s, &machine{kept: m.kept, end: s.tail}) {
			return false
		}
		m.safe, m.blind, m.over = m.db, true, x.world.over
		if !x.world.over {
			m.file++
		}
		x.say("%c gets an older file: %s", 'a'+i, x.t.histText(m.db))
	}
	s.mishaps++
	m.begin()
	return true
}
