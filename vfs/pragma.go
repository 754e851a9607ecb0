package vfs

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/ncruces/go-sqlite3/util/vfsutil"
)

// Pragma answers
//
//	PRAGMA replicated_status  the database's replicate.Status as JSON
//	PRAGMA replicated_sync    waits as Sync does; the TXID
//
// and holds back what would lock replication out before it has begun.
func (f *mainFile) Pragma(name, value string) (string, error) {
	switch name {
	case "key", "hexkey", "textkey":
		return "", fmt.Errorf("vfs: PRAGMA %s: the key of a replicated database must be in the DSN, because other connections read the database, too; %s", name, stackAdvice)
	case "replicated_status":
		b, err := json.Marshal(f.db.status())
		return string(b), err
	case "replicated_sync":
		txid, err := f.db.sync(f.context())
		return strconv.FormatUint(txid, 10), err
	case "locking_mode":
		if strings.EqualFold(value, "exclusive") {
			if err := f.db.awaitLive(f.context()); err != nil {
				return "", fmt.Errorf("vfs: locking_mode=exclusive must wait until replication has begun (a first snapshot and a repair read the database by a connection of their own): %w", err)
			}
		}
	case "journal_mode":
		if value != "" && !strings.EqualFold(value, "wal") {
			// Leaving WAL mode checkpoints under EXCLUSIVE, where refusing is an
			// I/O error (see Size), and nobody else can look at the database.
			f.db.capture.AwaitDecision()
		}
	}
	return vfsutil.WrapPragma(f.File, name, value)
}
