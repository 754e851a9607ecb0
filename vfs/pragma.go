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
// and refuses what would leave the ways that are captured.
func (f *mainFile) Pragma(name, value string) (string, error) {
	switch name {
	case "replicated_status":
		b, err := json.Marshal(f.db.status())
		return string(b), err
	case "replicated_sync":
		txid, err := f.db.sync(f.context())
		return strconv.FormatUint(txid, 10), err
	case "journal_mode":
		if value != "" && !strings.EqualFold(value, "wal") {
			return "", fmt.Errorf("vfs: journal_mode=%s is not replicated yet: keep journal_mode=wal", value)
		}
	case "locking_mode":
		if strings.EqualFold(value, "exclusive") {
			return "", fmt.Errorf("vfs: locking_mode=exclusive is not replicated yet: keep locking_mode=normal")
		}
	}
	return vfsutil.WrapPragma(f.File, name, value)
}
