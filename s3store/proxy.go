package s3store

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/outwash/outwash/internal/objstore"
)

// refusedByProxy is a proxy's answer to the request for a way to the server. Go's
// own error has the status's text alone, "Forbidden", as if the server had said it.
type refusedByProxy struct {
	status int
	host   string // the proxy's
}

func (e *refusedByProxy) Error() string {
	return fmt.Sprintf("the proxy %s answers %d %s", e.host, e.status, http.StatusText(e.status))
}

// nameProxy makes a client tell what proxies say.
func nameProxy(tr *http.Transport) {
	tr.OnProxyConnectResponse = func(_ context.Context, proxy *url.URL, _ *http.Request, resp *http.Response) error {
		if resp.StatusCode == http.StatusOK {
			return nil
		}
		return &refusedByProxy{resp.StatusCode, proxy.Host}
	}
}

func judgeProxy(e *refusedByProxy) verdict {
	switch {
	case e.status == http.StatusProxyAuthRequired:
		return verdict{cause: "proxy", kind: objstore.ErrDenied, remedy: "the proxy wants a user name and password: " + proxyRemedy}
	case e.status >= 500, e.status == http.StatusTooManyRequests:
		return verdict{cause: "proxy", retry: true, remedy: "the proxy can't reach the server: " + proxyRemedy}
	}
	return verdict{cause: "proxy", kind: objstore.ErrDenied, remedy: "the proxy does not let it through: " + proxyRemedy}
}
