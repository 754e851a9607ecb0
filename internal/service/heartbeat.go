package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/outwash/outwash/replicate"
)

const (
	// heartbeatTimeout bounds one request, as with Litestream (DefaultHeartbeatTimeout
	// in v0.5.18's heartbeat.go).
	heartbeatTimeout = 30 * time.Second
	// When one was not sent it is tried again: soon, then less and less.
	heartbeatFirst = time.Second
	heartbeatAgain = 15 * time.Second
)

// heartbeat asks a URL at an interval, while every database replicates and none is
// behind: who waits for it gives the alarm when it stays away, whatever the reason is.
type heartbeat struct {
	url      *url.URL
	interval time.Duration
	client   *http.Client
	clock    replicate.Clock
	health   func() Health
	log      *slog.Logger

	trouble string // what was told last; "": all is well
}

// newHeartbeat's errors don't show the URL, which often has a secret in its path.
func newHeartbeat(o Options, health func() Health) (*heartbeat, error) {
	u, err := url.Parse(o.HeartbeatURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("service: the heartbeat URL (heartbeat-url) must begin with http:// or https:// and name a host")
	}
	interval := o.HeartbeatInterval
	if interval <= 0 {
		interval = DefaultHeartbeat
	}
	return &heartbeat{url: u, interval: interval, clock: o.clock, health: health, log: o.Logger.With("host", u.Hostname()),
		client: &http.Client{Timeout: heartbeatTimeout}}, nil
}

// run sends heartbeats until ctx ends.
func (h *heartbeat) run(ctx context.Context) {
	again := heartbeatFirst
	for {
		wait := h.interval
		if h.beat(ctx) {
			again = heartbeatFirst
		} else {
			wait, again = min(wait, again), min(2*again, heartbeatAgain)
		}
		select {
		case <-ctx.Done():
			return
		case <-h.clock.After(wait):
		}
	}
}

// beat sends one, if all is well, and reports whether it got through. What keeps it
// from that is logged when it changes.
func (h *heartbeat) beat(ctx context.Context) bool {
	health := h.health()
	trouble, level, about := "", slog.LevelWarn, []any{}
	switch {
	case len(health.Problems) > 0:
		p := health.Problems[0]
		trouble, about = "heartbeats are not sent: a database is not replicated as it should be", []any{"database", p.Database, "reason", p.Reason, "databases", len(health.Problems)}
	case health.Waiting > 0:
		trouble, level = "heartbeats begin when every database is replicating", slog.LevelInfo
	default:
		if err := h.send(ctx); err != nil {
			if ctx.Err() != nil {
				return false
			}
			trouble, about = "a heartbeat failed, trying on", []any{"error", h.hide(err)}
		}
	}
	if trouble != h.trouble {
		h.trouble = trouble
		if trouble == "" {
			h.log.Info("heartbeats are sent")
		} else {
			h.log.Log(ctx, level, trouble, about...)
		}
	}
	return trouble == ""
}

func (h *heartbeat) send(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "outwash")
	resp, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the server answers %s", resp.Status)
	}
	return nil
}

// hide leaves out what of an error might have to be kept secret: all of the URL but
// its host.
func (h *heartbeat) hide(err error) string {
	var ue *url.Error
	for errors.As(err, &ue) {
		err = ue.Err
	}
	text := err.Error()
	for _, part := range []string{strings.Trim(h.url.EscapedPath(), "/"), strings.Trim(h.url.Path, "/"), h.url.RawQuery, h.url.User.String()} {
		if part != "" && strings.Contains(text, part) {
			return "the request failed (what the error says has parts of the URL in it, which may be secret)"
		}
	}
	return text
}
