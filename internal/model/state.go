package model

import "slices"

// state is everything at one moment: the store, the requests under way without
// anybody waiting, the machines; and what only the model knows.
type state struct {
	log     [keys]id // by key
	snaps   [6]id    // by TXID and state; zeros first
	swept   [4]id    // snapshots whose data was swept before they were published; zeros first
	late    [3]id    // requests whose reply is lost, ascending, zeros first
	tail    id       // the end of the one history that counts
	acked   uint16   // commits of which somebody was told that they are safe
	faults  uint8    // replies lost
	exports uint8    // snapshots begun, first contact aside
	mishaps uint8    // losses of power, of continuity, files exchanged
	adopts  uint8    // times that somebody said yes to it
	m       [machines]machine
	reader  reader
}

// deletion marks a late request that deletes the log's key in the lower bits,
// rather than creating an object.
const deletion id = 1 << 15

// phase is where a session is.
type phase uint8

const (
	down       phase = iota // no session was begun yet
	listing                 // list the log
	reading                 // read it from next on, until there is none
	running                 // emit: claim, upload, publish, delete
	confirming              // the claim is created, the log behind it not looked at
	fenced
	refused
)

// flags of a session.
type flags uint16

const (
	listed    flags = 1 << iota // reading: the first key is from a listing
	sawBase                     // reading: there was a snapshot
	claimed                     // the session's claim is in the line
	restored                    // it restored the database: claims at once
	adopting                    // the first entry is an adopt entry with content
	repairing                   // the first entry is of kind repair
	reached                     // the file contains the line's end
	used                        // the application was let in: the file must stay
	exporting                   // first contact with a large database
	fresh                       // the last step created a log segment
)

// machine is a database, what is kept beside it, and its session.
type machine struct {
	kept
	phase  phase
	next   uint8 // reading: key
	flags  flags
	end    id     // the line's end as the session knows it
	frozen id     // log segment that is being created
	snap   id     // snapshot that is being created
	merged hist   // entries up to this state are one
	del    uint16 // keys of the log to delete
	delOld uint8  // and snapshots before this TXID
}

func (m *machine) is(f flags) bool { return m.flags&f != 0 }

func (m *machine) set(f flags, on bool) {
	m.flags &^= f
	if on {
		m.flags |= f
	}
}

// kept is what outlives sessions.
type kept struct {
	db       hist
	safe     hist   // what a loss of power leaves of db
	lineage  uint16 // sessions, as bits
	noted    id     // newest position known to be in the replica
	durable  id     // a position that the file contains, whatever happens
	file     uint8  // identity of the database's file; 0: there is none
	notedOf  uint8  // the file that contains noted; 0: none is known to
	provedOf uint8  // … durable
	lineOf   uint8  // the file that the lineage is about
	outdated bool   // noted is from before the last loss of power
	blind    bool   // what the file contains can only be told by comparing
	over     bool   // an older state was written over the file
	commits  uint8
	sessions uint8
}

// session is the ID of m's present session.
func (m *machine) session(i int) uint8 { return uint8(i*perMachine) + m.sessions - 1 }

// begin makes a new session of the machine, whatever became of the last.
func (m *machine) begin() {
	*m = machine{kept: m.kept, phase: listing}
	m.sessions++
}

// newest is the newest snapshot.
func (s *state) newest() id { return s.snaps[len(s.snaps)-1] }

// whole is the newest snapshot, of the first n, that has its data.
func (s *state) whole(n int) id {
	for n--; n > 0 && s.void(s.snaps[n]); n-- {
	}
	return s.snaps[n]
}

// void reports whether a snapshot lacks its data.
func (s *state) void(snap id) bool { return snap != 0 && slices.Contains(s.swept[:], snap) }

// last is the log's last key.
func (s *state) last() uint8 {
	for k := uint8(keys - 1); k > 0; k-- {
		if s.log[k] != 0 {
			return k
		}
	}
	return 0
}

// addLate keeps a request that may arrive later.
func (s *state) addLate(i id) {
	s.faults++
	if slices.Contains(s.late[:], i) {
		return
	}
	if s.late[0] != 0 {
		panic("model: too many late requests")
	}
	s.late[0] = i
	slices.Sort(s.late[:])
}

func (s *state) dropLate(n int) id {
	i := s.late[n]
	s.late[n] = 0
	slices.Sort(s.late[:])
	return i
}

// create is the store's answer to a request to create i; false: the key is taken.
func (x *explorer) create(s *state, i id) bool {
	o := x.t.objects[i]
	if o.kind == snapshot {
		for _, have := range s.snaps {
			if h := x.t.objects[have]; have != 0 && h.max == o.max && h.post == o.post {
				return false
			}
		}
		if s.snaps[0] != 0 {
			panic("model: too many snapshots")
		}
		s.snaps[0] = i
		x.sortSnaps(s)
		return true
	}
	if s.log[o.key] != 0 && x.has(Conditional) {
		return false
	}
	s.log[o.key] = i
	if o.prev == s.tail {
		s.tail = i
	}
	return true
}

func (x *explorer) sortSnaps(s *state) {
	slices.SortFunc(s.snaps[:], func(a, b id) int {
		oa, ob := x.t.objects[a], x.t.objects[b]
		if oa.max != ob.max {
			return int(oa.max) - int(ob.max)
		}
		return int(oa.post) - int(ob.post)
	})
}

// prune drops late requests that can't have an effect any more, whatever
// happens: a claim that is part of the line stays.
func (x *explorer) prune(s *state) {
	if !x.has(KeepClaims) || !x.has(Conditional) {
		return
	}
	for n, i := range s.late {
		if i == 0 || i >= deletion || x.t.objects[i].kind == snapshot {
			continue
		}
		have := s.log[x.t.objects[i].key]
		if have != 0 && x.t.objects[have].kind == claim && x.t.isBefore(have, s.tail) {
			s.late[n] = 0
		}
	}
	slices.Sort(s.late[:])
}
