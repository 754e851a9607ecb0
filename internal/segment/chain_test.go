package segment

import (
	"errors"
	"strings"
	"testing"
)

func TestFollows(t *testing.T) {
	prev := Header{
		Kind: KindLog, PageSize: 4096, Database: testDB, Session: testSession, MinTXID: 5, MaxTXID: 9,
		Post: 0xabc, Commit: 7, LastMono: 1000, WAL: WALPosition{Frame: 3},
	}
	chain := Hash{1, 2, 3}
	next := Header{
		Kind: KindLog, PageSize: 4096, Database: testDB, Session: testSession, MinTXID: 10, MaxTXID: 12,
		Pre: 0xabc, PreCommit: 7, FirstMono: 1000, PrevChain: chain,
	}
	claim := next
	claim.Claim, claim.Session, claim.WAL = true, ID{7}, prev.WAL
	whole := next
	whole.Replaces, whole.PageSize = true, 512
	for _, tc := range []struct {
		name string
		h    Header
		f    func(h, prev *Header, chain *Hash)
		want string // part of the error; empty: none
	}{
		{"next", next, nil, ""},
		{"claim", claim, nil, ""},
		{"other page size, whole", whole, nil, ""},
		{"other page size after nothing", next, func(h, p *Header, _ *Hash) { h.PageSize = 512; p.Commit, h.PreCommit = 0, 0 }, ""},
		{"gap", next, func(h, _ *Header, _ *Hash) { h.MinTXID = 11 }, "first TXID is 11, expected 10"},
		{"overlap", next, func(h, _ *Header, _ *Hash) { h.MinTXID = 9 }, "first TXID is 9, expected 10"},
		{"other database", next, func(h, _ *Header, _ *Hash) { h.Database[0]++ }, "database is 02"},
		{"splice", next, func(_, _ *Header, c *Hash) { c[0]++ }, "previous chain value is 010203"},
		{"other state", next, func(h, _ *Header, _ *Hash) { h.Pre++ }, "checksum before is 0000000000000abd"},
		{"other size", next, func(h, _ *Header, _ *Hash) { h.PreCommit++ }, "commit size before is 8, expected 7"},
		{"earlier", next, func(h, _ *Header, _ *Hash) { h.FirstMono = 999 }, "first time is 999, expected 1000 or later"},
		{"other page size", next, func(h, _ *Header, _ *Hash) { h.PageSize = 512 }, "page size is 512, expected 4096"},
		{"claim with other page size", claim, func(h, _ *Header, _ *Hash) { h.PageSize = 512 }, "page size is 512"},
		{"new session", next, func(h, _ *Header, _ *Hash) { h.Session[0]++ }, "begins with a claim"},
		{"claim elsewhere in the WAL", claim, func(h, _ *Header, _ *Hash) { h.WAL.Frame++ }, "WAL position of a claim"},
		{"snapshot", next, func(h, _ *Header, _ *Hash) { h.Kind = KindSnapshot }, "kind is snapshot"},
		{"after a snapshot", next, func(_, p *Header, _ *Hash) { p.Kind = KindSnapshot }, "kind of the segment before"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h, p, c := tc.h, prev, chain
			if tc.f != nil {
				tc.f(&h, &p, &c)
			}
			err := h.Follows(&p, c)
			if (err == nil) != (tc.want == "") || err != nil && (!strings.Contains(err.Error(), tc.want) || !errors.Is(err, ErrChain)) {
				t.Errorf("error %v, expected %q", err, tc.want)
			}
		})
	}
	if err := next.Follows(nil, Hash{}); !errors.Is(err, ErrChain) {
		t.Errorf("a line from TXID 10: %v", err)
	}
}
