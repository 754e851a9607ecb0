package doctor

import "time"

// A State says how a check came out.
type State string

// The states. A warning is something that works, and less well than it could.
const (
	OK      State = "ok"
	Warning State = "warning"
	Failed  State = "failed"
	Skipped State = "skipped"
)

// A Verdict is the outcome of all checks.
type Verdict string

// The verdicts.
const (
	Ready    Verdict = "ready"     // good for what was asked: replication, or with ReadOnly restores
	ReadOnly Verdict = "read-only" // good for restores, not for replication
	Unfit    Verdict = "failed"
)

// A Finding is one check. Its names and causes stay the same; the texts are for
// people.
type Finding struct {
	Check  string `json:"check"`
	State  State  `json:"state"`
	Text   string `json:"text"`
	Cause  string `json:"cause,omitempty"` // see s3store.Problem
	Remedy string `json:"remedy,omitempty"`
	Action string `json:"action,omitempty"` // IAM's name of what is not allowed
	Said   string `json:"said,omitempty"`   // by the server or the system
	Millis int64  `json:"ms,omitempty"`
}

// A Report is what Judge makes of Facts.
type Report struct {
	Replica  string    `json:"replica"`
	Target   []Pair    `json:"target,omitempty"`
	Checks   []Finding `json:"checks"`
	Left     []string  `json:"left,omitempty"` // objects of doctor's own that could not be removed
	Warnings int       `json:"warnings"`
	Verdict  Verdict   `json:"verdict"`
	Text     string    `json:"text"`
	Next     string    `json:"next"` // what to do now: a command, or advice

	Err error `json:"-"` // what is wrong with the replica at the path, if that is what failed
}

// A Pair is one line of where the store is.
type Pair struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Check names.
const (
	checkCredentials = "credentials"
	checkDNS         = "dns"
	checkConnect     = "connect"
	checkTLS         = "tls"
	checkAnswer      = "answer"
	checkClock       = "clock"
	checkBucket      = "bucket"
	checkList        = "list"
	checkMissing     = "missing"
	checkReplica     = "replica"
	checkForeign     = "foreign"
	checkLeftovers   = "leftovers"
	checkCreate      = "create"
	checkCondition   = "condition"
	checkRead        = "read"
	checkRange       = "range"
	checkMultipart   = "multipart"
	checkAbort       = "abort"
	checkWrite       = "write"
	checkListing     = "listing"
	checkVanished    = "listing-after-delete"
	checkDelete      = "delete"
	checkDeletes     = "delete-many"
	checkCleanup     = "cleanup"
)

func millis(t *Try) int64 {
	if t == nil {
		return 0
	}
	return t.Took.Round(time.Millisecond).Milliseconds()
}
