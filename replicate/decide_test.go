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
	known := local.Lineage{Database: db, Sessions: []segment.ID{mine}, TXID: 9, Session: mine}
	foreign := local.Lineage{Database: other, Sessions: []segment.ID{mine}, TXID: 9}
	file := func(size int64, continues bool) Evidence {
		return Evidence{File: FilePresent, Size: size, Continues: continues, Found: "somewhere"}
	}
	missing := Evidence{File: FileMissing}
	spooled := Evidence{File: FileMissing, Continues: true, Spooled: 3}

	for _, c := range []struct {
		name string
		s    situation
		want action
		err  error
		says string
	}{
		{"unreachable, unknown", situation{unreachable: errors.New("x")}, actWait, nil, ""},
		{"unreachable, known", situation{unreachable: errors.New("x"), lineage: known}, actBacklog, nil, ""},

		{"nothing anywhere", situation{end: none, evidence: missing}, actEmpty, nil, ""},
		{"claims only, no file", situation{end: line(theirs, 2, 0), evidence: missing}, actEmpty, nil, ""},
		{"no file, line", situation{end: line(mine, 9, 5), lineage: known, evidence: missing}, actRefuse, ErrMissing, "outwash restore"},
		{"no file, may restore", situation{end: line(mine, 9, 5), lineage: known, evidence: missing, canRestore: true}, actRestore, nil, ""},
		{"no file, spool first", situation{end: line(mine, 9, 5), lineage: known, evidence: spooled, canRestore: true}, actDrain, nil, ""},
		{"no file, spool of an empty line", situation{end: none, evidence: spooled}, actDrain, nil, ""},

		{"small, new", situation{end: none, evidence: file(smallDatabase, false)}, actAdopt, nil, ""},
		{"large, new", situation{end: none, evidence: file(smallDatabase+1, false)}, actExport, nil, ""},
		{"claims only, large", situation{end: line(theirs, 3, 0), evidence: file(1<<30, false)}, actExport, nil, ""},
		{"empty line, all captured", situation{end: none, evidence: file(1<<30, true)}, actContinue, nil, ""},
		{"moved to another bucket", situation{end: none, lineage: foreign, evidence: file(1<<30, false)}, actExport, nil, ""},

		{"continues", situation{end: line(mine, 9, 5), lineage: known, evidence: file(1, true)}, actContinue, nil, ""},
		{"continues without lineage", situation{end: line(theirs, 9, 5), evidence: file(1, true)}, actContinue, nil, ""},
		{"continues another's tail", situation{end: line(theirs, 12, 5), lineage: known, evidence: file(1, true)}, actContinue, nil, ""},

		{"replica behind", situation{end: line(mine, 8, 5), lineage: known, evidence: file(1, true)}, actRefuse, ErrDiverged, "TXID 9"},
		{"replica empty behind", situation{end: none, lineage: known, evidence: file(1, false)}, actRefuse, ErrDiverged, "TXID 9"},

		{"changed uncaptured", situation{end: line(mine, 9, 5), lineage: known, evidence: file(1, false)}, actRefuse, ErrRepair, "outwash restore -force"},
		{"others went on", situation{end: line(theirs, 12, 5), lineage: known, evidence: file(1, false)}, actRefuse, ErrDiverged, "elsewhere"},
		{"own later session, P before it", situation{end: line(mine, 12, 5), lineage: known, evidence: file(1, false)}, actRefuse, ErrDiverged, "TXID 9"},
		{"another database", situation{end: line(theirs, 12, 5), lineage: foreign, evidence: file(1, false)}, actRefuse, ErrDiverged, "another path"},
		{"no lineage", situation{end: line(theirs, 12, 5), evidence: file(1, false)}, actRefuse, ErrDiverged, "somewhere"},

		{"unfinished export of ours", situation{end: base(line(mine, 9, 5)), lineage: known, evidence: file(1, false)}, actExport, nil, ""},
		{"unfinished export, same state", situation{end: base(line(theirs, 9, 5)), evidence: file(1, true)}, actExport, nil, ""},
		{"unfinished export of others", situation{end: base(line(theirs, 9, 5)), evidence: file(1, false)}, actRefuse, ErrDiverged, "elsewhere"},
		{"unfinished export, no file", situation{end: base(line(mine, 9, 5)), lineage: known, evidence: missing, canRestore: true}, actRefuse, ErrMissing, "no snapshot"},
	} {
		c.s.database, c.s.replica, c.s.small = "/data/app.db", "s3://bucket/app", smallDatabase
		got, err := decide(c.s)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v; expected %v, %v", c.name, got, err, c.want, c.err)
		}
		if err == nil {
			continue
		}
		for _, part := range []string{"replicate: ", c.says, "/data/app.db", "s3://bucket/app"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", c.name, err, part)
			}
		}
		if strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %q", c.name, err)
		}
	}
}
