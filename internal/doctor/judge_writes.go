package doctor

import (
	"errors"
	"strings"

	"github.com/outwash/outwash/internal/objstore"
)

// writes judges what replication needs.
func (j *judge) writes() {
	f := j.f
	if f.Create == nil {
		return
	}
	switch {
	case f.Plain != nil:
		if !j.check(checkCreate, f.Plain, "objects can be written", "objects can't be written") {
			return
		}
		j.weak(explained(Finding{Check: checkCondition, Millis: millis(f.Create), Text: "conditional writes are refused"}, f.Create.Err), "conditions-refused")
	case !j.check(checkCreate, f.Create, "objects can be created", "objects can't be created"):
		return
	case f.Again == nil:
	case errors.Is(f.Again.Err, objstore.ErrExist):
		j.add(Finding{Check: checkCondition, State: OK, Text: "what exists is not replaced (conditional writes): of two writers exactly one goes on", Millis: millis(f.Again)})
	case f.Again.Err == nil:
		j.weak(Finding{Check: checkCondition, Millis: millis(f.Again), Text: "conditional writes are ignored"}, "conditions-ignored")
	default:
		j.check(checkCondition, f.Again, "", "it can't be told whether conditional writes work")
	}
	j.check(checkRead, f.Read, "what was written is read back", "what was written can't be read back")
	j.check(checkRange, f.Ranged, "parts of objects can be read", "parts of objects can't be read")
	j.large()
	j.check(checkWrite, f.Small, "objects can be written without condition", "objects can't be written without condition")
	j.listing()
	j.deletes()
}

// weak adds what missing conditions mean.
func (j *judge) weak(f Finding, cause string) {
	f.State, f.Cause = Warning, cause
	f.Remedy = "it works, with a weaker fence: a second writer is nearly always found out, but not by the server; run only one program per replica"
	j.add(f)
}

func (j *judge) large() {
	f := j.f
	if f.Target == nil {
		j.check(checkMultipart, f.Large, "files can be written and renamed", "files can't be written and renamed")
		return
	}
	if t := f.Large; t != nil && errors.Is(t.Err, objstore.ErrUnsupported) {
		// Some servers want larger parts than doctor sends.
		j.add(explained(Finding{Check: checkMultipart, State: Warning, Text: "a multipart upload of one small part is not accepted; larger ones may be", Millis: millis(t)}, t.Err))
	} else {
		j.check(checkMultipart, t, "large objects can be uploaded in parts", "large objects can't be uploaded in parts")
	}
	switch t := f.Abort; {
	case t == nil:
	case t.Err == nil:
		j.add(Finding{Check: checkAbort, State: OK, Text: "interrupted uploads can be aborted"})
	default:
		a := explained(Finding{Check: checkAbort, State: Skipped, Text: "interrupted uploads can't be aborted: they stay, unseen, and are paid for"}, t.Err)
		a.Remedy = "allow s3:AbortMultipartUpload, or have a lifecycle rule (AbortIncompleteMultipartUpload) remove them"
		j.add(a)
	}
}

func (j *judge) listing() {
	t := j.f.Listing
	switch {
	case t == nil || failed(j.f.List) && failed(t): // said already
	case errors.Is(t.Err, errUnlisted):
		j.add(explained(Finding{Check: checkListing, State: Warning, Text: "what was just written is not listed yet", Millis: millis(t)}, t.Err))
	default:
		j.check(checkListing, t, "listings show at once, and in order, what was written", "what was written can't be listed")
	}
}

// deletes judges what retention and tidying up need: replication works without.
func (j *judge) deletes() {
	for _, d := range []struct {
		check, good, bad string
		t                *Try
	}{
		{checkDelete, "objects can be deleted", "objects can't be deleted", j.f.Delete},
		{checkDeletes, "several objects can be deleted at once", "several objects can't be deleted at once", j.f.Deletes},
	} {
		if j.check(d.check, d.t, d.good, d.bad) || d.t == nil {
			continue
		}
		last := &j.r.Checks[len(j.r.Checks)-1]
		last.State = Warning
		j.r.Warnings++
		last.Remedy = strings.TrimSuffix("replication works without, but history that is too old stays, and what failed uploads leave: "+last.Remedy, ": ")
	}
	if t := j.f.Vanished; t != nil && t.Err != nil {
		j.add(explained(Finding{Check: checkVanished, State: Warning, Text: "what was just deleted is still listed", Millis: millis(t)}, t.Err))
	}
}
