package replicate

import (
	"strings"
	"testing"
)

// Where something is lost, no finding says that everything can be restored: of two
// objects that each suffice only one has what is lost.
func TestVerifyCostBesideOthers(t *testing.T) {
	beside := &Finding{Kind: FindingMissing, Key: "data/x"}
	if s := costOf(beside, false); !strings.Contains(s, "everything that the replica promises can be restored") {
		t.Error(s)
	}
	if s := costOf(beside, true); strings.Contains(s, "everything") {
		t.Error(s)
	}
	lost := &Finding{Kind: FindingDamaged, Key: "snapshot/x", Lost: []TXIDs{{43, 50}}}
	if s := costOf(lost, true); s != "can't be restored: TXID 43 to 50" {
		t.Error(s)
	}
}
