package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/outwash/outwash/internal/segment"
)

// report is what inspect finds out, as it is printed in JSON.
type report struct {
	Object   string         `json:"object"`
	Kind     string         `json:"kind"` // root, log, claim, pages, snapshot, data, spool
	Size     int64          `json:"size"`
	Problem  string         `json:"problem,omitempty"` // what is broken; empty: nothing
	Database string         `json:"database,omitempty"`
	Session  string         `json:"session,omitempty"`
	Created  *time.Time     `json:"created,omitempty"`
	Requires []string       `json:"requires,omitempty"`
	Header   *headerReport  `json:"header,omitempty"`
	Entries  []*entryReport `json:"entries,omitempty"`
	Frames   int            `json:"index_frames,omitempty"`
	Data     string         `json:"data,omitempty"` // key of the data object
	DataSize int64          `json:"data_size,omitempty"`
	Chain    string         `json:"chain,omitempty"`
	Verified []string       `json:"verified,omitempty"`
	PageSize uint32         `json:"page_size,omitempty"`
	Joins    int            `json:"joins,omitempty"` // in a spool
	TornTail int64          `json:"torn_tail,omitempty"`
}

type headerReport struct {
	MinTXID    uint64    `json:"min_txid"`
	MaxTXID    uint64    `json:"max_txid"`
	Pre        string    `json:"checksum_before"`
	Post       string    `json:"checksum_after"`
	PreCommit  uint64    `json:"pages_before"`
	MinCommit  uint64    `json:"pages_least"`
	Commit     uint64    `json:"pages_after"`
	From       time.Time `json:"from"`
	To         time.Time `json:"to"`
	WAL        *wal      `json:"wal,omitempty"`
	Entries    uint64    `json:"entries"`
	PrevChain  string    `json:"previous_chain"`
	Owner      string    `json:"owner,omitempty"`
	External   bool      `json:"external"`
	Replaces   bool      `json:"replaces,omitempty"`
	Extensions []string  `json:"extensions,omitempty"`
	Length     int       `json:"length"`
}

type wal struct {
	Salt     string `json:"salt"`
	Frame    uint64 `json:"frame"`
	Checksum string `json:"checksum"`
}

type entryReport struct {
	Kind      string        `json:"kind"`
	MinTXID   uint64        `json:"min_txid,omitempty"`
	MaxTXID   uint64        `json:"max_txid,omitempty"`
	From      time.Time     `json:"from"`
	To        time.Time     `json:"to"`
	Commit    uint64        `json:"pages_after"`
	MinCommit uint64        `json:"pages_least"`
	Checksum  string        `json:"checksum"`
	NeedsBase bool          `json:"needs_base,omitempty"`
	Whole     bool          `json:"whole,omitempty"`
	Pages     int           `json:"pages"`   // in its blocks
	Patched   int           `json:"patched"` // of these, in patch blocks
	Blocks    int           `json:"block_count"`
	Stored    int64         `json:"stored"`
	List      []blockReport `json:"blocks,omitempty"`
}

type blockReport struct {
	Offset int64        `json:"offset"`
	Stored uint32       `json:"stored"`
	Codec  string       `json:"codec"`
	Patch  bool         `json:"patch"`
	SHA256 string       `json:"sha256,omitempty"`
	Pages  []pageReport `json:"pages"`
}

type pageReport struct {
	No   uint64 `json:"page"`
	Hash string `json:"hash"`
}

func hex64(v uint64) string { return fmt.Sprintf("%016x", v) }

func reportWAL(p segment.WALPosition) *wal {
	if p == (segment.WALPosition{}) {
		return nil
	}
	return &wal{fmt.Sprintf("%08x%08x", p.Salt[0], p.Salt[1]), p.Frame, fmt.Sprintf("%08x%08x", p.Checksum[0], p.Checksum[1])}
}

func micros(us int64) time.Time { return time.UnixMicro(us).UTC() }

// setHeader fills in what a segment's header says.
func (r *report) setHeader(h *segment.Header) {
	r.Kind = h.Kind.String()
	if h.Claim {
		r.Kind = "claim"
	}
	r.Database, r.Session, r.PageSize = h.Database.String(), h.Session.String(), h.PageSize
	r.Header = &headerReport{
		MinTXID: h.MinTXID, MaxTXID: h.MaxTXID, Pre: hex64(h.Pre), Post: hex64(h.Post),
		PreCommit: h.PreCommit, MinCommit: h.MinCommit, Commit: h.Commit,
		From: micros(h.FirstMono), To: micros(h.LastMono), WAL: reportWAL(h.WAL),
		Entries: h.Entries, PrevChain: h.PrevChain.String(), External: h.External, Replaces: h.Replaces, Length: h.Length,
	}
	if h.Owner != nil {
		r.Header.Owner = fmt.Sprintf("%s (pid %d on %s, since %s)", printable(h.Owner.Program), h.Owner.PID,
			printable(h.Owner.Host), h.Owner.Since.UTC().Format(time.RFC3339))
	}
	for _, x := range h.Extensions {
		r.Header.Extensions = append(r.Header.Extensions, fmt.Sprintf("0x%04x (%d bytes)", x.Type, len(x.Value)))
	}
}

// addEntry adds an entry whose blocks follow by addBlock.
func (r *report) addEntry(e *segment.Entry) *entryReport {
	er := &entryReport{
		Kind: e.Kind.String(), MinTXID: e.MinTXID, MaxTXID: e.MaxTXID,
		From: micros(e.FirstMono), To: micros(e.LastMono), Commit: e.Commit, MinCommit: e.MinCommit,
		Checksum: hex64(e.Post), NeedsBase: e.NeedsBase, Whole: e.Whole,
	}
	r.Entries = append(r.Entries, er)
	return er
}

func (er *entryReport) addBlock(b *segment.Block, list bool) {
	er.Blocks++
	er.Pages += len(b.Pages)
	er.Stored += int64(b.Stored)
	if b.Base == segment.BasePatch {
		er.Patched += len(b.Pages)
	}
	if !list {
		return
	}
	codec := fmt.Sprintf("codec %d", b.Codec)
	switch b.Codec {
	case segment.CodecRaw:
		codec = "raw"
	case segment.CodecZstd:
		codec = "zstd"
	case segment.CodecZero:
		codec = "zero"
	}
	br := blockReport{Offset: b.Offset, Stored: b.Stored, Codec: codec, Patch: b.Base == segment.BasePatch}
	if b.Sum != (segment.Hash{}) {
		br.SHA256 = b.Sum.String()
	}
	for _, p := range b.Pages {
		br.Pages = append(br.Pages, pageReport{p.No, hex64(p.Hash)})
	}
	er.List = append(er.List, br)
}

// print shows the report to a person.
func (r *report) print(u *ui, long bool) {
	state := "intact"
	if r.Problem != "" {
		state = "BROKEN"
	}
	u.printf("%s: %s, %s bytes, %s\n", r.Object, describe(r.Kind), count(r.Size), state)
	pairs := []string{"problem", r.Problem, "database", r.Database, "session", r.Session}
	if h := r.Header; h != nil {
		w := ""
		if h.WAL != nil {
			w = fmt.Sprintf("salt %s, frame %d, checksum %s", h.WAL.Salt, h.WAL.Frame, h.WAL.Checksum)
		}
		note := ""
		if h.Replaces {
			note = "the state before is replaced whole"
		}
		pairs = append(pairs, "owner", h.Owner,
			"TXID", fmt.Sprintf("%s, in %s", span(fmt.Sprint(h.MinTXID), fmt.Sprint(h.MaxTXID)), plural(h.Entries, "entry", "entries")),
			"committed", span(moment(h.From), moment(h.To)),
			"checksum", h.Pre+" before, "+h.Post+" after",
			"database size", fmt.Sprintf("%s before, %s after, at least %s, of %d bytes", plural(h.PreCommit, "page", "pages"), count(h.Commit), count(h.MinCommit), r.PageSize),
			"note", note, "WAL position", w, "extensions", strings.Join(h.Extensions, ", "))
		if r.Kind == "pages" || r.Kind == "snapshot" {
			pairs = append(pairs, "log segment", fmt.Sprintf("%s, which ends with TXID %d", h.PrevChain, h.MaxTXID))
		} else {
			pairs = append(pairs, "follows", h.PrevChain)
		}
	}
	if r.Created != nil {
		pairs = append(pairs, "created", moment(*r.Created), "requires", strings.Join(r.Requires, ", "))
	}
	if r.Frames > 0 {
		pairs = append(pairs, "index", plural(r.Frames, "frame", "frames"))
	}
	if r.Data != "" {
		pairs = append(pairs, "blocks in", fmt.Sprintf("%s (%s)", r.Data, size(r.DataSize)))
	}
	if r.Kind == "spool" {
		pairs = append(pairs, "records", fmt.Sprintf("%s, %s", plural(len(r.Entries), "entry", "entries"), plural(r.Joins, "join", "joins")))
		if r.TornTail > 0 {
			pairs = append(pairs, "torn tail", fmt.Sprintf("%s, ignored: a crash interrupted its writing", size(r.TornTail)))
		}
	}
	u.fields("  ", append(pairs, "chain value", r.Chain, "verified", strings.Join(r.Verified, "; "))...)
	r.printEntries(u, long)
}

func (r *report) printEntries(u *ui, long bool) {
	if len(r.Entries) == 0 {
		return
	}
	u.printf("\n")
	var rows [][]string
	for _, e := range r.Entries {
		txid := "-"
		if e.MinTXID != 0 {
			txid = fmt.Sprint(e.MinTXID)
			if e.MaxTXID != e.MinTXID {
				txid += fmt.Sprintf("-%d", e.MaxTXID)
			}
		}
		kind := e.Kind
		if e.NeedsBase {
			kind += ", needs a snapshot"
		}
		rows = append(rows, []string{txid, kind, moment(e.To), count(e.Commit), count(e.Pages), count(e.Patched), count(e.Blocks), size(e.Stored), e.Checksum})
	}
	u.table("  ", []string{">TXID", "kind", "committed", ">size", ">changed", ">patched", ">blocks", ">stored", "checksum"}, rows)
	if !long {
		return
	}
	for _, e := range r.Entries {
		for _, b := range e.List {
			base := ""
			if b.Patch {
				base = " patch"
			}
			u.printf("\n  TXID %d, block at %d: %s%s, %d bytes, %s\n", e.MaxTXID, b.Offset, b.Codec, base, b.Stored, plural(len(b.Pages), "page", "pages"))
			if b.SHA256 != "" {
				u.printf("    sha256 %s\n", b.SHA256)
			}
			for _, p := range b.Pages {
				u.printf("    page %d hash %s\n", p.No, p.Hash)
			}
		}
	}
}

// span is a range, or the one thing that it consists of.
func span(from, to string) string {
	if from == to {
		return from
	}
	return from + " to " + to
}

func describe(kind string) string {
	switch kind {
	case "root":
		return "root of a replica"
	case "log":
		return "log segment"
	case "pages":
		return "page segment"
	case "data":
		return "data object"
	}
	return kind
}
