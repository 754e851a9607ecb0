package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/s3proxy"
	"github.com/outwash/outwash/internal/versitygw"
)

// What doctor says at AWS, and that restore says the same: the rows of the guide's
// table that need AWS's host names, and its case of an endpoint that was forgotten.
func TestDoctorAtAWS(t *testing.T) {
	const domain, point = "s3-accesspoint.us-east-2.amazonaws.com", "s3://arn:aws:s3:us-east-2:123456789012:accesspoint/myap/backups"
	ca := s3proxy.NewCA(t)
	start := func(bucket, domain string) (*s3proxy.Proxy, []string) {
		gw := versitygw.StartWith(t, versitygw.Options{Bucket: bucket, Region: "us-east-2", Domain: domain})
		p := s3proxy.New(t, gw.Endpoint, s3proxy.Options{Domains: []string{domain}, Certificate: ca.Issue("*." + domain)})
		tunnel := s3proxy.NewTunnel(t, map[string]string{"." + domain: p.URL})
		return p, append(gw.Env(), "HTTPS_PROXY="+tunnel.URL, "AWS_CA_BUNDLE="+ca.File, "AWS_REGION=us-east-2")
	}
	atPoint, pointEnv := start("myap-123456789012", domain)
	atBucket, bucketEnv := start("my-bucket", "s3.us-east-2.amazonaws.com")
	all := func(status int, code, message string) s3proxy.Rule {
		return func(s3proxy.Call) *s3proxy.Answer {
			return &s3proxy.Answer{Status: status, Code: code, Message: message}
		}
	}
	for _, tt := range []struct {
		name  string
		proxy *s3proxy.Proxy
		place place
		rule  s3proxy.Rule
		code  int
		cause string
		says  []string
	}{
		{"access point", atPoint, place{point, pointEnv}, nil, 0, "", []string{"myap-123456789012." + domain, "good for replication and restore"}},
		{"access denied at an access point", atPoint, place{point, pointEnv}, all(403, "AccessDenied", "Access Denied"), 6, "denied-access-point",
			[]string{"VPC endpoint for S3 that the subnet's route table has"}},
		{"no identity-based policy at an access point", atPoint, place{point, pointEnv}, s3proxy.Allow(), 6, "denied-identity",
			[]string{"no policy of the user or role allows s3:ListBucket", "both the access point and the bucket"}},
		{"forgotten endpoint", atBucket, place{"s3://my-bucket/app", bucketEnv}, all(403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."), 6, "wrong-endpoint",
			[]string{"no endpoint was given, so AWS was asked", "?endpoint=https://HOST"}},
		{"another region", atBucket, place{"s3://my-bucket/app?region=us-east-2", bucketEnv}, func(s3proxy.Call) *s3proxy.Answer {
			return &s3proxy.Answer{Status: 301, Code: "PermanentRedirect", Message: "no", Header: map[string][]string{"X-Amz-Bucket-Region": {"eu-west-1"}}}
		}, 6, "region", []string{"the bucket is in region eu-west-1"}},
		{"unreachable access point", nil, place{strings.Replace(point, "us-east-2", "us-west-1", 1), pointEnv}, nil, 6, "", []string{"access point"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.name == "forgotten endpoint" {
				tt.place.env = append(tt.place.env, "AWS_ACCESS_KEY_ID=0045f0571db506a0000000007")
			}
			if tt.proxy != nil {
				tt.proxy.Refuse(tt.rule)
				defer tt.proxy.Refuse(nil)
			}
			code, out, errOut := tt.place.command(t, "outwash", "doctor", tt.place.url)
			_, data, _ := tt.place.command(t, "outwash", "doctor", "-json", tt.place.url)
			for _, s := range tt.says {
				if !strings.Contains(out, s) {
					t.Errorf("doctor does not say %q", s)
				}
			}
			if code != tt.code || errOut != "" || tt.cause != "" && !strings.Contains(data, `"cause": "`+tt.cause+`"`) {
				t.Errorf("exit code %d, expected %d, cause %s:\n%s%s\n%s", code, tt.code, tt.cause, out, errOut, data)
			}
			if tt.cause == "" {
				return
			}
			_, _, errOut = tt.place.command(t, "outwash", "ls", tt.place.url)
			// ls reads first and doctor lists, so the action may differ.
			if s := tt.says[len(tt.says)-1]; !strings.Contains(errOut, s) {
				t.Errorf("ls does not say %q:\n%s", s, errOut)
			}
		})
	}
}

// An interruption in the middle ends doctor soon, with the code for that, and nothing is left.
func TestDoctorInterrupted(t *testing.T) {
	gw := versitygw.Start(t)
	store, err := objstore.Open(t.Context(), gw.URL("app"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, operation := range []string{"ListObjectsV2", "PutObject", "UploadPart", "DeleteObject"} {
		proxy := s3proxy.New(t, gw.Endpoint, s3proxy.Options{})
		ctx, interrupt := context.WithCancel(t.Context()) // what a signal does: TestScript/signal
		proxy.Refuse(func(c s3proxy.Call) *s3proxy.Answer {
			if c.Operation == operation {
				interrupt()
			}
			return nil
		})
		var out, errOut strings.Builder
		code := run(ctx, []string{"doctor", "s3://bucket/app?endpoint=" + proxy.URL}, strings.NewReader(""), &out, &errOut)
		if code != codeInterrupted || errOut.String() != "outwash: doctor: interrupted\n" {
			t.Errorf("at %s: exit code %d\n%s%s", operation, code, out.String(), errOut.String())
		}
		for info, err := range store.List(t.Context(), "", "") {
			if err != nil {
				t.Fatal(err)
			}
			t.Errorf("at %s: %s is left", operation, info.Key)
		}
	}
}

// The guide's five actions, as they stand, satisfy doctor, and so does what outwash
// policy prints, restricted to the path; the guide's policy for restores is
// recognised for what it is, and satisfies doctor -read-only.
func TestDoctorUnderPolicies(t *testing.T) {
	w := newS3World(t)
	w.replicate("one", "one.db", nil, "CREATE TABLE t(n, b)", "INSERT INTO t VALUES(1, 2)")
	read := func(name string) string {
		text, err := os.ReadFile("../../internal/policy/testdata/guide/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(string(text), "my-bucket", "bucket")
	}
	own := func(flags ...string) string {
		code, out, text := cli(append(append([]string{"policy"}, flags...), "s3://bucket/app")...)
		if code != codeOK {
			t.Fatalf("policy %v: %s", flags, text)
		}
		return out
	}
	for _, tt := range []struct {
		name, policy string
		hides        bool
		code         int
		verdict      string
		readOnly     int
	}{
		{"guide", read("replication"), false, codeOK, `"ready"`, codeOK},
		{"own", own(), false, codeOK, `"ready"`, codeOK},
		{"own, hiding", own(), true, codeOK, `"ready"`, codeOK},
		{"own, with -sweep", own("-sweep"), false, codeOK, `"ready"`, codeOK},
		{"guide, read-only", read("restoration"), false, codeAccess, `"read-only"`, codeOK},
		{"own, read-only", own("-read-only"), false, codeAccess, `"read-only"`, codeOK},
		{"own, read-only, hiding", own("-read-only"), true, codeAccess, `"read-only"`, codeOK},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.t = t
			policy := parsePolicy(t, tt.policy)
			w.proxy.Refuse(func(c s3proxy.Call) *s3proxy.Answer {
				if c.Operation == "DeleteObjects" {
					c.Operation, c.Key = "DeleteObject", "app/one/doctor/x" // AWS looks at each, and they are in the body
				}
				return w.judge(policy, tt.hides, c)
			})
			for _, path := range []string{"one", "nothing"} {
				code, out, errOut := cli("doctor", "-json", w.url(path))
				if code != tt.code || !strings.Contains(out, `"verdict": `+tt.verdict) || !strings.Contains(out, `"warnings": 0`) || errOut != "" {
					t.Errorf("doctor %s: exit code %d, expected %d and %s:\n%s%s", path, code, tt.code, tt.verdict, out, errOut)
				}
				code, out, _ = cli("doctor", "-read-only", w.url(path))
				if code != tt.readOnly {
					t.Errorf("doctor -read-only %s: exit code %d, expected %d:\n%s", path, code, tt.readOnly, out)
				}
			}
		})
	}
	w.enforce(nil, false)
	for info, err := range w.root.List(t.Context(), "app/", "") {
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(info.Key, "doctor/") {
			t.Errorf("%s is left", info.Key)
		}
	}
}

// Signs are for terminals that can show them; all others get words.
func TestMarks(t *testing.T) {
	if m := newUI(strings.NewReader(""), new(bytes.Buffer), new(bytes.Buffer)).marks(); m["failed"] != "FAIL" {
		t.Errorf("into a file: %q", m)
	}
	for _, tt := range []struct {
		system, all, lang string
		want              bool
	}{
		{"linux", "", "en_US.UTF-8", true}, {"linux", "C", "en_US.UTF-8", false}, {"linux", "C.utf8", "", true},
		{"linux", "", "", false}, {"linux", "", "C", false}, {"darwin", "", "", true},
	} {
		env := func(name string) string { return map[string]string{"LC_ALL": tt.all, "LANG": tt.lang}[name] }
		if got := showsUnicode(tt.system, env); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}
