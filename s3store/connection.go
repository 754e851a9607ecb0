package s3store

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/aws/smithy-go"

	"github.com/outwash/outwash/internal/objstore"
)

const (
	proxyRemedy = "see HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
	caRemedy    = "name the file of your own CA in AWS_CA_BUNDLE, or correct the endpoint"
	// vpcRemedy is for access points, whose hosts don't answer from everywhere.
	vpcRemedy = "an access point restricted to a VPC is reached only from inside it, through a VPC endpoint for S3 that the subnet's route table has"
)

// judgeConnection: there was no response, or none that could be read. It is a pure
// function.
func judgeConnection(err error, t Target) verdict {
	if v, ok := judgeCertificate(err); ok {
		return v
	}
	var dns *net.DNSError
	var op *net.OpError
	var refused *refusedByProxy
	var timeout interface{ Timeout() bool }
	text := err.Error()
	switch {
	case errors.As(err, &refused):
		return judgeProxy(refused)
	case errors.As(err, &op) && op.Op == "proxyconnect", strings.Contains(text, "proxyconnect "):
		return verdict{cause: "proxy", retry: true, remedy: "the proxy can't be reached: " + proxyRemedy}
	case strings.Contains(text, "Proxy Authentication Required"):
		return verdict{cause: "proxy", kind: objstore.ErrDenied, remedy: "the proxy wants a user name and password: " + proxyRemedy}
	case strings.Contains(text, "server gave HTTP response to HTTPS client"), strings.Contains(text, "first record does not look like a TLS handshake"):
		return verdict{cause: "http", kind: objstore.ErrConfig, remedy: "the server speaks http, not https: write endpoint=http://…"}
	case errors.As(err, &dns) && dns.IsNotFound:
		return verdict{cause: "dns", retry: true, remedy: "the server's name can't be resolved: " + nameRemedy(t)}
	case errors.As(err, &dns):
		return verdict{cause: "dns-away", retry: true, remedy: "names can't be resolved at the moment: is the network up?"}
	case errors.As(err, new(*smithy.SerializationError)), strings.Contains(text, "failed to resolve service endpoint"):
		// Never sent: the SDK refuses to build the request.
		return verdict{cause: "request", kind: objstore.ErrConfig, remedy: "the request can't be built from this URL and configuration"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return verdict{cause: "refused", retry: true, remedy: "nothing listens there: " + reachRemedy(t)}
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return verdict{cause: "unreachable", retry: true, remedy: "the network has no way to the server: " + reachRemedy(t)}
	case err == errNoProgress, errors.As(err, &timeout) && timeout.Timeout():
		return verdict{cause: "timeout", retry: true, remedy: "the server does not answer: " + reachRemedy(t)}
	}
	if strings.HasPrefix(t.Endpoint, "http://") && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
		return verdict{cause: "connection", retry: true, remedy: "the server hangs up: if its port is one for https, write endpoint=https://…"}
	}
	return verdict{cause: "connection", retry: true}
}

func nameRemedy(t Target) string {
	switch {
	case t.AccessPoint:
		return "are the access point's name, account and region right, is the network up?"
	case t.Endpoint == "":
		return "is the network up, is the region right?"
	case !t.PathStyle:
		return "is the network up, is the endpoint or region right? The bucket is part of the name: a server without such names wants force-path-style=true"
	}
	return "is the network up, is the endpoint or region right?"
}

func reachRemedy(t Target) string {
	switch {
	case t.AccessPoint:
		return vpcRemedy
	case t.Endpoint == "":
		return "is the network up, or is there a firewall, a proxy (" + proxyRemedy + "), or a VPC without an endpoint for S3?"
	case isPrivate(t.Endpoint):
		return "is the server running, is the endpoint's port right?"
	}
	return "is the server up, is the endpoint right, is there a firewall or a proxy (" + proxyRemedy + ")?"
}

// judgeCertificate is for TLS handshakes.
func judgeCertificate(err error) (verdict, bool) {
	fail := func(cause, format string, args ...any) (verdict, bool) {
		return verdict{cause: cause, kind: objstore.ErrConfig, remedy: "the server's certificate is not trusted: " + fmt.Sprintf(format, args...)}, true
	}
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &host):
		return fail("certificate-host", "it is for %s, not for %s: correct the endpoint, or, if the bucket is part of that name, set force-path-style=true", names(host.Certificate), host.Host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && invalid.Cert != nil:
		from, to := invalid.Cert.NotBefore.UTC().Format(time.DateOnly), invalid.Cert.NotAfter.UTC().Format(time.DateOnly)
		return fail("certificate-expired", "it is valid from %s to %s: renew it, or set this machine's clock", from, to)
	case errors.As(err, new(x509.UnknownAuthorityError)), errors.As(err, new(x509.SystemRootsError)):
		return fail("certificate-authority", "its authority is not known here: %s", caRemedy)
	case errors.As(err, new(*tls.CertificateVerificationError)), errors.As(err, &invalid):
		return fail("certificate", "%s", caRemedy)
	}
	return verdict{}, false
}

// names is for whom a certificate is.
func names(c *x509.Certificate) string {
	list := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	switch {
	case len(list) == 0:
		return "nobody in particular"
	case len(list) > 3:
		return strings.Join(list[:3], ", ") + ", …"
	}
	return strings.Join(list, ", ")
}
