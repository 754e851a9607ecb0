// Package service serves what watches over a process that replicates: metrics, health
// and status over HTTP, and a heartbeat.
//
//	GET /metrics   Prometheus' text format: package replicate/metrics, Go's runtime, the process
//	GET /healthz   200, or 503 when a database is not replicated as it should be: [Health]
//	GET /readyz    200 once it is known how each database relates to its replica, and none is refused
//	GET /status    what outwash status asks for: package internal/status
//
// There is nothing else, nothing that changes anything, and no authentication: who can
// reach the address learns the paths of databases and the URLs of replicas, without
// secrets.
package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/outwash/outwash/internal/status"
	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/replicate/metrics"
)

// ErrAddr means that nothing can be served at this address.
var ErrAddr = errors.New("metrics and health can't be served there")

// DefaultHeartbeat is how often a heartbeat is sent, as with Litestream.
const DefaultHeartbeat = 5 * time.Minute

// Options say what to serve. List is necessary.
type Options struct {
	// List returns the status of each database. It is called for each request.
	List func() []replicate.Status
	// Addr is HOST:PORT; without HOST (":9090") all of the machine's addresses, as
	// with Litestream's addr; "": no server.
	Addr string
	// MaxLag is how far replication may be behind before health fails; 0: DefaultMaxLag.
	MaxLag time.Duration
	// HeartbeatURL is asked every HeartbeatInterval (0: DefaultHeartbeat) while all
	// databases replicate and none is behind; "": none. It may have secrets in it.
	HeartbeatURL      string
	HeartbeatInterval time.Duration
	Logger            *slog.Logger // nil: none

	clock replicate.Clock // for tests
}

// Service runs until it is closed.
type Service struct {
	o       Options
	began   time.Time
	server  *http.Server
	addr    string
	ready   atomic.Bool
	stop    context.CancelFunc
	running sync.WaitGroup
}

// Start starts what o asks for; nothing of it outlives ctx.
func Start(ctx context.Context, o Options) (*Service, error) {
	if o.MaxLag == 0 {
		o.MaxLag = DefaultMaxLag
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.clock == nil {
		o.clock = systemClock{}
	}
	s := &Service{o: o, began: o.clock.Now()}
	var beats *heartbeat
	if o.HeartbeatURL != "" {
		var err error
		if beats, err = newHeartbeat(o, s.health); err != nil {
			return nil, err
		}
	}
	ctx, s.stop = context.WithCancel(ctx)
	if o.Addr != "" {
		if err := s.serve(ctx); err != nil {
			s.stop()
			return nil, err
		}
	}
	if beats != nil {
		s.running.Go(func() { beats.run(ctx) })
	}
	return s, nil
}

// Ready says that it is known of each database how it relates to its replica, and
// restored if need be: programs may begin to write. /readyz and the service manager
// are told.
func (s *Service) Ready() {
	if s.ready.Swap(true) {
		return
	}
	if err := notify("READY=1"); err != nil {
		s.o.Logger.Warn("the service manager can't be told that all is ready", "error", err)
	}
}

// Close lets answers under way come to their end until ctx does, and waits for all.
func (s *Service) Close(ctx context.Context) error {
	var err error
	if s.server != nil {
		if err = s.server.Shutdown(ctx); err != nil {
			err = fmt.Errorf("service: answers to %s were cut off: %w", s.addr, errors.Join(err, s.server.Close()))
		}
	}
	s.stop()
	s.running.Wait()
	return err
}

func (s *Service) health() Health { return judge(s.o.List(), s.o.MaxLag, s.o.clock.Now()) }

func (s *Service) serve(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.o.Addr)
	if err != nil {
		return fmt.Errorf("service: %q: %w: %w: choose another HOST:PORT (-addr, or addr in the configuration file)", s.o.Addr, ErrAddr, err)
	}
	s.addr = l.Addr().String()
	// A scrape takes milliseconds; who is slower than this is broken or hostile.
	s.server = &http.Server{
		Handler: s.handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.o.Logger.Handler(), slog.LevelDebug),
	}
	s.running.Go(func() {
		if err := s.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.o.Logger.Error("metrics and health are not served any more", "addr", s.addr, "error", err)
		}
	})
	s.running.Go(func() {
		<-ctx.Done()
		s.server.Close() //nolint:errcheck // Close has said it, or nobody waits
	})
	msg := "serving /metrics, /healthz, /readyz and /status"
	if a, ok := l.Addr().(*net.TCPAddr); ok && a.IP.IsUnspecified() {
		msg += " on all addresses of this machine"
	}
	s.o.Logger.Info(msg, "addr", s.addr)
	return nil
}

func (s *Service) handler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(metrics.NewCollector(s.o.List), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		h := s.health()
		code := http.StatusOK
		if len(h.Problems) > 0 {
			code = http.StatusServiceUnavailable
		}
		b, err := json.MarshalIndent(h, "", "  ")
		answer(w, code, b, err)
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		ready := s.ready.Load() && !slices.ContainsFunc(s.o.List(), func(st replicate.Status) bool {
			return st.State == replicate.StateFailed || st.State == replicate.StateFenced
		})
		code := http.StatusOK
		if !ready {
			code = http.StatusServiceUnavailable
		}
		b, err := json.Marshal(map[string]bool{"ready": ready})
		answer(w, code, b, err)
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		b, err := status.Document(s.began, s.o.List())
		answer(w, http.StatusOK, b, err)
	})
	return mux
}

func answer(w http.ResponseWriter, code int, document []byte, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(append(document, '\n')) // who doesn't want it any more is gone
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }
