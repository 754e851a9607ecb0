package s3proxy

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A Tunnel is an HTTP proxy, for HTTP_PROXY and HTTPS_PROXY, that leads host names
// to servers of the test. Clients take the same way as to the real hosts.
type Tunnel struct {
	URL string // http://127.0.0.1:PORT

	routes map[string]string
	mu     sync.Mutex
	hosts  []string
}

// NewTunnel starts one that leads hosts by routes: host name, or .DOMAIN for all
// below it, to HOST:PORT. Hosts without a route are answered as those that can't
// be resolved. It ends with the test.
func NewTunnel(t testing.TB, routes map[string]string) *Tunnel {
	t.Helper()
	p := &Tunnel{routes: map[string]string{}}
	for host, to := range routes {
		to = strings.TrimPrefix(strings.TrimPrefix(to, "https://"), "http://")
		p.routes[host] = to
	}
	srv := httptest.NewServer(p)
	p.URL = srv.URL
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return p
}

// Hosts returns the names that were asked for, each once, sorted.
func (p *Tunnel) Hosts() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.Sort(p.hosts)
	return slices.Compact(slices.Clone(p.hosts))
}

func (p *Tunnel) route(host string) (to string, ok bool) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	p.mu.Lock()
	p.hosts = append(p.hosts, host)
	p.mu.Unlock()
	for name := host; ; {
		if to, ok := p.routes[name]; ok {
			return to, true
		}
		_, domain, ok := strings.Cut(strings.TrimPrefix(name, "."), ".")
		if !ok {
			return "", false
		}
		name = "." + domain
	}
}

// ServeHTTP implements http.Handler.
func (p *Tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	to, ok := p.route(r.Host)
	switch {
	case !ok:
		http.Error(w, "no such host", http.StatusBadGateway)
	case r.Method == http.MethodConnect:
		p.connect(w, to)
	default:
		proxy := httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL.Scheme, pr.Out.URL.Host = "http", to
			pr.Out.Host = pr.In.Host
		}}
		proxy.ServeHTTP(w, r)
	}
}

func (p *Tunnel) connect(w http.ResponseWriter, to string) {
	server, err := net.Dial("tcp", to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = server.Close() }()
	w.WriteHeader(http.StatusOK)
	client, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = client.Close() }()
	// Either side's end is the end.
	done := make(chan struct{}, 2)
	go func() { _, _ = io.Copy(server, buf); done <- struct{}{} }()
	go func() { _, _ = io.Copy(client, server); done <- struct{}{} }()
	<-done
}
