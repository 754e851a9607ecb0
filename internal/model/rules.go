package model

// A Rule is something that sessions or stores hold to. What is switched off is a
// set of rules.
type Rule uint

// The rules.
const (
	// ClaimFirst: a session's first object is a claim.
	ClaimFirst Rule = iota
	// KeepClaims: claims are never deleted.
	KeepClaims
	// Confirm: behind its claim a session looks for what came long before.
	Confirm
	// NextKey: a segment's key is the last one's end + 1. (Off: its own end.)
	NextKey
	// Conditional: objects are created if absent.
	Conditional
	// Compare: who finds a key taken reads what is there. (Off: an earlier
	// attempt of ours, certainly.)
	Compare
	// OwnEarlier: what an earlier session of this machine created counts. (Off:
	// it fences as any other.)
	OwnEarlier
	// Durable: a session is in the lineage before its first object. (Off: once it
	// has claimed.)
	Durable
	// Frozen: a segment's bytes are the same in all attempts.
	Frozen
	// OwnAttempt: another segment of this session's own under the key is an
	// earlier attempt, and acknowledged as far as it goes. (Off: taken for the
	// whole.)
	OwnAttempt
	// Follows: a session continues only an end whose state its database contains.
	Follows
	// Acknowledged: a snapshot is published once its position is acknowledged.
	Acknowledged
	// AdoptFirst: first contact publishes the snapshot after the adopt entry.
	AdoptFirst
	// NeedsBase: a line whose last adopt entry lacks its snapshot is continued by
	// nobody but who adopts again.
	NeedsBase
	// SameBoot: a position that was noted and not made durable proves nothing
	// after a loss of power.
	SameBoot
	// SameFile: positions prove something of the file that they were noted of.
	SameFile
	// OldState: a database at a state that the line had before is not repaired,
	// whatever it is proven to have reached: somebody put it there.
	OldState
	// Untouched: an older state that is written over the file (cp, not mv) is one
	// that the log has, and is opened before anything else writes to it. A promise
	// of people's: the file seems to be the same, so what it has is a repair.
	Untouched
	// SyncFirst: a position is made durable once the file is.
	SyncFirst
	// KeepNewest: the newest log segment is never deleted.
	KeepNewest
	// KeepLog: of the log only that goes which the newest snapshot covers.
	KeepLog
	// AfterCreate: deletions are planned right after a successful upload, which
	// nobody succeeds with who was fenced. (Off: by whoever likes to.)
	AfterCreate
	// Ascending: the log is deleted from its oldest segment on.
	Ascending
	// Whole: a snapshot whose data is missing counts for nothing.
	Whole
	// FreshList: a listing has what was created before it began. A promise of the
	// store's. (Off: the listing behind a claim, and those of a restore, may lack
	// the newest object; those of an open may anyway, where the world says so.)
	FreshList

	numRules
)

var ruleNames = [numRules]string{
	"ClaimFirst", "KeepClaims", "Confirm", "NextKey", "Conditional", "Compare", "OwnEarlier", "Durable", "Frozen", "OwnAttempt",
	"Follows", "Acknowledged", "AdoptFirst", "NeedsBase", "SameBoot", "SameFile", "OldState", "Untouched", "SyncFirst", "KeepNewest", "KeepLog", "AfterCreate", "Ascending", "Whole", "FreshList",
}

func (r Rule) String() string { return ruleNames[r] }

type rules uint32

func without(list ...Rule) (off rules) {
	for _, r := range list {
		off |= 1 << r
	}
	return off
}

func (x *explorer) has(r Rule) bool { return x.off&(1<<r) == 0 }
