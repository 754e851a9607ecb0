package config

import (
	"slices"
	"strings"

	"github.com/outwash/outwash/internal/suggest"
)

// level is where a key may stand.
type level uint8

const (
	inFile level = 1 << iota
	inDB
	inReplica
)

func (l level) String() string {
	switch l {
	case inFile:
		return "the file"
	case inDB:
		return "a database"
	}
	return "a replica"
}

// class is what becomes of a key.
type class uint8

const (
	honoured class = iota // means here what it means to Litestream
	setting               // goes to the store, if that knows it
	ignored               // means nothing here, and nothing is lost without it
	refused               // would change where data goes, or what protects it
)

type key struct {
	name string
	in   level
	class
	note string // ignored: why; refused: what to write instead
}

const (
	everywhere = inFile | inReplica // settings: of all replicas, or of one
	noAzure    = "Azure Blob Storage is not supported: use an S3 bucket (type: s3), or a directory (type: file)"
	noSFTP     = "SFTP is not supported: use an S3 bucket (type: s3), or a directory (type: file) on a mounted server"
	noWebDAV   = "WebDAV is not supported: use an S3 bucket (type: s3), or a directory (type: file) on a mounted server"
	noNATS     = "NATS is not supported: use an S3 bucket (type: s3), or a directory (type: file)"
	noLevels   = "there are no compaction levels: history has pages-every and keep-log"
	afterwards = "what is too old goes after an upload"
	noPolling  = "commits are captured as they happen: nothing is polled"
	ownCheck   = "checkpoints stay the application's, which is never kept from one"
	beside     = "what is kept locally stands beside each database, in NAME-replicated"
)

// keys are those of Litestream's configuration files, and history. The first wins where a name
// means different things in different places.
//
// Sources: litestream.io/reference/config as of v0.3.13 and v0.5, and the fields of
// Config, DBConfig, ReplicaConfig and ReplicaSettings in Litestream v0.5.18.
var keys = []key{
	{"dbs", inFile, honoured, ""},
	{"addr", inFile, honoured, ""},
	{"mcp-addr", inFile, ignored, "there is no MCP server"},
	{"socket", inFile, honoured, ""},
	{"exec", inFile, honoured, ""},
	{"logging", inFile, honoured, ""},
	{"levels", inFile, ignored, noLevels},
	{"snapshot", inFile | inDB, honoured, ""},
	{"history", inFile | inDB, honoured, ""},
	{"validation", inFile, ignored, "a restore verifies every page"},
	{"l0-retention", inFile, ignored, noLevels},
	{"l0-retention-check-interval", inFile, ignored, noLevels},
	{"verify-compaction", inFile, ignored, noLevels},
	{"retention", inFile | inReplica, honoured, ""},
	{"heartbeat-url", inFile, honoured, ""},
	{"heartbeat-interval", inFile, honoured, ""},
	{"shutdown-timeout", inFile, ignored, "shutdown-sync-timeout says how long the end may take"},
	{"shutdown-sync-timeout", inFile, honoured, ""},
	{"shutdown-sync-interval", inFile, ignored, "uploads that fail are tried again after pauses that grow"},

	{"path", inDB | inReplica, honoured, ""},
	{"replica", inDB, honoured, ""},
	{"replicas", inDB, honoured, ""},
	{"restore-if-db-not-exists", inDB, honoured, ""},
	{"dir", inDB, honoured, ""},
	{"pattern", inDB, honoured, ""},
	{"recursive", inDB, honoured, ""},
	{"watch", inDB, honoured, ""},
	{"meta-dir", inDB, ignored, beside},
	{"meta-path", inDB, ignored, beside},
	{"monitor-interval", inDB, ignored, noPolling},
	{"checkpoint-interval", inDB, ignored, ownCheck},
	{"min-checkpoint-page-count", inDB, ignored, ownCheck},
	{"max-checkpoint-page-count", inDB, ignored, ownCheck},
	{"truncate-page-n", inDB, ignored, ownCheck},
	{"busy-timeout", inDB, ignored, "no lock is waited for that the application holds; its own timeout is its own"},
	{"max-sync-wal-bytes", inDB, ignored, "what is read at once has bounds of its own, and what waits is bounded by the spool"},

	{"type", inReplica, honoured, ""},
	{"url", inReplica, honoured, ""},
	{"bucket", everywhere, honoured, ""},
	{"name", inReplica, ignored, "a database has one replica"},
	{"sync-interval", everywhere, honoured, ""},
	{"validation-interval", everywhere, ignored, "a restore verifies every page"},
	{"retention-check-interval", inReplica, ignored, afterwards},
	{"snapshot-interval", inReplica, honoured, ""},
	{"max-sync-ltx-files", everywhere, ignored, noLevels},
	{"auto-recover", everywhere, ignored, "repair needs no leave, and never discards"},

	{"access-key-id", everywhere, setting, ""},
	{"secret-access-key", everywhere, setting, ""},
	{"region", everywhere, setting, ""},
	{"endpoint", everywhere, setting, ""},
	{"force-path-style", everywhere, setting, ""},
	{"sign-payload", everywhere, setting, ""},
	{"skip-verify", everywhere, setting, ""},
	{"storage-class", everywhere, setting, ""},
	{"part-size", everywhere, setting, ""},
	{"concurrency", everywhere, setting, ""},
	{"sse-customer-algorithm", everywhere, setting, ""},
	{"sse-customer-key", everywhere, setting, ""},
	{"sse-customer-key-path", everywhere, setting, ""},
	{"sse-kms-key-id", everywhere, setting, ""},
	{"sign-accept-encoding", everywhere, setting, ""},
	{"require-content-md5", everywhere, setting, ""},
	{"put-object-content-md5", everywhere, setting, ""},

	{"age", everywhere, refused, "age encryption is not supported, and leaving it out would store plain data: let the bucket encrypt (docs/encryption.md), then remove it"},
	{"account-name", everywhere, refused, noAzure},
	{"account-key", everywhere, refused, noAzure},
	{"sas-token", everywhere, refused, noAzure},
	{"host", everywhere, refused, noSFTP},
	{"user", everywhere, refused, noSFTP},
	{"password", everywhere, refused, noSFTP},
	{"key-path", everywhere, refused, noSFTP},
	{"concurrent-writes", everywhere, refused, noSFTP},
	{"host-key", everywhere, refused, noSFTP},
	{"webdav-url", everywhere, refused, noWebDAV},
	{"webdav-username", everywhere, refused, noWebDAV},
	{"webdav-password", everywhere, refused, noWebDAV},
	{"jwt", everywhere, refused, noNATS},
	{"seed", everywhere, refused, noNATS},
	{"creds", everywhere, refused, noNATS},
	{"nkey", everywhere, refused, noNATS},
	{"username", everywhere, refused, noNATS},
	{"token", everywhere, refused, noNATS},
	{"tls", everywhere, refused, noNATS},
	{"root-cas", everywhere, refused, noNATS},
	{"client-cert", everywhere, refused, noNATS},
	{"client-key", everywhere, refused, noNATS},
	{"max-reconnects", everywhere, refused, noNATS},
	{"reconnect-wait", everywhere, refused, noNATS},
	{"timeout", everywhere, refused, noNATS},
}

// replicaTypes are Litestream's that there are not here.
var replicaTypes = map[string]string{
	"abs":     noAzure,
	"sftp":    noSFTP,
	"webdav":  noWebDAV,
	"webdavs": noWebDAV,
	"nats":    noNATS,
	"gs":      "Google Cloud Storage is reached by its S3 protocol, with HMAC keys: write type: s3 and endpoint: https://storage.googleapis.com",
	"oss":     "Alibaba OSS is reached by its S3 protocol: write type: s3 and endpoint: https://s3.oss-REGION.aliyuncs.com",
}

// groups are settings that belong together: who gives one of them inherits none of
// the others, or a key would be paired with another one's secret.
var groups = [][]string{
	{"access-key-id", "secret-access-key", "session-token", "profile"},
	{"sse-customer-algorithm", "sse-customer-key", "sse-customer-key-path"},
}

func findKey(name string, at level) *key {
	for i := range keys {
		if keys[i].name == name && keys[i].in&at != 0 {
			return &keys[i]
		}
	}
	return nil
}

// unknownKey says what is wrong with a key that may not stand where it does.
func unknownKey(name string, at level, more []string) string {
	for _, k := range keys {
		if k.name == name {
			return name + " is no key of " + at.String() + ": it belongs to " + k.in.where()
		}
	}
	names := slices.Clone(more)
	for _, k := range keys {
		if k.in&at != 0 {
			names = append(names, k.name)
		}
	}
	msg := "unknown key"
	if plainKey.MatchString(name) {
		msg += " " + name
	}
	if n := suggest.Nearest(strings.ReplaceAll(strings.ToLower(name), "_", "-"), names); n != "" {
		msg += ": did you mean " + n + "?"
	}
	return msg
}

func (l level) where() string {
	var list []string
	for _, one := range []level{inFile, inDB, inReplica} {
		if l&one != 0 {
			list = append(list, map[level]string{inFile: "the file's top", inDB: "an entry of dbs", inReplica: "a replica"}[one])
		}
	}
	return strings.Join(list, " or ")
}
