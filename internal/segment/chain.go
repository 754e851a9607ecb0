package segment

import "fmt"

// Follows checks that h is the log segment after prev, whose chain value is
// prevChain. With a nil prev, h must begin the line. Errors wrap [ErrChain].
func (h *Header) Follows(prev *Header, prevChain Hash) error {
	fail := func(what string, got, want any) error {
		return fmt.Errorf("%w: TXID %d: %s is %v, expected %v", ErrChain, h.MinTXID, what, got, want)
	}
	if h.Kind != KindLog {
		return fail("kind", h.Kind, KindLog)
	}
	if prev == nil {
		if h.MinTXID != 1 {
			return fail("first TXID", h.MinTXID, 1)
		}
		return nil // the rest is in check
	}
	switch {
	case prev.Kind != KindLog:
		return fail("kind of the segment before", prev.Kind, KindLog)
	case h.Database != prev.Database:
		return fail("database", h.Database, prev.Database)
	case h.MinTXID != prev.MaxTXID+1:
		return fail("first TXID", h.MinTXID, prev.MaxTXID+1)
	case h.PrevChain != prevChain:
		return fail("previous chain value", h.PrevChain, prevChain)
	case h.Pre != prev.Post:
		return fail("checksum before", hex16(h.Pre), hex16(prev.Post))
	case h.PreCommit != prev.Commit:
		return fail("commit size before", h.PreCommit, prev.Commit)
	case h.FirstMono < prev.LastMono:
		return fail("first time", h.FirstMono, fmt.Sprintf("%d or later", prev.LastMono))
	case h.PageSize != prev.PageSize && !h.Replaces && (h.Claim || prev.Commit != 0):
		return fail("page size", h.PageSize, prev.PageSize)
	case h.Session != prev.Session && !h.Claim:
		return fail("session", h.Session, fmt.Sprintf("%v (a new session begins with a claim)", prev.Session))
	case h.Claim && h.WAL != prev.WAL:
		return fail("WAL position of a claim", h.WAL, prev.WAL)
	}
	return nil
}
