// Package replicate carries a database's commits into an object store and back.
//
// An [Engine] takes entries from a [Source], puts them into log segments and
// creates those, one after the other, in a [Store]. [Restore] rebuilds the
// database from the store at any transaction, [ReadHistory] says which there are.
// While it writes, an engine condenses the replica and deletes what is too old, as
// [Keep] says; [WriteSnapshot] and [Prune] do that where none runs, and [Verify]
// checks the whole.
//
//	Source --entries--> Engine --log/<TXID>--> Store --> Restore --> file
//
// The key of a log segment is the transaction (TXID) it begins with, and a
// segment is created only if its key is free. Of two writers that extend one
// replica exactly one succeeds; the other gets [ErrFenced].
//
// The package knows nothing of SQLite's files and of S3: see packages vfs and
// s3store. The format of the objects is docs/FORMAT.md.
package replicate
