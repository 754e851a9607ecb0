package s3proxy

import (
	"context"
	"crypto/subtle"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// maxSkew is how far a request's time may be from S3's.
//
// Source: S3 API Reference, "Error responses", RequestTimeTooSkewed.
const maxSkew = 15 * time.Minute

const amzDate = "20060102T150405Z"

// signAnew checks a request by the proxy's clock and its signature, and signs it
// again by this machine's, which the server has.
func (p *Proxy) signAnew(r *http.Request, c Call) (*http.Request, *Answer) {
	signed, err := time.Parse(amzDate, r.Header.Get("X-Amz-Date"))
	if err != nil {
		return r, &Answer{Status: http.StatusForbidden, Code: "AccessDenied", Message: "AWS authentication requires a valid Date or x-amz-date header"}
	}
	if d := time.Since(signed) + p.opts.Clock; d > maxSkew || d < -maxSkew {
		return r, &Answer{Status: http.StatusForbidden, Code: "RequestTimeTooSkewed", Message: "The difference between the request time and the current time is too large."}
	}
	secret, ok := p.opts.Secrets[c.AccessKey]
	if !ok {
		return r, &Answer{Status: http.StatusForbidden, Code: "InvalidAccessKeyId", Message: "The AWS Access Key Id you provided does not exist in our records."}
	}
	creds := aws.Credentials{AccessKeyID: c.AccessKey, SecretAccessKey: secret, SessionToken: r.Header.Get("X-Amz-Security-Token")}
	proof, err := sign(r, creds, signed)
	if err == nil && subtle.ConstantTimeCompare([]byte(proof.Get("Authorization")), []byte(r.Header.Get("Authorization"))) != 1 {
		return r, &Answer{Status: http.StatusForbidden, Code: "SignatureDoesNotMatch", Message: "The request signature we calculated does not match the signature you provided. Check your key and signing method."}
	}
	var header http.Header
	if err == nil {
		header, err = sign(r, creds, time.Now())
	}
	if err != nil {
		return r, &Answer{Status: http.StatusInternalServerError, Code: "InternalError", Message: err.Error()}
	}
	out := r.Clone(r.Context())
	for name, values := range header {
		out.Header[name] = values
	}
	return out, nil
}

// sign returns the headers of r's signature at the given time, over the same
// headers as it has now.
func sign(r *http.Request, creds aws.Credentials, at time.Time) (http.Header, error) {
	auth := r.Header.Get("Authorization")
	_, names, _ := strings.Cut(auth, "SignedHeaders=")
	names, _, _ = strings.Cut(names, ",")
	scope := strings.Split(auth, "/") // …Credential=KEY/date/REGION/SERVICE/aws4_request
	region, service := "us-east-1", "s3"
	if len(scope) >= 5 {
		region, service = scope[len(scope)-3], scope[len(scope)-2]
	}
	bare := &http.Request{Method: r.Method, URL: new(url.URL), Host: r.Host, Header: http.Header{}}
	*bare.URL = *r.URL
	bare.URL.Scheme, bare.URL.Host = "https", r.Host
	for name := range strings.SplitSeq(names, ";") {
		switch name {
		case "host":
		case "content-length":
			bare.ContentLength = r.ContentLength
		default:
			bare.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
		}
	}
	err := v4.NewSigner().SignHTTP(context.Background(), creds, bare, r.Header.Get("X-Amz-Content-Sha256"), service, region, at,
		func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err != nil {
		return nil, err
	}
	return http.Header{"Authorization": bare.Header["Authorization"], "X-Amz-Date": bare.Header["X-Amz-Date"]}, nil
}
