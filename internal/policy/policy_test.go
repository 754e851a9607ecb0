package policy

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/policy/policytest"
	"github.com/outwash/outwash/internal/s3proxy"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	bucket      = "arn:aws:s3:::my-bucket"
	accessPoint = "arn:aws:s3:us-east-2:123456789012:accesspoint/my-access-point"
	kmsKey      = "arn:aws:kms:us-east-2:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
)

// cases are the policies printed, each with its golden file in testdata, the guide's
// (testdata/guide) that it must fit into, and the buckets and access points on which
// it must suffice.
var cases = []struct {
	name  string
	r     Request
	guide string
	on    []string
}{
	{"replicate", Request{Bucket: "my-bucket", Prefix: "app"}, "replication", []string{bucket}},
	{"replicate-bucket", Request{Bucket: "my-bucket"}, "replication", []string{bucket}},
	{"replicate-litestream", Request{Bucket: "my-bucket", Prefix: "litestream"}, "path", []string{bucket}},
	{"restore", Request{Bucket: "my-bucket", Prefix: "app", ReadOnly: true}, "restoration", []string{bucket}},
	{"restore-bucket", Request{Bucket: "my-bucket", ReadOnly: true, Sweep: true}, "restoration", []string{bucket}},
	{"sweep", Request{Bucket: "my-bucket", Prefix: "app/prod", Sweep: true}, "", []string{bucket}},
	{"accesspoint-explicit", Request{Bucket: "my-bucket", AccessPoint: accessPoint, Prefix: "backups/prod"}, "accesspoint-explicit", []string{bucket, accessPoint}},
	{"accesspoint-explicit-restore", Request{Bucket: "my-bucket", AccessPoint: accessPoint, ReadOnly: true}, "accesspoint-explicit", []string{bucket, accessPoint}},
	{"accesspoint-delegated", Request{AccessPoint: accessPoint, Prefix: "backups", Delegated: true}, "accesspoint-delegated", []string{accessPoint}},
	{"accesspoint-delegated-restore", Request{AccessPoint: accessPoint, Prefix: "backups", Delegated: true, ReadOnly: true}, "accesspoint-delegated", []string{accessPoint}},
	{"accesspoint-delegated-sweep", Request{AccessPoint: accessPoint, Delegated: true, Sweep: true}, "", []string{accessPoint}},
	{"accesspoint-gov", Request{Bucket: "my-bucket", AccessPoint: "arn:aws-us-gov:s3:us-gov-west-1:123456789012:accesspoint/ap", Prefix: "app"}, "",
		[]string{"arn:aws-us-gov:s3:::my-bucket", "arn:aws-us-gov:s3:us-gov-west-1:123456789012:accesspoint/ap"}},
	{"china", Request{Bucket: "my-bucket", Prefix: "app", Region: "cn-north-1"}, "", []string{"arn:aws-cn:s3:::my-bucket"}},
	{"gov", Request{Bucket: "my-bucket", Prefix: "app", Region: "us-gov-east-1", ReadOnly: true}, "", []string{"arn:aws-us-gov:s3:::my-bucket"}},
	{"literal", Request{Bucket: "my-bucket", Prefix: "what? *all* ${aws:username} <ü€😀>"}, "replication", []string{bucket}},
	{"kms-arn", Request{Bucket: "my-bucket", Prefix: "app", KMSKey: kmsKey}, "", []string{bucket}},
	{"kms-arn-restore", Request{Bucket: "my-bucket", Prefix: "app", KMSKey: kmsKey, ReadOnly: true}, "", []string{bucket}},
	{"kms-id", Request{Bucket: "my-bucket", Prefix: "app", Region: "us-east-2", Account: "123456789012", KMSKey: "1234abcd-12ab-34cd-56ef-1234567890ab"}, "", []string{bucket}},
	{"kms-alias", Request{Bucket: "my-bucket", AccessPoint: accessPoint, Region: "us-east-2", KMSKey: "alias/outwash"}, "", []string{bucket, accessPoint}},
	{"kms-alias-arn-china", Request{Bucket: "my-bucket", Region: "cn-north-1", KMSKey: "arn:aws-cn:kms:cn-north-1:123456789012:alias/outwash"}, "", []string{"arn:aws-cn:s3:::my-bucket"}},
}

// TestIdentity holds every policy against its golden file and asks the evaluator
// whether it suffices, and whether it allows anything else.
func TestIdentity(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d, err := Identity(c.r)
			if err != nil {
				t.Fatal(err)
			}
			p := golden(t, c.name, d)
			guide := p
			if c.guide != "" {
				guide = fromGuide(t, c.guide)
			}
			for _, on := range c.on {
				suffices(t, p, c.r, on)
				suffices(t, guide, c.r, on)
				nothingElse(t, p, c.r, on)
			}
		})
	}
}

func golden(t *testing.T, name string, d Document) *policytest.Policy {
	t.Helper()
	text := d.String()
	if !json.Valid([]byte(text)) || strings.Trim(text, asciiPrintable+"\n") != "" {
		t.Errorf("not plain JSON: %s", text)
	}
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("got\n%s\nexpected\n%s", text, want)
	}
	return parse(t, text)
}

const asciiPrintable = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"

func fromGuide(t *testing.T, name string) *policytest.Policy {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "guide", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

func parse(t *testing.T, text string) *policytest.Policy {
	t.Helper()
	p, err := policytest.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// keys are what a replica has, below its path.
var keys = []string{"outwash", "log/0000000000000001", "snapshot/0000000000000006-2cc41f3e7a1b0955", "data/00112233445566778899aabbccddeeff"}

var listings = []string{"", "log/", "snapshot/", "data/"}

func needs(t *testing.T, op, on, prefix string, keys ...string) []policytest.Need {
	t.Helper()
	calls := []s3proxy.Call{{Operation: op, Prefix: prefix}}
	if len(keys) > 0 {
		calls = nil
	}
	for _, key := range keys {
		calls = append(calls, s3proxy.Call{Operation: op, Key: key})
	}
	var all []policytest.Need
	for _, c := range calls {
		n, err := policytest.Needs(c, on)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n...)
	}
	return all
}

func below(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "/" + key
}

// suffices: p allows what the request is for.
func suffices(t *testing.T, p *policytest.Policy, r Request, on string) {
	t.Helper()
	var all []policytest.Need
	for _, l := range listings {
		all = append(all, needs(t, "ListObjectsV2", on, below(r.Prefix, l))...)
	}
	for _, key := range keys {
		key = below(r.Prefix, key)
		// To say that an object is missing S3 asks whether a listing would show it.
		all = append(all, policytest.Need{Action: "s3:ListBucket", Resource: on, Context: map[string]string{"s3:prefix": key}})
		ops := []string{"GetObject", "HeadObject"}
		if !r.ReadOnly {
			ops = append(ops, "PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "DeleteObject")
			if r.Sweep {
				ops = append(ops, "AbortMultipartUpload")
			}
		}
		for _, op := range ops {
			all = append(all, needs(t, op, on, "", key)...)
		}
	}
	if r.Sweep && !r.ReadOnly {
		all = append(all, needs(t, "ListMultipartUploads", on, below(r.Prefix, ""))...)
	}
	if r.KMSKey != "" {
		context := map[string]string{"kms:ResourceAliases": "alias/outwash"}
		key := kmsKey
		if strings.HasPrefix(r.Region, "cn-") {
			key = strings.NewReplacer("arn:aws:", "arn:aws-cn:", "us-east-2", "cn-north-1").Replace(key)
		}
		all = append(all, policytest.Need{Action: "kms:Decrypt", Resource: key, Context: context})
		if !r.ReadOnly {
			all = append(all, policytest.Need{Action: "kms:GenerateDataKey", Resource: key, Context: context})
		}
	}
	for _, n := range all {
		if !p.Allows(n) {
			t.Errorf("not allowed, and needed: %s", n)
		}
	}
}

// nothingElse: p allows nothing outside the path, and no action that isn't needed.
func nothingElse(t *testing.T, p *policytest.Policy, r Request, on string) {
	t.Helper()
	var all []policytest.Need
	objects := on + policytest.ObjectSeparator(on)
	mine := objects + below(r.Prefix, keys[1])
	for _, action := range []string{
		"s3:PutObjectAcl", "s3:GetObjectVersion", "s3:DeleteObjectVersion", "s3:PutObjectRetention", "s3:BypassGovernanceRetention",
		"s3:ListMultipartUploadParts", "s3:RestoreObject",
	} {
		all = append(all, policytest.Need{Action: action, Resource: mine})
	}
	for _, action := range []string{"s3:GetBucketLocation", "s3:DeleteBucket", "s3:PutBucketPolicy", "s3:PutLifecycleConfiguration", "s3:ListBucketVersions"} {
		all = append(all, policytest.Need{Action: action, Resource: on})
	}
	if r.ReadOnly {
		for _, op := range []string{"PutObject", "DeleteObject", "AbortMultipartUpload"} {
			all = append(all, needs(t, op, on, "", below(r.Prefix, keys[1]))...)
		}
		all = append(all, policytest.Need{Action: "kms:GenerateDataKey", Resource: kmsKey})
	}
	if !r.Sweep || r.ReadOnly {
		all = append(all, needs(t, "ListMultipartUploads", on, below(r.Prefix, ""))...)
		all = append(all, needs(t, "AbortMultipartUpload", on, "", below(r.Prefix, keys[1]))...)
	}
	elsewhere := []string{strings.Replace(on, ":::my-bucket", ":::my-bucket2", 1), strings.Replace(on, "accesspoint/", "accesspoint/x", 1)}
	for _, other := range elsewhere {
		if other == on {
			continue
		}
		for _, op := range []string{"GetObject", "PutObject", "DeleteObject"} {
			all = append(all, needs(t, op, other, "", below(r.Prefix, keys[1]))...)
		}
		all = append(all, needs(t, "ListObjectsV2", other, below(r.Prefix, "log/"))...)
	}
	if r.Prefix != "" {
		for _, key := range []string{r.Prefix, r.Prefix + "x/log/0000000000000001", "log/0000000000000001", "x/" + r.Prefix + "/log/0000000000000001", "whaty aalla aroot <ü€😀>/outwash"} {
			for _, op := range []string{"GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload"} {
				all = append(all, needs(t, op, on, "", key)...)
			}
		}
		for _, prefix := range []string{"", r.Prefix, r.Prefix + "x/", "log/", "x/" + r.Prefix + "/"} {
			all = append(all, needs(t, "ListObjectsV2", on, prefix)...)
		}
		all = append(all, needs(t, "HeadBucket", on, "")...)
	}
	all = append(all,
		policytest.Need{Action: "kms:Encrypt", Resource: kmsKey},
		policytest.Need{Action: "kms:Decrypt", Resource: strings.Replace(kmsKey, "1234abcd", "00000000", 1), Context: map[string]string{"kms:ResourceAliases": "alias/other"}},
		policytest.Need{Action: "kms:Decrypt", Resource: strings.Replace(kmsKey, "123456789012", "999999999999", 1), Context: map[string]string{"kms:ResourceAliases": "alias/outwash"}})
	for _, n := range all {
		if p.Allows(n) {
			t.Errorf("allowed, and not needed: %s", n)
		}
	}
}

// TestDelegation: the bucket's policy is the guide's, and both of them let requests
// through access points of the account pass, and no others.
func TestDelegation(t *testing.T) {
	for name, r := range map[string]Request{
		"delegation":       {Bucket: "my-bucket", AccessPoint: accessPoint, Account: "123456789012"},
		"delegation-china": {Bucket: "my-bucket", Region: "cn-north-1", Account: "123456789012"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Delegation(r)
			if err != nil {
				t.Fatal(err)
			}
			policies := []*policytest.Policy{golden(t, name, d)}
			on := strings.Replace(bucket, "aws", r.partition(), 1)
			if r.Region == "" {
				policies = append(policies, fromGuide(t, "delegation"))
			}
			for _, p := range policies {
				for account, want := range map[string]bool{"123456789012": true, "999999999999": false, "": false} {
					for _, n := range append(needs(t, "PutObject", on, "", "app/outwash"), needs(t, "ListObjectsV2", on, "app/")...) {
						if n.Context == nil {
							n.Context = map[string]string{}
						}
						if account != "" {
							n.Context["s3:DataAccessPointAccount"] = account
						}
						if got := p.Allows(n); got != want {
							t.Errorf("%s: allowed is %v, expected %v", n, got, want)
						}
					}
				}
			}
		})
	}
}

func TestMissing(t *testing.T) {
	identity := func(r Request) error { _, err := Identity(r); return err }
	delegation := func(r Request) error { _, err := Delegation(r); return err }
	for name, c := range map[string]struct {
		err, want error
	}{
		"access point without bucket":     {identity(Request{AccessPoint: accessPoint}), ErrNoBucket},
		"key's ID without account":        {identity(Request{Bucket: "b", KMSKey: "alias/x"}), ErrNoAccount},
		"delegation without bucket":       {delegation(Request{AccessPoint: accessPoint}), ErrNoBucket},
		"delegation without account":      {delegation(Request{Bucket: "b"}), ErrNoAccount},
		"access point's account suffices": {identity(Request{AccessPoint: accessPoint, Delegated: true, KMSKey: "alias/x"}), nil},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, expected %v", name, c.err, c.want)
		}
	}
	if err := identity(Request{Bucket: "b", KMSKey: "arn:aws:kms"}); err == nil {
		t.Error("half an ARN is taken for a key")
	}
}

// TestServers: every server known either takes policies or has advice that names
// bucket and path.
func TestServers(t *testing.T) {
	for _, s := range servers {
		if got := ServerOf(s.Name, "host"); got != s {
			t.Errorf("%s is %+v", s.Name, got)
		}
		if s.Documents {
			continue
		}
		for _, readOnly := range []bool{false, true} {
			advice := s.Advice(Request{Bucket: "my-bucket", Prefix: "app", ReadOnly: readOnly})
			if !strings.Contains(advice, `"my-bucket"`) || !strings.Contains(advice, `"app/"`) || strings.Contains(advice, "%!") {
				t.Errorf("%s: %s", s.Name, advice)
			}
		}
	}
	for provider, name := range map[string]string{"": "minio.example.com", "Filebase": "Filebase"} {
		if s := ServerOf(provider, "minio.example.com"); s.Name != name || s.AWS || !s.Documents {
			t.Errorf("%q is %+v", provider, s)
		}
	}
}
