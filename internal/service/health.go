package service

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/outwash/outwash/replicate"
)

// DefaultMaxLag is how far replication may be behind before health fails.
const DefaultMaxLag = 5 * time.Minute

// Health says whether all databases are replicated as they should be. It is the
// document of /healthz.
type Health struct {
	Status        string    `json:"status"` // "ok" or "failing"
	Time          time.Time `json:"time"`
	MaxLagSeconds float64   `json:"max_lag_seconds"`
	Databases     int       `json:"databases"` // all there are
	// Waiting counts databases that are not replicating, but for less time than
	// MaxLagSeconds.
	Waiting  int       `json:"waiting"`
	Problems []Problem `json:"problems"` // by database
}

// Problem says what is wrong with a database.
type Problem struct {
	Database   string          `json:"database"`
	Replica    string          `json:"replica"`
	State      replicate.State `json:"state"`
	LagSeconds float64         `json:"lag_seconds"`
	Reason     string          `json:"reason"`
	Error      string          `json:"error,omitempty"`
	Remedy     string          `json:"remedy,omitempty"`
}

// judge decides. What replication can't get out of by itself is a problem at once;
// what it can, such as a store that doesn't answer, only after maxLag, unless it can't even
// be told how far replication is behind.
func judge(list []replicate.Status, maxLag time.Duration, now time.Time) Health {
	h := Health{Status: "ok", Time: now.UTC(), MaxLagSeconds: maxLag.Seconds(), Databases: len(list), Problems: []Problem{}}
	for i := range list {
		s := &list[i]
		reason := problem(s, maxLag, now)
		if reason == "" && s.State != replicate.StateReplicating {
			h.Waiting++
		}
		if reason != "" {
			h.Problems = append(h.Problems, Problem{s.Database, s.Replica, s.State, s.LagSeconds, reason, s.Error, s.Remedy})
		}
	}
	slices.SortStableFunc(h.Problems, func(a, b Problem) int { return cmp.Compare(a.Database, b.Database) })
	if len(h.Problems) > 0 {
		h.Status = "failing"
	}
	return h
}

func problem(s *replicate.Status, maxLag time.Duration, now time.Time) string {
	switch {
	case s.State == replicate.StateFenced:
		return "another process extended the replica: commits of this one don't reach it any more"
	case s.State == replicate.StateFailed:
		return "replication has stopped"
	case s.State == replicate.StateClosed:
		return "replication has ended"
	case s.LagSeconds > maxLag.Seconds():
		return fmt.Sprintf("the oldest commit that is not in the replica is %s old", seconds(s.LagSeconds))
	case s.State == replicate.StateReplicating:
		return ""
	case s.AtLeast && s.LagSeconds == 0 && (s.State == replicate.StateUnreachable || s.State == replicate.StateDenied):
		return fmt.Sprintf("%s, and this machine can't tell what is not in the replica", s.State)
	case !s.StateSince.IsZero() && now.Sub(s.StateSince) > maxLag:
		return fmt.Sprintf("%s for %s", s.State, seconds(now.Sub(s.StateSince).Seconds()))
	}
	return ""
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second)).Round(time.Second)
}
