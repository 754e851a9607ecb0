package model

// Each world is a question. They are explored to their end.

type roles = [machines]role

var worlds = []world{
	{
		name: "two begin at once on an empty path, crash, lose replies",
		n:    2, roles: roles{{commits: 2, sessions: 2}, {commits: 2, sessions: 2}}, faults: 1,
	}, {
		name: "one machine crashes, and earlier requests arrive late",
		n:    1, roles: roles{{commits: 3, sessions: 3}}, faults: 2, exports: 1, merge: true,
	}, {
		name: "two write, one deletes what its snapshot covers",
		n:    2, roles: roles{{commits: 3, sessions: 1}, {commits: 1, sessions: 2}}, faults: 1, exports: 1,
	}, {
		name: "a machine without a database restores it and takes over",
		n:    2, roles: roles{{commits: 3, sessions: 1}, {commits: 1, sessions: 2, restores: true}}, faults: 1, exports: 1,
	}, {
		name: "two restore and take over from the same writer",
		n:    3, roles: roles{{commits: 3, sessions: 1}, {commits: 1, sessions: 1, restores: true}, {commits: 1, sessions: 1, restores: true}}, exports: 1,
	}, {
		name: "a machine is copied, lineage and all, and both go on",
		n:    2, roles: roles{{commits: 2, sessions: 1}, {commits: 1, sessions: 2}}, faults: 1, exports: 1, clone: true,
	}, {
		name: "two large databases with content meet",
		n:    2, roles: roles{{content: 1, large: true, commits: 1, sessions: 2}, {content: 1, large: true, commits: 1, sessions: 1}}, faults: 1,
	}, {
		name: "a large database's first contact, and who restores it meanwhile",
		n:    2, roles: roles{{content: 1, large: true, commits: 1, sessions: 2}, {commits: 1, sessions: 1, restores: true, large: true}}, faults: 1, exports: 1,
	}, {
		name: "two small databases with content meet",
		n:    2, roles: roles{{content: 1, commits: 1, sessions: 2}, {content: 1, commits: 1, sessions: 2}}, faults: 1,
	}, {
		name: "snapshots of paused sessions lose their data, and are published",
		n:    2, roles: roles{{commits: 3, sessions: 1}, {commits: 2, sessions: 1, restores: true}}, faults: 1, exports: 2, sweeps: true,
	}, {
		name: "a large database's first contact loses its data",
		n:    2, roles: roles{{content: 1, large: true, commits: 1, sessions: 2}, {content: 1, large: true, commits: 1, sessions: 1, adopts: true}}, faults: 1, adopts: 1, sweeps: true,
	}, {
		name: "a restore reads slowly while a writer goes on and deletes",
		n:    1, roles: roles{{commits: 4, sessions: 1}}, exports: 2, reader: true,
	}, {
		// With lost replies besides, a session can be fenced by its machine's earlier one.
		name: "listings at open are late",
		n:    2, roles: roles{{commits: 3, sessions: 2}, {commits: 1, sessions: 1, restores: true}}, exports: 1, lag: true,
	}, {
		name: "power is lost, with it what the file did not contain",
		n:    1, roles: roles{{commits: 3, sessions: 3, restores: true}}, faults: 1, mishaps: 1, power: true,
	}, {
		name: "a database changes while nobody looks, and is repaired",
		n:    2, roles: roles{{commits: 3, sessions: 2, restores: true}, {commits: 1, sessions: 1, restores: true}}, faults: 1, mishaps: 1, blind: true,
	}, {
		name: "an older file is put in the database's place",
		n:    1, roles: roles{{commits: 3, sessions: 3, restores: true, adopts: true}}, faults: 1, mishaps: 1, swap: true, power: true, adopts: 1,
	}, {
		name: "an older state is written over the database",
		n:    1, roles: roles{{commits: 3, sessions: 3, restores: true}}, faults: 1, mishaps: 2, swap: true, over: true, blind: true,
	}, {
		name: "another database is adopted",
		n:    2, roles: roles{{commits: 2, sessions: 2}, {content: 1, commits: 1, sessions: 1, adopts: true}}, faults: 1, adopts: 1,
	},
}

// largeWorlds ask the same with more of everything: OUTWASH_MODEL=large.
var largeWorlds = []world{
	{
		name: "two begin at once, large",
		n:    2, roles: roles{{commits: 2, sessions: 3}, {commits: 2, sessions: 2}}, faults: 2,
	}, {
		name: "one machine crashes, large",
		n:    1, roles: roles{{commits: 3, sessions: 4}}, faults: 3, exports: 2, merge: true,
	}, {
		name: "snapshots of paused sessions lose their data, large",
		n:    2, roles: roles{{commits: 3, sessions: 2}, {commits: 2, sessions: 1, restores: true}}, faults: 1, exports: 2, sweeps: true,
	}, {
		name: "two write, one deletes, large",
		n:    2, roles: roles{{commits: 3, sessions: 2}, {commits: 2, sessions: 2}}, faults: 1, exports: 2,
	}, {
		name: "take over, large",
		n:    2, roles: roles{{commits: 3, sessions: 2}, {commits: 2, sessions: 2, restores: true}}, faults: 1, exports: 1,
	}, {
		name: "three machines, one reply lost, large",
		n:    3, roles: roles{{commits: 3, sessions: 1}, {commits: 1, sessions: 1, restores: true}, {commits: 1, sessions: 1, restores: true}}, faults: 1, exports: 1,
	}, {
		name: "copied machine, large",
		n:    2, roles: roles{{commits: 3, sessions: 2}, {commits: 1, sessions: 2}}, faults: 1, exports: 1, clone: true,
	}, {
		name: "first contact twice, large",
		n:    2, roles: roles{{content: 1, large: true, commits: 2, sessions: 2}, {content: 1, large: true, commits: 1, sessions: 2}}, faults: 1, exports: 1,
	}, {
		name: "first contact and restore, large",
		n:    2, roles: roles{{content: 1, large: true, commits: 1, sessions: 3}, {commits: 1, sessions: 2, restores: true, large: true}}, faults: 1, exports: 1,
	}, {
		name: "slow restore, two writers, large",
		n:    2, roles: roles{{commits: 3, sessions: 2}, {commits: 1, sessions: 1, restores: true}}, exports: 2, reader: true,
	}, {
		name: "late listings, large",
		n:    2, roles: roles{{commits: 3, sessions: 3}, {commits: 2, sessions: 2, restores: true}}, exports: 2, lag: true,
	}, {
		name: "power is lost, two machines, large",
		n:    2, roles: roles{{commits: 3, sessions: 3, restores: true}, {commits: 1, sessions: 1, restores: true}}, faults: 1, mishaps: 1, power: true,
	}, {
		name: "all mishaps, large",
		n:    1, roles: roles{{content: 1, commits: 3, sessions: 4, restores: true}}, faults: 1, exports: 1, mishaps: 2, power: true, blind: true, swap: true,
	}, {
		name: "repair, two machines, large",
		n:    2, roles: roles{{commits: 3, sessions: 2, restores: true}, {commits: 1, sessions: 2, restores: true}}, faults: 1, mishaps: 1, blind: true, exports: 1,
	}, {
		name: "large databases adopted, large",
		n:    2, roles: roles{{content: 1, large: true, commits: 1, sessions: 2}, {content: 1, large: true, commits: 1, sessions: 2, adopts: true}}, faults: 1, adopts: 1,
	},
}

// Small ones, in which planted bugs show.
var (
	racing    = world{name: "racing", n: 2, roles: roles{{commits: 2, sessions: 1}, {commits: 1, sessions: 1}}}
	deleting  = world{name: "deleting", n: 2, roles: roles{{commits: 3, sessions: 1}, {commits: 1, sessions: 1}}, exports: 1}
	crashing  = world{name: "crashing", n: 1, roles: roles{{commits: 3, sessions: 2}}, faults: 1, exports: 1}
	taking    = world{name: "taking over", n: 2, roles: roles{{commits: 2, sessions: 1}, {commits: 1, sessions: 1, restores: true}}, exports: 1}
	contact   = world{name: "first contact", n: 2, roles: roles{{content: 1, large: true, commits: 1, sessions: 2}, {content: 1, commits: 1, sessions: 1}}}
	powerless = world{name: "power lost", n: 1, roles: roles{{content: 1, commits: 2, sessions: 2, restores: true}}, mishaps: 1, power: true}
	writing   = world{name: "older state written over", n: 1, roles: roles{{commits: 3, sessions: 3, restores: true}}, mishaps: 2, swap: true, over: true, blind: true}
	swapping  = world{name: "older file", n: 1, roles: roles{{commits: 3, sessions: 3, restores: true}}, mishaps: 2, swap: true, blind: true}
	sweeping  = world{name: "sweeping", n: 2, roles: roles{{commits: 2, sessions: 1}, {commits: 2, sessions: 1, restores: true}}, exports: 2, sweeps: true}
	restoring = world{name: "slow restore", n: 1, roles: roles{{commits: 3, sessions: 1}}, exports: 1, reader: true}
	lagging   = world{name: "late listings", n: 2, roles: roles{{commits: 2, sessions: 1}, {commits: 0, sessions: 2, restores: true}}, exports: 1, lag: true}
)
