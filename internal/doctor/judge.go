package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/s3store"
)

// judge collects findings.
type judge struct {
	f *Facts
	r *Report
}

// Judge says what facts mean. It is a pure function, but for now, by which
// certificates and credentials run out.
func Judge(f *Facts, now time.Time) *Report {
	j := &judge{f, &Report{Replica: f.URL, Left: f.Left}}
	if f.Target != nil {
		for _, fact := range f.Target.Facts() {
			j.r.Target = append(j.r.Target, Pair{fact.Name, fact.Value})
		}
		j.credentials(now)
		j.connection(now)
	}
	j.reads()
	if !f.ReadOnly {
		j.writes()
	}
	if len(f.Left) > 0 {
		j.add(Finding{Check: checkCleanup, State: Warning, Cause: "left",
			Text:   "what doctor wrote could not be removed: " + strings.Join(f.Left, ", "),
			Remedy: "delete it by hand; left there it costs next to nothing and disturbs nobody"})
	}
	j.conclude()
	return j.r
}

func (j *judge) add(f Finding) {
	if f.State == Warning {
		j.r.Warnings++
	}
	j.r.Checks = append(j.r.Checks, f)
}

// check adds what came of a try: good if it succeeded, else bad with cause and
// remedy. It reports whether it succeeded.
func (j *judge) check(name string, t *Try, good, bad string) bool {
	if t == nil {
		return false
	}
	if t.Err == nil {
		j.add(Finding{Check: name, State: OK, Text: good, Millis: millis(t)})
		return true
	}
	j.add(explained(Finding{Check: name, State: Failed, Text: bad, Millis: millis(t)}, t.Err))
	return false
}

// explained adds to a finding why err happened.
func explained(f Finding, err error) Finding {
	if p, ok := s3store.Explain(err); ok {
		f.Cause, f.Remedy, f.Action, f.Said = p.Cause, p.Remedy, p.Action, p.Said
		return f
	}
	f.Said = err.Error()
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case is(errDiffers):
		f.Cause, f.Remedy = "differs", "the server, or a proxy before it, changes what is stored: nothing there can be relied on"
	case is(errUnlisted):
		f.Cause, f.Remedy = "stale-listing", "the server's listings lag behind: restores and the fence find what is missing by reading, but slower"
	case is(objstore.ErrNoBucket):
		f.Cause, f.Remedy = "no-bucket", "create the bucket, or correct its name in the URL"
	case is(syscall.ENOSPC, syscall.EDQUOT):
		f.Cause, f.Remedy = "quota", "the disk is full, or a quota used up: make room"
	case is(syscall.EROFS):
		f.Cause, f.Remedy = "read-only-disk", "the file system is mounted read-only"
	case is(fs.ErrPermission):
		f.Cause, f.Remedy = "denied", "this user may not do that in the directory: change its owner or mode (files get 0600, directories 0700)"
	case is(syscall.ENOTDIR, syscall.EISDIR):
		f.Cause, f.Remedy = "no-directory", "a part of the path is a file, not a directory"
	case is(objstore.ErrUnsupported):
		f.Cause, f.Remedy = "not-implemented", "the file system has neither hard links nor a rename that replaces nothing: use another one"
	case is(objstore.ErrDenied):
		f.Cause = "denied"
	}
	return f
}

// credentials judges where they come from.
func (j *judge) credentials(now time.Time) {
	c := j.f.Credentials
	if c == nil {
		j.check(checkCredentials, j.f.Identity, "", "there are no credentials")
		return
	}
	f := Finding{Check: checkCredentials, State: OK, Text: "from: " + c.Source, Millis: millis(j.f.Identity)}
	switch left := c.Expires.Sub(now).Round(time.Minute); {
	case c.Expires.IsZero() && c.Temporary:
		f.Text += ", temporary"
		if strings.HasPrefix(c.Source, "environment") || strings.HasPrefix(c.Source, "settings") {
			f.State, f.Cause = Warning, "temporary"
			f.Remedy = "a session token runs out, and nothing renews it here: long-running programs want a profile, a role or lasting keys"
		}
	case !c.Expires.IsZero():
		f.Text += fmt.Sprintf(", valid for %s, then fetched anew", left)
	}
	j.add(f)
}

// reads judges what a restore needs.
func (j *judge) reads() {
	f := j.f
	if f.List == nil {
		return
	}
	if stops(f.List) {
		j.add(explained(Finding{Check: checkBucket, State: Failed, Text: badBucket(f.List.Err), Millis: millis(f.List)}, f.List.Err))
		return
	}
	if f.Target != nil && !failed(f.List) {
		j.add(Finding{Check: checkBucket, State: OK, Text: "the bucket is there"})
	}
	j.check(checkList, f.List, "objects can be listed", "objects can't be listed")
	j.missing()
	j.replica()
}

func badBucket(err error) string {
	switch {
	case errors.Is(err, objstore.ErrNoBucket):
		return "the bucket is not there"
	case errors.Is(err, objstore.ErrDenied):
		return "the server does not take the credentials"
	}
	return "the store can't be used"
}

// missing judges the answer for what does not exist: writers rely on it, as it says
// where the line ends.
func (j *judge) missing() {
	t := j.f.Missing
	switch {
	case t == nil:
	case j.unproven():
		j.add(Finding{Check: checkMissing, State: Skipped, Text: "the server forbids to read what does not exist: whether what exists can be read is not known yet"})
	case errors.Is(t.Err, objstore.ErrNotExist):
		j.add(Finding{Check: checkMissing, State: OK, Text: "what does not exist is answered so", Millis: millis(t)})
	case errors.Is(t.Err, objstore.ErrDenied) && j.f.Read != nil && j.f.Read.Err == nil:
		// Reading is allowed, so it is the permission to list that is missing.
		f := explained(Finding{Check: checkMissing, State: Failed, Text: "what does not exist is answered with \"denied\"", Millis: millis(t)}, t.Err)
		f.Action = "s3:ListBucket"
		f.Remedy = "allow s3:ListBucket on the bucket, and not only for some prefixes: without it S3 doesn't say that an object does not exist, and neither a first open nor a restore can go on"
		j.add(f)
	default:
		j.check(checkMissing, t, "", "objects can't be read")
	}
}

// replica judges what is at the path.
func (j *judge) replica() {
	r := j.f.Replica
	if r == nil {
		return
	}
	f := Finding{Check: checkReplica, State: OK}
	switch {
	case errors.Is(r.Err, objstore.ErrNotExist):
		f.Text = "none yet at this path"
		if j.f.ReadOnly {
			f.State = Skipped
		}
	case errors.Is(r.Err, objstore.ErrDenied) && errors.Is(j.f.Missing.Err, objstore.ErrDenied):
		f.State, f.Text = Skipped, "can't be read" // said already
	case errors.Is(r.Err, objstore.ErrDenied):
		f = explained(Finding{Check: checkReplica, State: Failed, Text: "the one at this path can't be read"}, r.Err)
	case r.Err != nil && !broken(r.Err):
		f = explained(Finding{Check: checkReplica, State: Failed, Text: "it can't be told whether there is one at this path"}, r.Err)
	case r.Err != nil:
		j.r.Err = r.Err
		f = explained(Finding{Check: checkReplica, State: Failed, Text: "what is at the path can't be used as a replica"}, r.Err)
		f.Cause, f.Remedy = "replica", `"outwash inspect" shows what the object is; replicate to another path, or move it away`
	default:
		f.Text = "of database " + r.Database[:min(8, len(r.Database))]
		switch {
		case r.Empty:
			f.Text += ", without content yet"
		case r.TXID > 0:
			f.Text += fmt.Sprintf(", up to TXID %d of %s", r.TXID, r.Time.UTC().Format(time.RFC3339))
			if r.Writer != "" {
				f.Text += ", written by " + r.Writer
			}
		}
	}
	j.add(f)
	if len(r.Foreign) > 0 {
		j.add(Finding{Check: checkForeign, State: OK, Text: "objects that are not Outwash's are at the path, and left alone: " + keys(r.Foreign)})
	}
	if len(r.Scratch) > 0 {
		j.add(Finding{Check: checkLeftovers, State: OK, Text: "of another outwash doctor, which runs or was killed (then they can be deleted): " + keys(r.Scratch)})
	}
}

func keys(list []string) string {
	var names []string
	for _, k := range list {
		names = append(names, fmt.Sprintf("%q", k))
	}
	return strings.Join(names, ", ")
}

// broken reports whether err is what the bytes of an object say, and not that they
// can't be had.
func broken(err error) bool {
	for _, e := range []error{replicate.ErrCorrupt, replicate.ErrVersion, replicate.ErrForeign} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// hasReplica reports whether there is one.
func (j *judge) hasReplica() bool { return j.f.Replica != nil && j.f.Replica.Err == nil }

// unproven: nothing showed that objects can be read, nor that they can't.
func (j *judge) unproven() bool {
	f := j.f
	return f.Missing != nil && errors.Is(f.Missing.Err, s3store.ErrHidden) && f.Read == nil && f.Replica != nil && errors.Is(f.Replica.Err, objstore.ErrNotExist)
}
