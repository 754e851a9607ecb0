package rclone

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/outwash/outwash/internal/versitygw"
)

var updateDocs = flag.Bool("update", false, "write the table of docs/servers.md anew")

// A deviation is what a server does other than S3.
type deviation struct {
	does    string
	because string // why, or what it means for Outwash
}

// deviations lists all that is known, by server and probe.
var deviations = map[string]map[string]deviation{
	"versitygw": {
		"completing an upload that does not exist, to a key that does": {
			"200", "harmless: Outwash never uploads to a key twice, so what is there is what an earlier attempt completed"},
		"objects k and k/below": {
			"409 ObjectParentIsFile", "keys are paths of files; Outwash never makes such keys"},
		"a key with a newline, listed with encoding-type=url": {
			"a&#xA;b", "ignores the encoding, and says so by leaving it out; Outwash reads both"},
		"encryption that is asked for (AES256)": {
			"not said", "ignores it: what lies on the disk is plain"},
		"read without the customer's key of an object that was written with it": {
			"200", "ignores the key: what lies on the disk is plain"},
		"a storage class (STANDARD_IA)": {
			"STANDARD", "has one class"},
		"an unknown access key": {
			"404 XAdminUserNotFound", "where it has no users but its owner; taken as no access, not as no object"},
	},
	"rclone": {
		"completing an upload whose first part is smaller than 5 MiB": {
			"200", "is laxer than S3; Outwash never makes such parts"},
		"the ETag of an object of two parts": {
			"is that of any object", "ETags mean nothing to Outwash but whether an object is still the same"},
		"the last 1000 bytes of an object of 5": {
			"416 InvalidRange", "Outwash asks again for all of it"},
		"objects k and k/below": {
			"400 InvalidRequest", "keys are paths of files; Outwash never makes such keys"},
		"encryption that is asked for (AES256)": {
			"not said", "ignores it: what lies on the disk is plain"},
		"read without the customer's key of an object that was written with it": {
			"write: 501 NotImplemented", "has no encryption, and says so"},
		"the region of a bucket": {
			"not said", "has no regions"},
		"a request signed for another region": {
			"404 NoSuchKey", "has no regions: any will do"},
	},
}

// TestDeviations asks both servers what the probes ask. What they answer other
// than S3 must be listed, and what is listed must be so.
func TestDeviations(t *testing.T) {
	gw, rc := versitygw.Start(t), Start(t)
	for _, server := range []struct {
		name string
		c    client
	}{
		{"versitygw", client{endpoint: gw.Endpoint, bucket: gw.Bucket, creds: aws.Credentials{AccessKeyID: gw.AccessKey, SecretAccessKey: gw.SecretKey}}},
		{"rclone", client{endpoint: rc.Endpoint, bucket: rc.Bucket, creds: aws.Credentials{AccessKeyID: rc.AccessKey, SecretAccessKey: rc.SecretKey}}},
	} {
		known := map[string]bool{}
		for i, p := range probes {
			known[p.name] = true
			t.Run(server.name+"/"+p.name, func(t *testing.T) {
				c := server.c
				c.t, c.region = t, "us-east-1"
				// A bucket of its own: a probe leaves what it makes.
				c.bucket = fmt.Sprintf("probe%d", i)
				if r := c.do("PUT", "", ""); r.status != 200 {
					t.Fatalf("no new bucket: %s", r)
				}
				got := p.run(c)
				d, listed := deviations[server.name][p.name]
				switch {
				case listed && got == p.s3:
					t.Errorf("it does as S3 now: take it out of the list (it used to do: %s)", d.does)
				case listed && got != d.does:
					t.Errorf("%s, which is neither S3's %s nor what is listed, %s", got, p.s3, d.does)
				case !listed && got != p.s3:
					t.Errorf("%s; S3: %s (%s)", got, p.s3, p.source)
				}
			})
		}
		for name := range deviations[server.name] {
			if !known[name] {
				t.Errorf("%s: there is no probe %q", server.name, name)
			}
		}
	}
	compareDocs(t)
}

const docs = "../../docs/servers.md"

// compareDocs holds the table of the documentation against the list.
func compareDocs(t *testing.T) {
	t.Helper()
	var table strings.Builder
	table.WriteString("| what | S3 | server | does | because |\n|---|---|---|---|---|\n")
	for _, p := range probes {
		for _, server := range []string{"versitygw", "rclone"} {
			if d, ok := deviations[server][p.name]; ok {
				fmt.Fprintf(&table, "| %s | %s | %s | %s | %s |\n", p.name, p.s3, server, d.does, d.because)
			}
		}
	}
	text, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), "| what | S3 |")
	_, after, ok2 := strings.Cut(rest, "\n\n")
	if !ok || !ok2 {
		t.Fatalf("%s has no table of deviations that ends with an empty line", docs)
	}
	want := before + table.String() + "\n" + after
	if *updateDocs {
		if err := os.WriteFile(docs, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("%s has another table: go test ./internal/rclone -run TestDeviations -update", docs)
	}
}
