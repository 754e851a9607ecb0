package s3proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A CA is a certificate authority that nobody trusts who wasn't given its File.
type CA struct {
	File string // its certificate, PEM: for AWS_CA_BUNDLE

	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// A Certificate is a server's, with its key.
type Certificate struct {
	CertFile, KeyFile string // PEM
	pair              tls.Certificate
}

// NewCA makes an authority for the time of the test.
func NewCA(t testing.TB) *CA {
	t.Helper()
	ca := &CA{t: t}
	ca.cert, ca.key = ca.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "Outwash's test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	ca.File = filepath.Join(t.TempDir(), "ca.pem")
	ca.write(ca.File, "CERTIFICATE", ca.cert.Raw)
	return ca
}

// Issue makes a certificate for the given hosts: names, also *.NAME, and IP
// addresses.
func (ca *CA) Issue(hosts ...string) *Certificate {
	ca.t.Helper()
	return ca.issue(time.Now().Add(time.Hour), hosts)
}

// IssueExpired makes one that has run out.
func (ca *CA) IssueExpired(hosts ...string) *Certificate {
	ca.t.Helper()
	return ca.issue(time.Now().Add(-time.Minute), hosts)
}

func (ca *CA) issue(until time.Time, hosts []string) *Certificate {
	ca.t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: hosts[0]}, NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	cert, key := ca.sign(template)
	dir := ca.t.TempDir()
	c := &Certificate{
		CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"),
		pair: tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key},
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	ca.check(err)
	ca.write(c.CertFile, "CERTIFICATE", cert.Raw)
	ca.write(c.KeyFile, "PRIVATE KEY", der)
	return c
}

func (c *Certificate) config() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{c.pair}, MinVersion: tls.VersionTLS12}
}

// sign signs with the authority's key, or, for its own certificate, with the new
// one.
func (ca *CA) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	ca.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ca.check(err)
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	ca.check(err)
	template.NotBefore = time.Now().Add(-time.Hour)
	parent, signer := ca.cert, ca.key
	if template.IsCA {
		template.NotAfter = time.Now().Add(time.Hour)
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	ca.check(err)
	cert, err := x509.ParseCertificate(der)
	ca.check(err)
	return cert, key
}

func (ca *CA) write(name, kind string, der []byte) {
	ca.t.Helper()
	ca.check(os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func (ca *CA) check(err error) {
	ca.t.Helper()
	if err != nil {
		ca.t.Fatalf("test CA: %v", err)
	}
}
