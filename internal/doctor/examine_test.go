package doctor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/s3proxy"
	"github.com/outwash/outwash/internal/segment"
	"github.com/outwash/outwash/internal/versitygw"
	"github.com/outwash/outwash/s3store"
)

// setup starts a server behind a proxy.
func setup(t *testing.T, opts s3proxy.Options) (*versitygw.Server, *s3proxy.Proxy) {
	t.Helper()
	server := versitygw.Start(t)
	return server, s3proxy.New(t, server.Endpoint, opts)
}

func open(t *testing.T, rawURL string) objstore.Store {
	t.Helper()
	s, err := s3store.Open(t.Context(), rawURL, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func at(p *s3proxy.Proxy, bucket string) string {
	return "s3://" + bucket + "/a/path?region=us-east-1&force-path-style=true&endpoint=" + url.QueryEscape(p.URL)
}

func examine(t *testing.T, s objstore.Store, opts Options) *Report {
	t.Helper()
	return Judge(Examine(t.Context(), s, opts), time.Now())
}

// find returns the finding of a check; one that was not made has no state.
func find(r *Report, check string) Finding {
	i := slices.IndexFunc(r.Checks, func(f Finding) bool { return f.Check == check })
	if i < 0 {
		return Finding{}
	}
	return r.Checks[i]
}

// leftovers are the objects of examinations.
func leftovers(t *testing.T, s objstore.Store) (keys []string) {
	t.Helper()
	for info, err := range s.List(t.Context(), Prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

func wantFinding(t *testing.T, r *Report, check string, state State, cause, remedy string) {
	t.Helper()
	f := find(r, check)
	if f.State != state || f.Cause != cause || !strings.Contains(f.Remedy, remedy) {
		t.Errorf("%s: %+v\nwant %s, %q, %q", check, f, state, cause, remedy)
	}
}

// On a real server everything works, in few requests, and nothing is left.
func TestHealthy(t *testing.T) {
	server, proxy := setup(t, s3proxy.Options{})
	store := open(t, at(proxy, server.Bucket))
	r := examine(t, store, Options{})
	for _, f := range r.Checks {
		if f.State == Failed || f.State == Warning {
			t.Errorf("%+v", f)
		}
	}
	if r.Verdict != Ready || r.Warnings != 0 || len(r.Left) != 0 || !strings.Contains(r.Next, "vfs.DSN") {
		t.Errorf("%+v", r)
	}
	for _, check := range []string{checkCredentials, checkConnect, checkClock, checkBucket, checkList, checkMissing, checkReplica, checkCreate, checkCondition,
		checkRead, checkRange, checkMultipart, checkAbort, checkWrite, checkListing, checkDelete, checkDeletes} {
		if find(r, check).State != OK {
			t.Errorf("%s: %+v", check, find(r, check))
		}
	}
	if n := len(proxy.Calls()); n > 25 {
		t.Errorf("%d requests", n)
	}
	for _, c := range proxy.Calls() {
		if c.Key != "" && !strings.HasPrefix(c.Key, "a/path/"+Prefix) && c.Operation != "GetObject" {
			t.Errorf("%s of %s: doctor writes nothing but below %s", c.Operation, c.Key, Prefix)
		}
	}
	if left := leftovers(t, store); left != nil {
		t.Errorf("left: %v", left)
	}
	secrets := fmt.Sprintf("%+v", r)
	if strings.Contains(secrets, server.SecretKey) || strings.Contains(secrets, server.AccessKey) {
		t.Errorf("a secret: %s", secrets)
	}
}

// Every row of what a policy may lack.
func TestDenied(t *testing.T) {
	server, proxy := setup(t, s3proxy.Options{})
	store := open(t, at(proxy, server.Bucket))
	says := func(status int, code, message string, operations ...string) s3proxy.Rule {
		return func(c s3proxy.Call) *s3proxy.Answer {
			if !slices.Contains(operations, c.Operation) {
				return nil
			}
			return &s3proxy.Answer{Status: status, Code: code, Message: message}
		}
	}
	writes := []string{"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "DeleteObject", "DeleteObjects"}
	for name, tt := range map[string]struct {
		rule          s3proxy.Rule
		check         string
		state         State
		cause, remedy string
		verdict       Verdict
	}{
		// The guide's rows.
		"no identity-based policy": {s3proxy.Deny(writes...), checkCreate, Failed, "denied-identity", "no policy of the user or role allows s3:PutObject", ReadOnly},
		"explicit deny in a resource-based policy": {says(403, "AccessDenied", "User: u is not authorized to perform: s3:PutObject on resource: r with an explicit deny in a resource-based policy", writes...),
			checkCreate, Failed, "denied-resource", "the bucket's policy denies s3:PutObject", ReadOnly},

		"list":      {s3proxy.Deny("ListObjectsV2"), checkList, Failed, "denied-identity", "s3:ListBucket", Unfit},
		"read":      {s3proxy.Deny("GetObject", "HeadObject"), checkRead, Failed, "denied-identity", "s3:GetObject", Unfit},
		"delete":    {s3proxy.Deny("DeleteObject", "DeleteObjects"), checkDelete, Warning, "denied-identity", "s3:DeleteObject", Ready},
		"abort":     {s3proxy.Deny("AbortMultipartUpload"), checkAbort, Skipped, "denied-identity", "lifecycle rule", Ready},
		"multipart": {s3proxy.Deny("CreateMultipartUpload"), checkMultipart, Failed, "denied-identity", "s3:PutObject", Unfit},
		"kms":       {says(403, "AccessDenied", "User: u is not authorized to perform: kms:GenerateDataKey on resource: k because no identity-based policy allows the kms:GenerateDataKey action", writes...), checkCreate, Failed, "kms", "kms:Decrypt", ReadOnly},

		"no such bucket":  {says(404, "NoSuchBucket", "no", "ListObjectsV2"), checkBucket, Failed, "no-bucket", "create the bucket", Unfit},
		"unknown key":     {says(403, "InvalidAccessKeyId", "no", "ListObjectsV2"), checkBucket, Failed, "unknown-key", "AWS_ACCESS_KEY_ID", Unfit},
		"wrong secret":    {says(403, "SignatureDoesNotMatch", "no", "ListObjectsV2"), checkBucket, Failed, "wrong-secret", "secret key", Unfit},
		"expired":         {says(400, "ExpiredToken", "no", "ListObjectsV2"), checkBucket, Failed, "expired", "get new credentials", Unfit},
		"quota":           {says(403, "QuotaExceeded", "no", "PutObject"), checkCreate, Failed, "quota", "make room", Unfit},
		"no multi-delete": {says(501, "NotImplemented", "no", "DeleteObjects"), checkDeletes, Warning, "not-implemented", "replication works without, but history that is too old stays", Ready},
	} {
		t.Run(name, func(t *testing.T) {
			proxy.Refuse(tt.rule)
			r := examine(t, store, Options{})
			proxy.Refuse(nil)
			wantFinding(t, r, tt.check, tt.state, tt.cause, tt.remedy)
			if r.Verdict != tt.verdict {
				t.Errorf("verdict %s: %s", r.Verdict, r.Text)
			}
			left := leftovers(t, store)
			if len(left) != len(r.Left) {
				t.Errorf("left are %v, reported %v", left, r.Left)
			}
			for _, key := range left {
				if !slices.ContainsFunc(r.Left, func(name string) bool { return strings.HasPrefix(name, "s3://"+server.Bucket+"/a/path/"+key) }) {
					t.Errorf("%s is left, reported are %v", key, r.Left)
				}
				if err := store.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
			if wantLeft := name == "delete"; wantLeft != (len(left) > 0) {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// The permissions of a restore are told from others, and are enough for -read-only,
// which writes nothing.
func TestReadOnlyCredentials(t *testing.T) {
	server, proxy := setup(t, s3proxy.Options{})
	store := open(t, at(proxy, server.Bucket))
	proxy.Refuse(s3proxy.Allow("s3:GetBucketLocation", "s3:ListBucket", "s3:GetObject"))
	r := examine(t, store, Options{})
	if r.Verdict != ReadOnly || r.Text != "reads work, writes are denied: good for restore, not for replication" || !strings.Contains(r.Next, "outwash policy") || len(r.Left) > 0 {
		t.Errorf("%+v", r)
	}
	proxy.Forget()
	r = examine(t, store, Options{ReadOnly: true})
	if r.Verdict != Ready || !strings.Contains(r.Text, "good for restore") {
		t.Errorf("%+v", r)
	}
	for _, c := range proxy.Calls() {
		if !slices.Contains([]string{"HeadBucket", "ListObjectsV2", "GetObject"}, c.Operation) {
			t.Errorf("-read-only makes a %s", c.Operation)
		}
	}
}

// Servers without conditional writes.
func TestWeakServers(t *testing.T) {
	server, proxy := setup(t, s3proxy.Options{})
	store := open(t, at(proxy, server.Bucket))
	proxy.Refuse(func(c s3proxy.Call) *s3proxy.Answer {
		if c.Header.Get("If-None-Match") == "" {
			return nil
		}
		return &s3proxy.Answer{Status: http.StatusNotImplemented, Code: "NotImplemented", Message: "no"}
	})
	r := examine(t, store, Options{})
	wantFinding(t, r, checkCondition, Warning, "conditions-refused", "weaker fence")
	if r.Verdict != Ready || r.Warnings != 1 || leftovers(t, store) != nil {
		t.Errorf("%+v", r)
	}
	r = Judge(Examine(t.Context(), ignorant{objstore.NewMem()}, Options{}), time.Now())
	wantFinding(t, r, checkCondition, Warning, "conditions-ignored", "weaker fence")
	if r.Verdict != Ready {
		t.Errorf("%+v", r)
	}
}

// ignorant ignores conditions.
type ignorant struct{ objstore.Store }

func (s ignorant) Create(ctx context.Context, key string, data []byte) error {
	return s.Put(ctx, key, data)
}

// The way to the server: certificates, clocks, names, proxies.
func TestConnections(t *testing.T) {
	server, proxy := setup(t, s3proxy.Options{})
	ca := s3proxy.NewCA(t)
	secure := func(c *s3proxy.Certificate) string {
		return s3proxy.New(t, server.Endpoint, s3proxy.Options{Certificate: c}).URL
	}
	good, expired, other := secure(ca.Issue("127.0.0.1")), secure(ca.IssueExpired("127.0.0.1")), secure(ca.Issue("s3.example.com"))
	skewed := s3proxy.New(t, server.Endpoint, s3proxy.Options{Clock: 20 * time.Minute, Secrets: map[string]string{server.AccessKey: server.SecretKey}})
	gone := s3proxy.New(t, server.Endpoint, s3proxy.Options{}).URL
	_ = proxy
	for name, tt := range map[string]struct {
		endpoint, ca  string
		check         string
		state         State
		cause, remedy string
		text          string
		verdict       Verdict
	}{
		"good":                    {good, ca.File, checkTLS, Warning, "certificate-expires", "renew it", "Outwash's test CA", Ready},
		"unknown CA":              {good, "", checkTLS, Failed, "certificate-authority", "AWS_CA_BUNDLE", "Outwash's test CA", Unfit},
		"expired":                 {expired, ca.File, checkTLS, Failed, "certificate-expired", "renew it", "until", Unfit},
		"wrong host":              {other, ca.File, checkTLS, Failed, "certificate-host", "it is for s3.example.com, not for 127.0.0.1", "s3.example.com", Unfit},
		"https at an http server": {strings.Replace(gone, "http:", "https:", 1), "", checkTLS, Failed, "http", "endpoint=http://", "no secure connection", Unfit},
		"http at an https server": {strings.Replace(good, "https:", "http:", 1), "", checkBucket, Failed, "https", "endpoint=https://", "", Unfit},
		"skewed clock":            {skewed.URL, "", checkClock, Warning, "clock", "set the clock", "behind the server's", Ready},
		"nothing listens":         {"http://127.0.0.1:1", "", checkConnect, Failed, "refused", "is the server running", "127.0.0.1:1", Unfit},
		"no such name":            {"http://nowhere.invalid", "", checkDNS, Failed, "dns", "endpoint", "nowhere.invalid", Unfit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AWS_CA_BUNDLE", tt.ca)
			r := examine(t, open(t, "s3://"+server.Bucket+"/p?endpoint="+url.QueryEscape(tt.endpoint)), Options{})
			wantFinding(t, r, tt.check, tt.state, tt.cause, tt.remedy)
			if f := find(r, tt.check); r.Verdict != tt.verdict || !strings.Contains(f.Text, tt.text) {
				t.Errorf("%s: %+v, %q", r.Verdict, r, f.Text)
			}
		})
	}
}

// What is at the path is told at a glance: a replica, how new it is, what is foreign.
func TestGlance(t *testing.T) {
	store := objstore.NewMem()
	put := func(key string, data []byte) {
		t.Helper()
		if err := store.Put(t.Context(), key, data); err != nil {
			t.Fatal(err)
		}
	}
	put("generations/0001/x", []byte("litestream"))
	put("zzz", nil)
	put(Prefix+"0102-1", nil) // a run was killed
	r := examine(t, store, Options{})
	wantFinding(t, r, checkReplica, OK, "", "")
	if f := find(r, checkForeign); f.State != OK || !strings.Contains(f.Text, `"generations/0001/x", "zzz"`) {
		t.Errorf("%+v", f)
	}
	if f := find(r, checkLeftovers); f.State != OK || !strings.Contains(f.Text, `"doctor/0102-1"`) {
		t.Errorf("%+v", f)
	}
	root, err := segment.MarshalReplicaInfo(segment.ReplicaInfo{Database: segment.ID{1}, Created: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	put(segment.InfoKey, root)
	r = examine(t, store, Options{})
	if f := find(r, checkReplica); f.State != OK || !strings.Contains(f.Text, "of database 01000000, without content yet") || !strings.Contains(r.Next, "outwash ls") {
		t.Errorf("%+v, %s", f, r.Next)
	}
	put(segment.InfoKey, []byte("something else"))
	r = examine(t, store, Options{})
	if f := find(r, checkReplica); f.State != Failed || r.Verdict != Unfit || !errors.Is(r.Err, segment.ErrCorrupt) {
		t.Errorf("%+v, %v", f, r.Err)
	}
}

// The end of a log of any length is found in few listings.
func TestLastPage(t *testing.T) {
	for _, n := range []int{0, 1, 999, 1000, 1001, 2500, 12_345} {
		for _, step := range []uint64{1, 997} {
			mem := objstore.NewMem()
			for i := range n {
				if err := mem.Put(t.Context(), segment.LogKey(1+uint64(i)*step), nil); err != nil {
					t.Fatal(err)
				}
			}
			counted := &counting{Store: mem}
			x := &examination{store: counted}
			got, err := x.lastPage(t.Context())
			last := ""
			if len(got) > 0 {
				last = got[len(got)-1].Key
			}
			want := ""
			if n > 0 {
				want = segment.LogKey(1 + uint64(n-1)*step)
			}
			if err != nil || last != want || counted.lists > 20 {
				t.Errorf("%d objects, %d apart: %s after %d listings, %v; want %s", n, step, last, counted.lists, err, want)
			}
		}
	}
}

// A run that is interrupted ends at once and leaves nothing.
func TestInterrupted(t *testing.T) {
	server, proxy := setup(t, s3proxy.Options{})
	store := open(t, at(proxy, server.Bucket))
	for _, operation := range []string{"ListObjectsV2", "PutObject", "UploadPart", "CompleteMultipartUpload", "DeleteObject"} {
		ctx, cancel := context.WithCancel(t.Context())
		proxy.Refuse(func(c s3proxy.Call) *s3proxy.Answer {
			if c.Operation == operation {
				cancel()
			}
			return nil
		})
		f := Examine(ctx, store, Options{})
		proxy.Refuse(nil)
		if left := leftovers(t, store); !f.Interrupted || len(left) != 0 || len(f.Left) != 0 {
			t.Errorf("at %s: interrupted %v, left %v, reported %v", operation, f.Interrupted, left, f.Left)
		}
		if r := Judge(f, time.Now()); r.Verdict != Unfit || r.Text != "interrupted" {
			t.Errorf("%+v", r)
		}
		cancel()
	}
}

// A directory is left as it was.
func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	store, err := objstore.NewFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	if r := examine(t, store, Options{}); r.Verdict != Ready || r.Warnings != 0 {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(filepath.Dir(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directories are left: %v", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if store, err = objstore.NewFile(dir); err != nil { // it knows directories that are gone
		t.Fatal(err)
	}
	if r := examine(t, store, Options{}); r.Verdict != Ready {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(filepath.Join(dir, "doctor")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory is left: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inFile, err := objstore.NewFile(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	r := examine(t, inFile, Options{})
	if r.Verdict != Unfit || !slices.ContainsFunc(r.Checks, func(f Finding) bool { return f.State == Failed && f.Cause == "no-directory" }) {
		t.Errorf("a path through a file: %+v", r)
	}
}

type counting struct {
	objstore.Store
	lists int
}

func (c *counting) List(ctx context.Context, prefix, after string) iter.Seq2[objstore.Info, error] {
	c.lists++
	return c.Store.List(ctx, prefix, after)
}
