// Package sidecar replicates databases that other programs write, with stock
// SQLite: capture, engine, and a guard that keeps the log's content until it is
// captured, without a connection of its own and without being in anybody's way.
//
//	watcher ─→ DB ─→ guard (locks)          program ─→ database, -wal, -shm
//	            ├──→ capture.DB ─→ entries
//	            └──→ replicate.Engine ─→ store
//
// # The guard
//
// It holds locks as SQLite's own processes do (fcntl's of the open file
// description, which conflict with theirs):
//
//	database file, 510 bytes from 0x40000002   SHARED: nobody's close is the last one, which would
//	                                           checkpoint and delete the log; nobody leaves WAL mode
//	-shm, byte 128 (DMS)   shared              the WAL-index is in use: nobody truncates it
//	-shm, byte 123+k       shared              read slot k, one of
//
//	  slot   with                          while it is held
//	  2..4   aReadMark[k] = 0xffffffff     the log is neither restarted nor truncated, for that takes all
//	         (READMARK_NOT_USED)           slots from 1 exclusively; it is backfilled freely, since
//	                                       checkpoints look at slots with a lower mark than mxFrame alone
//	  0                                    nothing is backfilled, for that takes slot 0 exclusively;
//	                                       so the log is restarted only as long as it is all in the file:
//	                                       what begins then stays, whole
//
// When all that is committed is captured, and in the database file, the guard goes
// from the slot above to slot 0, and applications restart and truncate the log as
// they like; when there are new frames it goes back, before it lets slot 0 go. At
// each moment one of both is held, so that nothing goes by unseen. Before slot 0 what
// the store hasn't acknowledged is made durable in the spool.
//
// The -shm has the salts and the end of the log (two copies, bytes 0 and 48),
// nBackfill at 96, aReadMark[k] at 100+4k, and the locks WRITE at byte 120, CKPT at
// 121. https://sqlite.org/walformat.html has all of it but the exact rules, which
// are SQLite's src/wal.c's (version 3.51: walTryBeginRead, walRestartLog,
// walRestartHdr, walCheckpoint); the tests prove them.
//
// PASSIVE and FULL checkpoints of the application complete at once, RESTART and
// TRUNCATE within milliseconds, by their busy handler; with a busy timeout of 0
// these two, and FULL right behind the first commit after a pause, can be answered
// busy. A writer that never pauses is met at the very end of its own checkpoints
// (chase); if that fails it is held for some milliseconds, by the WRITE lock,
// when the log has grown large. A log that nobody checkpoints is checkpointed (PASSIVE)
// by the sidecar.
//
// As long as the sidecar runs nobody can leave WAL mode, or have the database with
// EXCLUSIVE locking.
//
// # The code
//
// A DB lives in sessions (session_linux.go). One takes the guard before
// capture.DB.Evidence (start_linux.go), so that nothing is restarted between the
// evidence and Begin. step (follow_linux.go) looks at the WAL-index when the -wal was
// written, and by timer for as long as anybody has the WRITE or CKPT lock; relieve sees
// to logs that grow. capture.DB.LetGo runs while both slots are held: it captures, makes
// durable, and says that whatever generation of the log begins from here follows; Hold
// takes that back. Salts are no proof: SQLite may begin a truncated log with random ones.
//
// A [Manager] starts many databases, a few at a time, and closes them together. What a
// database needs only while something happens is in pools: zstd coders (package
// segment), buffers (package capture). What many have in common is in an objstore.Pool,
// which goes with the context of Open: s3store keeps HTTP client, credentials and a
// bound for writes there. So an idle one is four goroutines that nothing wakes, six open
// files and some 60 KB; TestIdleMany holds it to that.
package sidecar
