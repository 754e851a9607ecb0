package doctor

import (
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/outwash/outwash/s3store"
)

// clockLimit is beyond what S3 refuses requests; clockNotice is worth a word.
const (
	clockLimit   = 15 * time.Minute
	clockNotice  = 30 * time.Second
	expiryNotice = 48 * time.Hour // some authorities issue for six days
)

// connection judges the way to the server, step by step.
func (j *judge) connection(now time.Time) {
	c := j.f.Connection
	if c == nil {
		return
	}
	host := c.URL
	if u, err := url.Parse(c.URL); err == nil {
		host = u.Hostname()
	}
	var problem s3store.Problem
	if c.Err != nil {
		problem = s3store.ExplainConnection(*j.f.Target, c.Err)
	}
	fail := func(check, text string) {
		j.add(Finding{Check: check, State: Failed, Text: text, Cause: problem.Cause, Remedy: problem.Remedy, Said: problem.Said})
	}
	if c.Stage == "request" {
		fail(checkConnect, "no request can be made")
		return
	}
	switch {
	case c.Stage == "proxy":
		fail(checkConnect, "the proxy "+c.Proxy+" can't be passed")
		return
	case c.Proxy != "":
		j.add(Finding{Check: checkDNS, State: Skipped, Text: "left to the proxy " + c.Proxy})
	case c.Stage == "dns":
		fail(checkDNS, "the name "+host+" can't be resolved")
		return
	case net.ParseIP(host) == nil:
		j.add(Finding{Check: checkDNS, State: OK, Text: host + " is " + some(c.Addresses)})
	}
	if c.Stage == "connect" {
		fail(checkConnect, "no connection to "+c.Remote)
		return
	}
	to := "connected to " + c.Remote
	if c.Proxy != "" {
		to = "connected through the proxy " + c.Proxy
	}
	j.add(Finding{Check: checkConnect, State: OK, Text: to})
	if c.Stage == "tls" {
		text := "no secure connection"
		if len(c.Certified) > 0 || c.Issuer != "" {
			text += fmt.Sprintf(": the certificate is for %s, by %q, until %s", some(c.Certified), c.Issuer, c.Expires.UTC().Format(time.DateOnly))
		}
		fail(checkTLS, text)
		return
	}
	j.secure(c, now)
	if c.Stage == "answer" {
		fail(checkAnswer, "the server does not answer")
		return
	}
	j.clock(c)
}

func (j *judge) secure(c *s3store.Connection, now time.Time) {
	switch {
	case c.TLS == "" && strings.HasPrefix(c.URL, "https:"):
	case c.TLS == "":
		f := Finding{Check: checkTLS, State: Skipped, Text: "http: nothing is encrypted on the way"}
		if u, err := url.Parse(c.URL); err == nil && !near(u.Hostname()) {
			f.State, f.Cause, f.Remedy = Warning, "plain-http", "write endpoint=https://…, if the server has it: anybody on the way can read the database"
		}
		j.add(f)
	case !c.Verified:
		j.add(Finding{Check: checkTLS, State: Warning, Cause: "unverified", Text: c.TLS + ", the certificate is not checked (skip-verify)",
			Remedy: "name the file of your own CA in AWS_CA_BUNDLE instead"})
	default:
		f := Finding{Check: checkTLS, State: OK, Text: fmt.Sprintf("%s, certificate by %q until %s", c.TLS, c.Issuer, c.Expires.UTC().Format(time.DateOnly))}
		if left := c.Expires.Sub(now); left < expiryNotice {
			f.State, f.Cause, f.Remedy = Warning, "certificate-expires", fmt.Sprintf("it runs out in %s: renew it", left.Round(time.Hour))
		}
		j.add(f)
	}
}

// near: a host whose traffic stays on this machine or in a private network.
func near(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && (ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast())
}

func (j *judge) clock(c *s3store.Connection) {
	if !c.Dated {
		j.add(Finding{Check: checkClock, State: Skipped, Text: "the server does not tell its time"})
		return
	}
	off := c.Ahead.Abs()
	f := Finding{Check: checkClock, State: OK, Text: "like the server's"}
	if off >= 2*time.Second {
		side := "behind"
		if c.Ahead < 0 {
			side = "ahead of"
		}
		f.Text = fmt.Sprintf("this machine's is %s %s the server's", off, side)
	}
	switch {
	case off >= clockLimit:
		f.State, f.Cause, f.Remedy = Warning, "clock", "set the clock: the server refuses requests that are so far off; they are repeated with its time, but what is committed gets the wrong one"
	case off >= clockNotice:
		f.State, f.Cause, f.Remedy = Warning, "clock", "set the clock: restores to a point in time go by it"
	}
	j.add(f)
}

// some names a few of a list.
func some(list []string) string {
	switch {
	case len(list) == 0:
		return "nothing"
	case len(list) > 3:
		return strings.Join(list[:3], ", ") + ", …"
	}
	return strings.Join(list, ", ")
}
