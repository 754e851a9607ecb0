package main

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/policy/policytest"
	"github.com/outwash/outwash/internal/s3proxy"
	"github.com/outwash/outwash/internal/versitygw"
)

// tidying are operations that do no more than tidy up: denied, they are left, and
// nobody hears of it.
var tidying = []string{"AbortMultipartUpload", "ListMultipartUploads"}

// answered is what doctor asks only to be answered, by which it knows the server,
// the bucket and the clock: a refusal does as well. Policies for a path deny it,
// which the guide's for the bucket don't.
const answered = "HeadBucket"

const bucketARN = "arn:aws:s3:::bucket"

// TestOperations has the product do everything that it can do, against a real
// server, and holds every S3 operation against the policies: the guide's for
// replication and for restores as they stand (internal/policy/testdata/guide), and
// those of outwash policy, restricted to a path. First as a record; then with each
// policy in force, as AWS enforces it, when all must work the same.
func TestOperations(t *testing.T) {
	guide := func(name string) *policytest.Policy {
		text, err := os.ReadFile("../../internal/policy/testdata/guide/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		return parsePolicy(t, strings.ReplaceAll(string(text), "my-bucket", "bucket"))
	}
	own := func(flags ...string) *policytest.Policy {
		code, out, text := cli(append(append([]string{"policy"}, flags...), "s3://bucket/app")...)
		if code != codeOK {
			t.Fatalf("policy %v: %s", flags, text)
		}
		return parsePolicy(t, out)
	}

	t.Run("record", func(t *testing.T) {
		w := newS3World(t)
		w.everything()
		seen := map[string]bool{}
		sweep, least := own("-sweep"), map[string]*policytest.Policy{"the guide's policy": guide("replication"), "outwash policy": own()}
		for _, c := range w.proxy.Calls() {
			seen[c.Operation] = true
			all, err := policytest.Needs(c, bucketARN)
			if err != nil {
				t.Fatal(err)
			}
			if n, denied := sweep.Denies(all); denied && c.Operation != answered {
				t.Errorf("outwash policy -sweep doesn't allow %s: %s", c.Operation, n)
			}
			for name, p := range least {
				if n, denied := p.Denies(all); denied && !slices.Contains(tidying, c.Operation) && c.Operation != answered {
					t.Errorf("%s doesn't allow %s: %s", name, c.Operation, n)
				}
			}
		}
		// A record of nothing would be held against anything.
		for _, op := range append([]string{"GetObject", "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "DeleteObject", "DeleteObjects", "ListObjectsV2", answered}, tidying...) {
			if !seen[op] {
				t.Errorf("the record has no %s", op)
			}
		}
		t.Logf("%d requests: %v", len(w.proxy.Calls()), slices.Sorted(maps.Keys(seen)))
	})

	for name, c := range map[string]struct {
		policy *policytest.Policy
		hides  bool
		denied []string
	}{
		"guide":            {guide("replication"), false, tidying},
		"own, hiding":      {own(), true, []string{tidying[0], answered, tidying[1]}},
		"own, with -sweep": {own("-sweep"), false, []string{answered}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newS3World(t)
			w.enforce(c.policy, c.hides)
			w.everything()
			if denied := w.denials(); !slices.Equal(denied, c.denied) {
				t.Errorf("denied: %v, expected %v", denied, c.denied)
			}
			for _, word := range append([]string{"denied", "permission"}, tidying...) {
				if log := w.log.String(); strings.Contains(log, word) {
					t.Errorf("the log complains of %q:\n%s", word, log)
				}
			}
		})
	}

	// Read-only credentials: what only reads works, and what writes says what is
	// missing.
	w := newS3World(t)
	w.everything()
	for name, c := range map[string]struct {
		policy *policytest.Policy
		hides  bool
		denied []string
	}{
		"guide, read-only":       {guide("restoration"), false, nil},
		"own, read-only":         {own("-read-only"), false, []string{answered}},
		"own, read-only, hiding": {own("-read-only"), true, []string{answered}},
	} {
		t.Run(name, func(t *testing.T) {
			w.t = t
			w.enforce(c.policy, c.hides)
			w.reading()
			if denied := w.denials(); !slices.Equal(denied, c.denied) {
				t.Errorf("denied: %v, expected %v", denied, c.denied)
			}
			w.readOnlyRefused()
			if denied := w.denials(); !slices.Equal(denied, []string{"PutObject"}) {
				t.Errorf("denied: %v", denied)
			}
		})
	}
}

func parsePolicy(t *testing.T, text string) *policytest.Policy {
	t.Helper()
	p, err := policytest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// cli runs the command line in this process.
func cli(args ...string) (code int, stdout, stderr string) {
	var out, errOut strings.Builder
	code = run(context.Background(), args, strings.NewReader(""), &out, &errOut)
	return code, out.String(), errOut.String()
}

// s3World is a server with one bucket, before which a proxy enforces a policy.
type s3World struct {
	t     *testing.T
	proxy *s3proxy.Proxy
	root  objstore.Store // the bucket, past the proxy
	dir   string
	log   *lockedText
	// fails answers calls in the server's place, after the policy.
	fails s3proxy.Rule
	has   map[string]content // what replicas have, by path

	policy *policytest.Policy
	hides  bool
	denied *lockedText
}

type content struct {
	txid    uint64
	content string
}

func newS3World(t *testing.T) *s3World {
	t.Helper()
	gw := versitygw.Start(t)
	w := &s3World{t: t, dir: t.TempDir(), log: captureLog(t), denied: new(lockedText), has: map[string]content{}}
	w.proxy = s3proxy.New(t, gw.Endpoint, s3proxy.Options{})
	var err error
	if w.root, err = objstore.Open(t.Context(), "s3://bucket?endpoint="+gw.Endpoint, nil); err != nil {
		t.Fatal(err)
	}
	setupDriver()
	w.set(nil)
	return w
}

// url is a replica's URL. Parts are small, so that small databases take several.
func (w *s3World) url(path string) string {
	return "s3://bucket/app/" + path + "?region=us-east-1&force-path-style=true&part-size=5MiB&endpoint=" + url.QueryEscape(w.proxy.URL)
}

// enforce puts a policy in force, for all that follows. With hides the server
// doesn't apply the condition of s3:ListBucket to the question whether it may say
// that an object is missing.
func (w *s3World) enforce(p *policytest.Policy, hides bool) {
	w.policy, w.hides = p, hides
	w.set(w.fails)
}

// set is for between steps: then nothing is under way.
func (w *s3World) set(fails s3proxy.Rule) {
	w.fails = fails
	p, hides := w.policy, w.hides
	w.proxy.Refuse(func(c s3proxy.Call) *s3proxy.Answer {
		if p != nil {
			if a := w.judge(p, hides, c); a != nil {
				return a
			}
		}
		if fails != nil {
			return fails(c)
		}
		return nil
	})
}

func (w *s3World) judge(p *policytest.Policy, hides bool, c s3proxy.Call) *s3proxy.Answer {
	all, err := policytest.Needs(c, bucketARN)
	if err != nil {
		w.t.Error(err)
		return s3proxy.Denied(c)
	}
	if _, denied := p.Denies(all); denied {
		w.denied.add(c.Operation + "\n")
		return s3proxy.Denied(c)
	}
	if c.Action() != "s3:GetObject" {
		return nil
	}
	list := policytest.Need{Action: "s3:ListBucket", Resource: bucketARN}
	if !hides {
		list.Context = map[string]string{"s3:prefix": c.Key}
	}
	if p.Allows(list) {
		return nil
	}
	body, _, err := w.root.Get(context.WithoutCancel(w.t.Context()), c.Key, objstore.Range{Length: 1})
	switch {
	case errors.Is(err, objstore.ErrNotExist):
		return &s3proxy.Answer{Status: 403, Code: "AccessDenied", Message: "Access Denied"}
	case err != nil:
		w.t.Error(err)
		return nil
	}
	body.Close()
	return nil
}

// denials are the operations denied since the last call.
func (w *s3World) denials() []string {
	ops := strings.Fields(w.denied.take())
	slices.Sort(ops)
	return slices.Compact(ops)
}

func (w *s3World) file(name string) string { return filepath.Join(w.dir, name) }
