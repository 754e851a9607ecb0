package replicate

import (
	"errors"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/local"
	"github.com/outwash/outwash/internal/segment"
)

func TestDecide(t *testing.T) {
	db, other := segment.NewID(), segment.NewID()
	mine, theirs := segment.NewID(), segment.NewID()
	line := func(session segment.ID, txid uint64, commit uint64) lineEnd {
		return lineEnd{Tail: Tail{TXID: txid, Commit: commit, Checksum: 7, Database: db, Session: session}, header: &segment.Header{},
			owner: &Owner{Host: "elsewhere", PID: 4}}
	}
	none := lineEnd{Tail: Tail{Database: db}}
	base := func(e lineEnd) lineEnd { e.needsBase = true; return e }
	at := func(txid uint64, file, boot string) local.Position {
		return local.Position{TXID: txid, Checksum: 7, Session: mine, File: file, Boot: boot}
	}
	known := local.Lineage{Database: db, Sessions: []segment.ID{mine}, File: "f", Noted: at(9, "f", "now")}
	with := func(l local.Lineage, change func(*local.Lineage)) local.Lineage { change(&l); return l }
	durable := with(known, func(l *local.Lineage) { l.Durable, l.Noted = at(9, "f", ""), at(9, "f", "before") })
	rebooted := with(known, func(l *local.Lineage) { l.Noted = at(9, "f", "before") })
	ahead := with(durable, func(l *local.Lineage) { l.Durable.TXID, l.Noted.TXID = 11, 8 })
	old := local.Lineage{Database: db, Sessions: []segment.ID{mine}, TXID: 9, Checksum: 7, Session: mine}
	made := local.Lineage{Restored: local.Restored{Database: db, Position: local.Position{TXID: 12, Checksum: 7, Session: theirs, File: "f"}}}
	madeOver := with(known, func(l *local.Lineage) { l.Database, l.Restored = other, made.Restored })
	foreign := with(known, func(l *local.Lineage) { l.Database = other })
	file := func(size int64, continues bool) Evidence {
		return Evidence{File: FilePresent, Size: size, Continues: continues, Identity: "f", Found: "somewhere"}
	}
	scanned := Evidence{File: FilePresent, Size: 1, Identity: "f", Scanned: true, Checksum: 5, Commit: 3}
	put := scanned // another file took the name
	put.Identity = "g"
	missing := Evidence{File: FileMissing}
	spooled := Evidence{File: FileMissing, Continues: true, Spooled: 3}
	down := errors.New("x")

	const restore, adopt = "outwash restore -force -o /data/app.db s3://bucket/app", "outwash adopt /data/app.db s3://bucket/app"
	for _, c := range []struct {
		name string
		s    situation
		want action
		err  error
		says []string
	}{
		{"unreachable, unknown", situation{unreachable: down, evidence: file(1, false)}, actWait, nil, nil},
		{"unreachable, known", situation{unreachable: down, lineage: known, evidence: file(1, false)}, actBacklog, nil, nil},
		{"unreachable, known to an earlier version", situation{unreachable: down, lineage: old, evidence: file(1, false)}, actBacklog, nil, nil},
		{"unreachable, another file", situation{unreachable: down, lineage: known, evidence: put}, actWait, nil, nil},
		{"unreachable, no file", situation{unreachable: down, lineage: known, evidence: missing}, actWait, nil, nil},
		{"unreachable, in use", situation{unreachable: down, lineage: known, inUse: true}, actBacklog, nil, nil},

		{"replica behind", situation{end: line(mine, 8, 5), lineage: known, evidence: file(1, true)}, actAsk, ErrDiverged, []string{"TXID 8", "TXID 9", adopt}},
		{"replica empty behind", situation{end: none, lineage: known, evidence: file(1, false)}, actAsk, ErrDiverged, []string{"TXID 9"}},
		{"replica behind, earlier version", situation{end: line(mine, 8, 5), lineage: old, evidence: file(1, true)}, actAsk, ErrDiverged, []string{"TXID 9"}},
		{"replica behind, no file", situation{end: line(mine, 8, 5), lineage: known, evidence: missing, canRestore: true}, actRefuse, ErrDiverged, []string{"TXID 9"}},
		{"only the durable position ahead of the replica", situation{end: line(mine, 8, 5), lineage: ahead, evidence: file(1, true)}, actContinue, nil, nil},

		{"unfinished export of ours", situation{end: base(line(mine, 9, 5)), lineage: known, evidence: file(1, false)}, actExport, nil, nil},
		{"unfinished export, same state", situation{end: base(line(theirs, 9, 5)), evidence: file(1, true)}, actExport, nil, nil},
		{"unfinished export of others", situation{end: base(line(theirs, 9, 5)), evidence: file(1, false)}, actAsk, ErrDiverged, []string{"elsewhere", adopt}},
		{"unfinished export of ours, another file", situation{end: base(line(mine, 9, 5)), lineage: known, evidence: put}, actAsk, ErrDiverged, []string{adopt}},
		{"unfinished export, no file", situation{end: base(line(mine, 9, 5)), lineage: known, evidence: missing, canRestore: true}, actRefuse, ErrMissing, []string{"no snapshot"}},

		{"nothing anywhere", situation{end: none, evidence: missing}, actEmpty, nil, nil},
		{"claims only, no file", situation{end: line(theirs, 2, 0), evidence: missing}, actEmpty, nil, nil},
		{"file missing", situation{end: line(mine, 9, 5), lineage: known, evidence: missing}, actRefuse, ErrMissing, []string{"outwash restore -o /data/app.db s3://bucket/app"}},
		{"file missing, restore", situation{end: line(mine, 9, 5), lineage: known, evidence: missing, canRestore: true}, actRestore, nil, nil},
		{"file missing, restore, in use", situation{end: line(mine, 9, 5), lineage: known, evidence: missing, canRestore: true, inUse: true}, actRefuse, ErrMissing, nil},
		{"file missing, new machine", situation{end: line(theirs, 9, 5), evidence: missing, canRestore: true}, actRestore, nil, nil},
		{"file missing, spool", situation{end: line(mine, 9, 5), lineage: known, evidence: spooled, canRestore: true}, actDrain, nil, nil},
		{"file missing, spool, no restore", situation{end: line(mine, 9, 5), lineage: known, evidence: spooled}, actDrain, nil, nil},

		{"continues", situation{end: line(mine, 9, 5), lineage: known, evidence: file(1, true)}, actContinue, nil, nil},
		{"continues without lineage", situation{end: line(theirs, 9, 5), evidence: file(1, true)}, actContinue, nil, nil},
		{"continues another's tail", situation{end: line(theirs, 12, 5), lineage: known, evidence: file(1, true)}, actContinue, nil, nil},
		{"first contact, small", situation{end: none, evidence: file(smallDatabase, false)}, actAdopt, nil, nil},
		{"first contact, large", situation{end: none, evidence: file(smallDatabase+1, false)}, actExport, nil, nil},
		{"first contact, claims there", situation{end: line(theirs, 3, 0), evidence: file(1, false)}, actAdopt, nil, nil},

		{"changed uncaptured", situation{end: line(mine, 9, 5), lineage: known, evidence: scanned, searched: true}, actRepair, nil, nil},
		{"changed uncaptured, in use", situation{end: line(mine, 9, 5), lineage: known, evidence: scanned, inUse: true}, actRepair, nil, nil},
		{"changed uncaptured, durable", situation{end: line(mine, 9, 5), lineage: durable, evidence: scanned, searched: true}, actRepair, nil, nil},
		{"changed uncaptured, durable ahead", situation{end: line(mine, 10, 5), lineage: ahead, evidence: scanned, searched: true}, actRepair, nil, nil},
		{"changed uncaptured, power lost", situation{end: line(mine, 9, 5), lineage: rebooted, evidence: scanned, searched: true}, actAsk, ErrRepair, []string{"how far", restore, adopt, "another path"}},
		{"changed uncaptured, earlier version", situation{end: line(mine, 9, 5), lineage: old, evidence: scanned, searched: true}, actAsk, ErrRepair, []string{adopt}},
		{"changed uncaptured, P before it", situation{end: line(mine, 12, 5), lineage: known, evidence: scanned, searched: true}, actAsk, ErrRepair, []string{"TXID 12", "TXID 9"}},
		{"another file in its place", situation{end: line(mine, 9, 5), lineage: known, evidence: put, searched: true}, actAsk, ErrDiverged, []string{"another file", restore, adopt}},

		{"changed uncaptured, not searched for a stale copy", situation{end: line(mine, 9, 5), lineage: known, evidence: scanned}, actSearch, nil, nil},
		{"stale copy put over the file", situation{end: line(mine, 9, 5), lineage: known, evidence: scanned, searched: true, earlier: 6, canRestore: true}, actAsk, ErrDiverged, []string{"TXID 6", "TXID 9", restore, adopt}},
		{"not searched yet", situation{end: line(mine, 12, 5), lineage: known, evidence: scanned}, actSearch, nil, nil},
		{"not searched yet, stranger", situation{end: line(theirs, 12, 5), evidence: scanned}, actSearch, nil, nil},
		{"nothing to search for", situation{end: line(theirs, 12, 5), evidence: file(1, false)}, actAsk, ErrDiverged, nil},
		{"earlier position", situation{end: line(mine, 12, 5), lineage: known, evidence: scanned, searched: true, earlier: 6}, actAsk, ErrDiverged, []string{"TXID 6", "TXID 12", restore, adopt, "another path"}},
		{"earlier position, auto", situation{end: line(mine, 12, 5), lineage: known, evidence: scanned, searched: true, earlier: 6, canRestore: true}, actRestore, nil, nil},
		{"earlier position, auto, others went on", situation{end: line(theirs, 12, 5), lineage: known, evidence: scanned, searched: true, earlier: 6, canRestore: true}, actRestore, nil, nil},
		{"earlier position, auto, in use", situation{end: line(mine, 12, 5), lineage: known, evidence: scanned, searched: true, earlier: 6, canRestore: true, inUse: true}, actAsk, ErrDiverged, []string{"TXID 6"}},
		{"earlier position, auto, put there", situation{end: line(mine, 12, 5), lineage: known, evidence: put, searched: true, earlier: 6, canRestore: true}, actAsk, ErrDiverged, []string{"put here"}},
		{"earlier position, auto, no lineage", situation{end: line(mine, 12, 5), evidence: scanned, searched: true, earlier: 6, canRestore: true}, actAsk, ErrDiverged, []string{"TXID 6"}},
		{"earlier position, auto, lineage of another replica", situation{end: line(mine, 12, 5), lineage: foreign, evidence: scanned, searched: true, earlier: 6, canRestore: true}, actAsk, ErrDiverged, nil},

		{"others went on", situation{end: line(theirs, 12, 5), lineage: known, evidence: scanned, searched: true}, actAsk, ErrDiverged, []string{"elsewhere", "TXID 9", restore, adopt}},
		{"another database", situation{end: line(theirs, 12, 5), lineage: foreign, evidence: scanned, searched: true}, actAsk, ErrDiverged, []string{"another path", restore, adopt}},
		{"restored", situation{end: line(theirs, 12, 5), lineage: made, evidence: scanned}, actSearch, nil, nil},
		{"restored, changed", situation{end: line(theirs, 12, 5), lineage: made, evidence: scanned, searched: true}, actRepair, nil, nil},
		{"restored where another was replicated, changed", situation{end: line(theirs, 12, 5), lineage: madeOver, evidence: scanned, searched: true}, actRepair, nil, nil},
		{"restored, an older state was put over it", situation{end: line(theirs, 12, 5), lineage: made, evidence: scanned, searched: true, earlier: 6, canRestore: true}, actAsk, ErrDiverged, []string{"TXID 6"}},
		{"restored, another file", situation{end: line(theirs, 12, 5), lineage: made, evidence: put, searched: true}, actAsk, ErrDiverged, []string{"another one"}},
		{"restored, others went on", situation{end: line(theirs, 13, 5), lineage: made, evidence: scanned, searched: true}, actAsk, ErrDiverged, []string{"restored from the replica's TXID 12", "ends at TXID 13", "elsewhere", restore, adopt}},
		{"restored, unreachable", situation{unreachable: down, lineage: made, evidence: file(1, false)}, actWait, nil, nil},
		{"restored, the replica lost objects", situation{end: line(theirs, 11, 5), lineage: made, evidence: scanned, searched: true}, actAsk, ErrDiverged, nil},
		{"no lineage", situation{end: line(theirs, 12, 5), evidence: scanned, searched: true}, actAsk, ErrDiverged, []string{"0000000000000005", restore, adopt}},
	} {
		c.s.database, c.s.replica, c.s.small, c.s.boot = "/data/app.db", "s3://bucket/app", smallDatabase, "now"
		got, err := decide(c.s)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v; expected %v, %v", c.name, got, err, c.want, c.err)
		}
		if err == nil {
			continue
		}
		for _, part := range append(c.says, "replicate: ", "/data/app.db", "s3://bucket/app") {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", c.name, err, part)
			}
		}
		if strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %q", c.name, err)
		}
	}
}

func TestAdoption(t *testing.T) {
	full := lineEnd{Tail: Tail{Commit: 3}, header: &segment.Header{}}
	bare := full
	bare.needsBase = true
	for _, c := range []struct {
		name string
		end  lineEnd
		size int64
		want action
	}{
		{"empty line, small", lineEnd{}, 1, actAdopt},
		{"empty line, large", lineEnd{}, smallDatabase + 1, actExport},
		{"over content", full, smallDatabase + 1, actAdopt},
		{"over what has no base", bare, 1, actExport},
	} {
		s := situation{end: c.end, small: smallDatabase, evidence: Evidence{File: FilePresent, Size: c.size}}
		if got := s.adoption(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
