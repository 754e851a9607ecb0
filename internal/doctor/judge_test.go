package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/s3store"
)

var now = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)

func good() *Try { return &Try{Took: 3 * time.Millisecond} }

func bad(err error) *Try { return &Try{Err: fmt.Errorf("wrapped: %w", err)} }

// healthy are the facts of a store in S3 at which everything works.
func healthy() *Facts {
	return &Facts{
		URL: "s3://my-bucket/app?region=eu-central-1", Target: &s3store.Target{Bucket: "my-bucket", Prefix: "app", Region: "eu-central-1"},
		Credentials: &s3store.Credentials{Source: "machine's role", Temporary: true, Expires: now.Add(time.Hour)}, Identity: good(),
		Connection: &s3store.Connection{
			URL: "https://my-bucket.s3.eu-central-1.amazonaws.com", Addresses: []string{"192.0.2.1"}, Remote: "192.0.2.1:443",
			TLS: "TLS 1.3", Verified: true, Issuer: "Amazon", Expires: now.Add(90 * 24 * time.Hour), Status: 403, Dated: true,
		},
		List: good(), Missing: bad(objstore.ErrNotExist), Replica: &Replica{Err: objstore.ErrNotExist},
		Create: good(), Again: bad(objstore.ErrExist), Read: good(), Ranged: good(), Large: good(), Abort: good(), Small: good(),
		Listing: good(), Delete: good(), Deletes: good(), Vanished: good(),
	}
}

func TestJudge(t *testing.T) {
	denied := bad(objstore.ErrDenied)
	point := s3store.Target{Bucket: "arn:aws:s3:us-east-2:123456789012:accesspoint/ap", AccessPoint: true, Region: "us-east-2"}
	stopped := func(f *Facts) {
		f.List, f.Missing, f.Replica, f.Create, f.Again, f.Read, f.Ranged, f.Large, f.Abort, f.Small, f.Listing, f.Delete, f.Deletes, f.Vanished =
			nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil
	}
	readsOnly := func(f *Facts) {
		f.Create, f.Again, f.Read, f.Ranged, f.Large, f.Abort, f.Small, f.Listing, f.Delete, f.Deletes, f.Vanished =
			denied, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil
	}
	unreachable := func(stage string, err error, remote string) func(*Facts) {
		return func(f *Facts) {
			stopped(f)
			f.Target = &point
			f.Connection = &s3store.Connection{URL: "https://ap-123456789012.s3-accesspoint.us-east-2.amazonaws.com", Stage: stage, Err: err, Remote: remote}
		}
	}
	for _, tt := range []struct {
		name          string
		change        func(*Facts)
		check         string
		state         State
		cause, remedy string
		verdict       Verdict
		text, next    string // contain
	}{
		{"healthy", func(*Facts) {}, checkCondition, OK, "", "", Ready, "good for replication and restore", `vfs.DSN(PATH, "s3://my-bucket/app?region=eu-central-1")`},
		{"with a replica", func(f *Facts) { f.Replica = &Replica{Database: "0102030405", TXID: 7, Time: now} }, checkReplica, OK, "", "", Ready, "", "outwash ls 's3://my-bucket/app?region=eu-central-1'"},

		// The guide's last row.
		{"access point refuses connections", unreachable("connect", syscall.ECONNREFUSED, "192.0.2.1:443"), checkConnect, Failed, "refused", "through a VPC endpoint for S3", Unfit, "no connection to 192.0.2.1:443", "outwash doctor"},
		{"access point does not answer", unreachable("connect", os.ErrDeadlineExceeded, "192.0.2.1:443"), checkConnect, Failed, "timeout", "restricted to a VPC", Unfit, "", ""},
		{"access point has no address", unreachable("dns", &net.DNSError{Err: "no such host", IsNotFound: true}, ""), checkDNS, Failed, "dns", "access point's name, account and region", Unfit, "can't be resolved", ""},
		{"server takes the connection and no more", unreachable("answer", context.DeadlineExceeded, "192.0.2.1:443"), checkAnswer, Failed, "timeout", "VPC", Unfit, "", ""},

		{"no credentials", func(f *Facts) { stopped(f); f.Credentials, f.Identity = nil, denied }, checkCredentials, Failed, "denied", "", Unfit, "there are no credentials", ""},
		{"session token of the environment", func(f *Facts) {
			f.Credentials = &s3store.Credentials{Source: "environment (AWS_ACCESS_KEY_ID)", Temporary: true}
		}, checkCredentials, Warning, "temporary", "nothing renews it", Ready, "with a warning", ""},
		{"clock", func(f *Facts) { f.Connection.Ahead = 20 * time.Minute }, checkClock, Warning, "clock", "set the clock", Ready, "with a warning", ""},
		{"clock a minute ahead", func(f *Facts) { f.Connection.Ahead = -time.Minute }, checkClock, Warning, "clock", "point in time", Ready, "", ""},
		{"http far away", func(f *Facts) { f.Connection.URL, f.Connection.TLS = "http://s3.example.com", "" }, checkTLS, Warning, "plain-http", "https", Ready, "", ""},
		{"http at home", func(f *Facts) { f.Connection.URL, f.Connection.TLS = "http://127.0.0.1:9000", "" }, checkTLS, Skipped, "", "", Ready, "", ""},
		{"skip-verify", func(f *Facts) { f.Connection.Verified = false }, checkTLS, Warning, "unverified", "AWS_CA_BUNDLE", Ready, "", ""},
		{"certificate runs out", func(f *Facts) { f.Connection.Expires = now.Add(time.Hour) }, checkTLS, Warning, "certificate-expires", "renew it", Ready, "", ""},

		{"no such bucket", func(f *Facts) { stopped(f); f.List = bad(objstore.ErrNoBucket) }, checkBucket, Failed, "no-bucket", "create the bucket", Unfit, "not usable: the bucket is not there", ""},
		{"reads only", readsOnly, checkCreate, Failed, "denied", "", ReadOnly, "reads work, writes are denied: good for restore, not for replication", "outwash policy"},
		{"reads only, as asked", func(f *Facts) { readsOnly(f); f.Create, f.ReadOnly = nil, true }, checkMissing, OK, "", "", Ready, "good for restore", ""},
		{"neither reads nor writes", func(f *Facts) { readsOnly(f); f.List, f.Missing = denied, denied }, checkList, Failed, "denied", "", Unfit, "not usable: objects can't be listed", ""},
		{"a restore that can't list", func(f *Facts) { readsOnly(f); f.Create, f.ReadOnly, f.List = nil, true, denied }, checkList, Failed, "denied", "", Unfit, "", ""},
		{"missing objects are hidden", func(f *Facts) { f.Missing = denied }, checkMissing, Failed, "denied", "s3:ListBucket", Unfit, "", ""},

		{"conditions ignored", func(f *Facts) { f.Again = good() }, checkCondition, Warning, "conditions-ignored", "weaker fence", Ready, "with a warning", ""},
		{"conditions refused", func(f *Facts) { f.Create, f.Plain, f.Again = bad(objstore.ErrUnsupported), good(), nil }, checkCondition, Warning, "conditions-refused", "weaker fence", Ready, "with a warning", ""},
		{"conditions refused, writes denied", func(f *Facts) { readsOnly(f); f.Create, f.Plain = bad(objstore.ErrUnsupported), denied }, checkCreate, Failed, "denied", "", ReadOnly, "", ""},
		{"what is read differs", func(f *Facts) { f.Read = bad(errDiffers) }, checkRead, Failed, "differs", "proxy", Unfit, "", ""},
		{"ranges are ignored", func(f *Facts) { f.Ranged = bad(objstore.ErrUnsupported) }, checkRange, Failed, "not-implemented", "", Unfit, "parts of objects", ""},
		{"no multipart", func(f *Facts) { f.Large, f.Abort = denied, nil }, checkMultipart, Failed, "denied", "", Unfit, "", ""},
		{"small parts refused", func(f *Facts) { f.Large, f.Abort = bad(objstore.ErrUnsupported), nil }, checkMultipart, Warning, "not-implemented", "", Ready, "", ""},
		{"abort denied", func(f *Facts) { f.Abort = denied }, checkAbort, Skipped, "denied", "lifecycle rule", Ready, "good for replication and restore", ""},
		{"stale listing", func(f *Facts) { f.Listing = bad(errUnlisted) }, checkListing, Warning, "stale-listing", "", Ready, "", ""},
		{"deletes denied", func(f *Facts) {
			f.Delete, f.Deletes, f.Vanished = denied, denied, nil
			f.Left = []string{"s3://my-bucket/app/doctor/x-1"}
		},
			checkCleanup, Warning, "left", "by hand", Ready, "with 3 warnings", ""},

		{"a newer replica", func(f *Facts) { f.Replica = &Replica{Err: segment.ErrVersion} }, checkReplica, Failed, "replica", "another path", Unfit, "", ""},
		{"a replica that is slow", func(f *Facts) { f.Replica = &Replica{Err: context.DeadlineExceeded} }, checkReplica, Failed, "", "", Unfit, "it can't be told", ""},
		{"deleted and listed", func(f *Facts) { f.Vanished = bad(errUnlisted) }, checkVanished, Warning, "stale-listing", "", Ready, "", ""},
		{"the replica can't be read", func(f *Facts) { f.Replica = &Replica{Err: objstore.ErrDenied} }, checkReplica, Failed, "denied", "", Unfit, "can't be read", ""},
		{"the replica can't be read, nor written", func(f *Facts) {
			readsOnly(f)
			f.Missing, f.Replica = bad(s3store.ErrHidden), &Replica{Err: objstore.ErrDenied}
		}, checkReplica, Failed, "denied", "", Unfit, "can't be read", ""},
		{"neither replica nor anything else can be read", func(f *Facts) {
			readsOnly(f)
			f.Missing, f.Replica = denied, &Replica{Err: objstore.ErrDenied}
		}, checkReplica, Skipped, "", "", Unfit, "can't be read", ""},
		{"nothing is there that could be read", func(f *Facts) { readsOnly(f); f.Missing = bad(s3store.ErrHidden) }, checkMissing, Skipped, "", "", ReadOnly, "whether reads do", ""},
		{"nothing is there that could be read, for a restore", func(f *Facts) {
			readsOnly(f)
			f.ReadOnly, f.Create, f.Missing = true, nil, bad(s3store.ErrHidden)
		}, checkMissing, Skipped, "", "", Ready, "listings work; whether reads do", ""},
		{"what is missing is hidden, and what is there can be read", func(f *Facts) { f.Missing = bad(s3store.ErrHidden) }, checkMissing, OK, "", "", Ready, "good for replication and restore", ""},
		{"interrupted", func(f *Facts) { f.Interrupted = true }, checkList, OK, "", "", Unfit, "interrupted", ""},

		// A directory.
		{"disk full", func(f *Facts) { f.Target = nil; readsOnly(f); f.Create = bad(syscall.ENOSPC) }, checkCreate, Failed, "quota", "make room", Unfit, "", ""},
		{"read-only disk", func(f *Facts) {
			f.Target = nil
			readsOnly(f)
			f.Create = bad(fmt.Errorf("%w: %w", objstore.ErrDenied, syscall.EROFS))
		}, checkCreate, Failed, "read-only-disk", "mounted read-only", ReadOnly, "", ""},
		{"not one's own", func(f *Facts) {
			f.Target = nil
			readsOnly(f)
			f.Create = bad(fmt.Errorf("%w: %w", objstore.ErrDenied, syscall.EACCES))
		}, checkCreate, Failed, "denied", "owner or mode", ReadOnly, "", ""},
		{"no links", func(f *Facts) {
			f.Target = nil
			readsOnly(f)
			f.Create, f.Plain = bad(objstore.ErrUnsupported), bad(objstore.ErrUnsupported)
		}, checkCreate, Failed, "not-implemented", "hard links", Unfit, "", ""},
	} {
		f := healthy()
		tt.change(f)
		r := Judge(f, now)
		got := find(r, tt.check)
		if got.State != tt.state || got.Cause != tt.cause || !strings.Contains(got.Remedy, tt.remedy) {
			t.Errorf("%s: %s is %+v\nwant %s, %q, %q", tt.name, tt.check, got, tt.state, tt.cause, tt.remedy)
		}
		if r.Verdict != tt.verdict || !strings.Contains(r.Text, tt.text) || !strings.Contains(r.Next, tt.next) || r.Next == "" {
			t.Errorf("%s: verdict %s, %q, next %q\nwant %s, %q, %q", tt.name, r.Verdict, r.Text, r.Next, tt.verdict, tt.text, tt.next)
		}
		for _, c := range r.Checks {
			if c.State == Failed && c.Remedy == "" && c.Said == "" {
				t.Errorf("%s: %+v says neither why nor what to do", tt.name, c)
			}
		}
	}
}

// After which first reads nothing else is tried.
func TestStops(t *testing.T) {
	for err, want := range map[error]bool{
		nil: false, objstore.ErrDenied: false, objstore.ErrNotExist: false,
		objstore.ErrNoBucket: true, objstore.ErrConfig: true, objstore.ErrUnsupported: true, context.Canceled: true, errors.New("?"): true,
	} {
		if got := stops(&Try{Err: err}); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
}
