package s3store

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/outwash/outwash/internal/objstore"
)

// readAuthority takes what stands between s3:// and the next slash: a bucket, or a
// host that may begin with one. It returns the path that is left.
func (a *address) readAuthority(authority, path string) (rest string, err error) {
	host, port := authority, ""
	if strings.Contains(authority, ":") {
		if host, port, err = net.SplitHostPort(authority); err != nil || host == "" || port == "" {
			return "", fmt.Errorf("%w: a bucket was expected where %q stands; a server is named by ?endpoint=HOST:PORT", objstore.ErrConfig, authority)
		}
	}
	m := matchHost(host)
	switch {
	case m.server != "":
		server := m.server
		if port != "" {
			server += ":" + port
		}
		a.Bucket = m.bucket
		if m.bucket == "" {
			a.Bucket, path, _ = strings.Cut(path, "/")
		}
		a.EndpointFrom = "the URL's host"
		return path, a.useEndpoint("https://" + server)
	case port != "":
		server := authority
		if isIP(host) || !strings.Contains(host, ".") {
			a.Bucket, path, _ = strings.Cut(path, "/")
		} else {
			a.Bucket, server, _ = strings.Cut(authority, ".")
		}
		// Plain http is for servers nearby; whoever talks to others says so.
		name, _, _ := net.SplitHostPort(server)
		if !isNearby(name) {
			return "", fmt.Errorf("%w: is the server %s to be spoken to by https, or by http? Write s3://BUCKET/PATH?endpoint=https://HOST:PORT", objstore.ErrConfig, authority)
		}
		a.EndpointFrom = "the URL's host"
		return path, a.useEndpoint("http://" + server)
	case a.wishes.endpoint != "": // whatever it looks like, it is the bucket
	case m.provider != unknown:
		return "", fmt.Errorf("%w: %q is a host of %s, but none of its S3 servers: write %s", objstore.ErrConfig, host, m.provider.name, m.provider.example())
	case isIP(host) || isLocalhost(host):
		return "", fmt.Errorf("%w: a bucket was expected where %q stands; a server is named by ?endpoint=HOST:PORT", objstore.ErrConfig, authority)
	}
	a.Bucket = authority
	return path, nil
}

// useEndpoint makes the address one at that server. People copy endpoints with the
// bucket in them from their provider's pages: as part of the host, or as the path.
func (a *address) useEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return fmt.Errorf("%w: endpoint %q is not a server's URL", objstore.ErrConfig, objstore.Redact(endpoint))
	}
	m := matchHost(u.Hostname())
	port := u.Port()
	if m.server != "" {
		for _, bucket := range []string{m.bucket, strings.Trim(u.Path, "/")} {
			if bucket != "" && bucket != a.Bucket {
				return fmt.Errorf("%w: endpoint %q names the bucket %q, the URL %q", objstore.ErrConfig, objstore.Redact(endpoint), bucket, a.Bucket)
			}
		}
		u.Path = ""
		if u.Host = m.server; port != "" {
			u.Host += ":" + port
		}
	}
	if m.region != "" && !a.AccessPoint {
		a.Region, a.RegionFrom = m.region, "the server's host"
	}
	a.provider, a.Provider = m.provider, m.provider.name
	a.Endpoint, a.inAWS = strings.TrimRight(u.String(), "/"), false
	if m.provider == aws3 && m.server != "" && !strings.Contains(m.server, ".vpce.") && u.Scheme == "https" && port == "" {
		// The SDK's own: it knows about IPv6 and FIPS, and follows buckets to
		// their regions.
		a.Endpoint, a.inAWS, a.regionGiven = "", true, m.region != "" && !a.AccessPoint
		a.DualStack = strings.Contains(m.server, ".dualstack.")
		a.FIPS = strings.HasPrefix(m.server, "s3-fips.")
	}
	return nil
}

// cleanEndpoint completes an endpoint to a URL that the SDK takes.
func cleanEndpoint(s string) (string, error) {
	bad := func(what string) error { return fmt.Errorf("%q %s", objstore.Redact(s), what) }
	full := s
	if !strings.Contains(full, "://") {
		full = "https://" + full
		if isPrivate(full) {
			full = "http://" + s
		}
	}
	u, err := url.Parse(full)
	switch {
	case err != nil || u.Hostname() == "":
		return "", bad("is not a server's URL, like https://s3.example.com")
	case u.User != nil:
		return "", bad("contains credentials: use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile")
	case u.Scheme != "http" && u.Scheme != "https":
		return "", bad("is neither http nor https")
	case u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return "", bad("must not have parameters")
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func hostOf(endpoint string) (host string, addr netip.Addr, isIP bool) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", addr, false
	}
	host = strings.ToLower(u.Hostname())
	addr, err = netip.ParseAddr(host)
	return host, addr, err == nil
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

func isLocalhost(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// isNearby: a host on this machine or network: an address of one, or a name that
// no public DNS has. The ends of such names alone are no hosts.
func isNearby(host string) bool {
	private := []string{"local", "internal", "lan", "home", "intranet", "localdomain"}
	if i := strings.LastIndexByte(host, '.'); i >= 0 && slices.Contains(private, host[i+1:]) {
		return true
	}
	if strings.Contains(host, ".") || strings.Contains(host, ":") {
		return isPrivate("http://" + net.JoinHostPort(host, "80"))
	}
	return host != "" && !slices.Contains(private, host)
}

// isPrivate: an address at which https would be a surprise.
func isPrivate(endpoint string) bool {
	host, addr, isIP := hostOf(endpoint)
	if isIP {
		return addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast()
	}
	return isLocalhost(host)
}

// isLocal: a host below which no bucket can be a subdomain.
func isLocal(endpoint string) bool {
	host, _, isIP := hostOf(endpoint)
	return isIP || isLocalhost(host)
}

func isHostLabel(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && net.ParseIP(s) == nil
}
