package versitygw

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// statement is one of a bucket policy.
type statement struct {
	Effect    string              `json:"Effect"`
	Principal map[string][]string `json:"Principal"`
	Action    []string            `json:"Action"`
	Resource  []string            `json:"Resource"`
}

// AddUser makes a user who may do no more on the bucket than the given actions
// ("s3:GetObject"), and returns his credentials. It needs Options.Users, and a
// server that speaks http.
func (s *Server) AddUser(actions ...string) (accessKey, secretKey string) {
	s.t.Helper()
	accessKey, secretKey = "AK"+rand.Text()[:18], rand.Text()
	cmd := exec.Command(s.bin, "admin", "--access", s.AccessKey, "--secret", s.SecretKey, "--region", s.Region, "--endpoint-url", s.Endpoint,
		"create-user", "--access", accessKey, "--secret", secretKey, "--role", "user")
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("versitygw: create-user: %v\n%s", err, out)
	}
	if len(actions) > 0 {
		s.allow(accessKey, actions)
	}
	return accessKey, secretKey
}

// onBucket are actions whose resource is the bucket.
var onBucket = map[string]bool{"s3:ListBucket": true, "s3:GetBucketLocation": true, "s3:ListBucketMultipartUploads": true}

func (s *Server) allow(user string, actions []string) {
	s.t.Helper()
	bucket, objects := statement{}, statement{}
	for _, a := range actions {
		if onBucket[a] {
			bucket.Action = append(bucket.Action, a)
		} else {
			objects.Action = append(objects.Action, a)
		}
	}
	bucket.Resource, objects.Resource = []string{"arn:aws:s3:::" + s.Bucket}, []string{"arn:aws:s3:::" + s.Bucket + "/*"}
	for _, st := range []statement{bucket, objects} {
		if len(st.Action) > 0 {
			st.Effect, st.Principal = "Allow", map[string][]string{"AWS": {user}}
			s.rights = append(s.rights, st)
		}
	}
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": s.rights})
	if err != nil {
		s.t.Fatalf("versitygw: %v", err)
	}
	s.put("policy", string(policy))
}

// put sets a subresource of the bucket as the server's owner.
func (s *Server) put(subresource, body string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPut, s.Endpoint+"/"+s.Bucket+"?"+subresource+"=", bytes.NewReader([]byte(body)))
	if err != nil {
		s.t.Fatalf("versitygw: %v", err)
	}
	sum := sha256.Sum256([]byte(body))
	hash := hex.EncodeToString(sum[:])
	req.Header.Set("X-Amz-Content-Sha256", hash)
	creds := aws.Credentials{AccessKeyID: s.AccessKey, SecretAccessKey: s.SecretKey}
	if err := v4.NewSigner().SignHTTP(s.t.Context(), creds, req, hash, "s3", s.Region, time.Now()); err != nil {
		s.t.Fatalf("versitygw: %v", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatalf("versitygw: put %s: %v", subresource, err)
	}
	defer resp.Body.Close()
	if answer, _ := io.ReadAll(resp.Body); resp.StatusCode >= 300 {
		s.t.Fatalf("versitygw: put %s: %s\n%s", subresource, resp.Status, answer)
	}
}
