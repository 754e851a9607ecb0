// Package model is the store protocol without its bytes, small enough that every
// interleaving of a bounded world can be looked at: machines, crashes, requests
// that arrive late, pauses of any length. Nothing of the product imports it; its
// test runs it. Whoever changes what is written to a replica, when, or what is
// deleted, changes this first.
//
// # The protocol
//
// A replica is a log of segments, and snapshots. A segment has the TXIDs
// min..max, one for each commit; its key is its min. It names, by a chain value,
// the segment before. A snapshot has the state after one TXID. All objects are
// created if absent, none is ever overwritten.
//
// A machine has a database, and beside it, lasting through crashes, its lineage:
// the sessions it ever began, and positions that the database is known to have
// reached: the newest acknowledged one, which counts until power is lost, and one
// that was noted when the file had been synced. Both name the file that they are
// true of. What the database has beyond the replica's end waits to be uploaded.
// One session runs at a time on one machine; any number of machines can believe
// to be the replica's writer.
//
// A session
//
//  1. lists the log, reads its last segment, then the key behind what it read,
//     until there is none: that is the line's end. Since requests take time, this
//     may be long past when it is done.
//  2. decides. If the database contains the end's state it continues; an empty
//     line is begun, by an entry with the database's content (adopt), if it has
//     any; a machine without a database restores it from the replica, and so does
//     one whose own database is at an earlier position of the line, after a loss
//     of power, say. A database that changed while nobody looked is repaired, by
//     an entry with what differs, if it is proven that it had reached the end
//     once. Anything else is refused, or, if a person says so, adopted.
//  3. notes its ID in the lineage, durably, and then claims: it creates a claim,
//     a segment without pages, at the key behind the end. Who finds the key taken
//     reads what is there. An object of another machine: the line went on without
//     this session, which is fenced, for good. One of an earlier session of this
//     machine, whose request was under way when it died: it counts, and the line
//     is a segment longer.
//  4. confirms: lists the log behind the claim. If anything is there, then the
//     line had gone on long ago, and what had the claim's key was deleted since:
//     fenced. The claim remains in the gap and means nothing.
//  5. uploads, one segment at a time, at the key behind the last one. The bytes
//     are made once; while no answer comes the same are sent again. Key taken:
//     the same bytes are an earlier attempt that arrived, anything else fences.
//     What was created is acknowledged.
//  6. publishes a snapshot, of a state that is acknowledged. Right after an
//     upload it may delete: of the log what the newest snapshot makes
//     superfluous, from the oldest on, but no claims, and not the newest segment;
//     data that no snapshot names, and snapshots whose data is gone. A session that is paused between writing
//     its snapshot's data and publishing the snapshot can find the data gone: so
//     restores and deletions take a snapshot without data for none.
//
// Why that suffices: whoever goes on from an end E leaves a claim at E+1, for as
// long as there is the replica. Another session that believes E to be the end
// wants that very key: if it had claimed E or before, it meets the claim and is
// fenced, however long it was paused. If it has yet to claim, it meets the claim
// too; but E may also have been continued by the session that wrote it, whose
// segment at E+1 is no claim and may be gone: therefore the confirmation, which
// needs the newest segment to be there. From its claim on the argument holds
// again, with the claim as E.
//
// A database with content too large for one entry (first contact): claim, copy
// the pages, an adopt entry without pages that says which state they make, then
// the snapshot. In between the line can't be restored, and says so; nothing was
// acknowledged. Whoever crashes there does it again.
//
// # The model
//
// A commit is its number; a state of a database is the list of its commits. A
// segment is interned, so that its ID, which covers all before it, is its chain
// value. One action is one request and what its answer does, or something local;
// each names the function of package replicate that it models. A request can
// lose its reply: then it stays around, and arrives at any later time, or never.
// A pause is an action that nobody chooses. A crash and the next session's
// beginning are one action, since a dead session is a paused one that never
// wakes. Not modelled: the root (created if absent, never changed), data objects of
// the log, page segments (snapshots with a base), how long what is kept (the model
// deletes as early as can be), stores without conditions, bytes, clocks.
//
// Beside the store the model knows the one history that counts: a segment extends
// it if, at the moment it is created, it follows the last. Everything that check
// (invariant.go) asks is asked of this.
//
// Each [Rule] can be switched off. A test shows for each what then breaks, in the
// shortest way: the reason why it is there. Some of what can happen with all
// rules on breaks nothing and still surprises: those are the notes (explore.go),
// which the test prints.
//
//	go test -v ./internal/model                                # seconds
//	OUTWASH_MODEL=traces go test -v ./internal/model           # how each bug shows
//	OUTWASH_MODEL=large go test -v -timeout=1h ./internal/model
package model
