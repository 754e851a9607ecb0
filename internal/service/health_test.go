package service

import (
	"strings"
	"testing"
	"time"

	"github.com/outwash/outwash/replicate"
)

func TestJudge(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	minutes := func(n int) time.Time { return now.Add(-time.Duration(n) * time.Minute) }
	for _, c := range []struct {
		name    string
		s       replicate.Status
		want    string // in the reason; "": none
		waiting int
	}{
		{"replicating", replicate.Status{State: replicate.StateReplicating, StateSince: minutes(600)}, "", 0},
		{"at the limit", replicate.Status{State: replicate.StateReplicating, LagSeconds: 300}, "", 0},
		{"behind", replicate.Status{State: replicate.StateReplicating, LagSeconds: 301}, "5m1s old", 0},
		{"fenced", replicate.Status{State: replicate.StateFenced, StateSince: now}, "another process", 0},
		{"failed", replicate.Status{State: replicate.StateFailed, StateSince: now}, "has stopped", 0},
		{"closed", replicate.Status{State: replicate.StateClosed, StateSince: now}, "has ended", 0},
		{"opening", replicate.Status{State: replicate.StateOpening, StateSince: minutes(5)}, "", 1},
		{"opening for long", replicate.Status{State: replicate.StateOpening, StateSince: minutes(6)}, "opening for 6m0s", 0},
		{"exporting for long", replicate.Status{State: replicate.StateExporting, StateSince: minutes(60)}, "exporting for 1h0m0s", 0},
		{"unreachable", replicate.Status{State: replicate.StateUnreachable, StateSince: minutes(1)}, "", 1},
		{"unreachable, and much waits", replicate.Status{State: replicate.StateUnreachable, StateSince: minutes(1), LagSeconds: 400}, "6m40s old", 0},
		{"unreachable for long", replicate.Status{State: replicate.StateUnreachable, StateSince: minutes(6)}, "unreachable for", 0},
		{"denied for long", replicate.Status{State: replicate.StateDenied, StateSince: minutes(6)}, "denied for", 0},
		{"unreachable, and nothing is known", replicate.Status{State: replicate.StateUnreachable, StateSince: now, AtLeast: true}, "can't tell what is not in the replica", 0},
		{"denied, and nothing is known", replicate.Status{State: replicate.StateDenied, StateSince: now, TXID: 4, AtLeast: true}, "can't tell what is not in the replica", 0},
		{"unreachable, and some is known to wait", replicate.Status{State: replicate.StateUnreachable, StateSince: now, LagSeconds: 20, AtLeast: true}, "", 1},
		{"opening, and nothing is known", replicate.Status{State: replicate.StateOpening, StateSince: now, AtLeast: true}, "", 1},
		{"unknown", replicate.Status{State: "resting"}, "", 1},
	} {
		c.s.Database, c.s.Error, c.s.Remedy = "/app.db", "e", "r"
		h := judge([]replicate.Status{c.s}, 5*time.Minute, now)
		if (len(h.Problems) > 0) != (c.want != "") || h.Waiting != c.waiting || h.Databases != 1 || (h.Status == "ok") != (c.want == "") {
			t.Errorf("%s: %+v", c.name, h)
			continue
		}
		if c.want == "" {
			continue
		}
		p := h.Problems[0]
		if !strings.Contains(p.Reason, c.want) || p.Database != "/app.db" || p.Error != "e" || p.Remedy != "r" || p.State != c.s.State {
			t.Errorf("%s: %+v", c.name, p)
		}
	}
	h := judge([]replicate.Status{{Database: "b", State: replicate.StateFailed}, {Database: "c", State: replicate.StateReplicating}, {Database: "a", State: replicate.StateFenced}}, time.Minute, now)
	if h.Databases != 3 || len(h.Problems) != 2 || h.Problems[0].Database != "a" {
		t.Errorf("%+v", h)
	}
}

// Every state is judged on purpose.
func TestJudgeStates(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, s := range replicate.States() {
		h := judge([]replicate.Status{{State: s, StateSince: now.Add(-time.Hour)}}, time.Minute, now)
		if (h.Status == "ok") != (s == replicate.StateReplicating) {
			t.Errorf("%s for an hour is %s", s, h.Status)
		}
	}
}
