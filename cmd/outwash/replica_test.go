package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/outwash/outwash/internal/objstore"
	"github.com/outwash/outwash/internal/segment"
)

// replicaBuilder makes a replica of which everything is known, without the
// engine: the same each time but for its page contents, which SQLite makes.
//
//	TXID  1       claim of the first session
//	      2 …  6  transactions; snapshot of 6, inline
//	      7 …  9  transactions; snapshot of 9, in a data object; pages of 7 to 9
//	     10, 11   transactions
//	     12       claim of the second session
//	     13       transaction
//
// TXID n was committed n seconds after replicaStart, and after it table t has
// the numbers 2 to n (without those of claims). Variants: "custom" has an index
// that needs its application's collation, "malformed" is no sound database after
// TXID 13, which the replica has faithfully; in "large" the page segment has a data
// object, too.
type replicaBuilder struct {
	variant   string
	store     objstore.Store
	file      string
	db        *sqlite3.Conn
	enc       *segment.BlockEncoder
	state     []byte
	sum       uint64
	txid      uint64
	session   segment.ID
	prev      segment.Hash               // chain value
	changedBy map[uint64]map[uint64]bool // pages, by TXID
	states    map[uint64]replicaState    // by TXID
}

type replicaState struct{ sum, size uint64 }

const replicaPage = 4096

var (
	replicaStart = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	replicaID    = segment.ID{0xdb, 1}
	replicaOwner = &segment.Owner{Host: "host.example", PID: 42, Program: "app", Since: replicaStart}
)

// buildReplica makes the replica in dir.
func buildReplica(dir, variant string) (err error) {
	work, err := os.MkdirTemp("", "replica-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	b := &replicaBuilder{
		variant: variant, file: filepath.Join(work, "db"), enc: segment.NewBlockEncoder(), changedBy: map[uint64]map[uint64]bool{}, states: map[uint64]replicaState{},
	}
	if b.store, err = objstore.NewFile(dir); err != nil {
		return err
	}
	if b.db, err = sqlite3.Open(b.file); err != nil {
		return err
	}
	defer b.db.Close()
	if err := b.db.CreateCollation("custom", bytes.Compare); err != nil {
		return err
	}
	if err := b.db.Exec(`PRAGMA journal_mode = delete; PRAGMA page_size = 4096`); err != nil {
		return err
	}
	root, err := segment.MarshalReplicaInfo(segment.ReplicaInfo{Database: replicaID, Created: replicaStart})
	if err != nil {
		return err
	}
	if err := b.create(segment.InfoKey, root); err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return b.claim(segment.ID{0xa1}) },
		func() error { return b.log(5) },
		func() error { return b.snapshot(false) },
		func() error { return b.log(3) },
		func() error { return b.snapshot(true) },
		func() error { return b.pages(7, 9) },
		func() error { return b.log(2) },
		func() error { return b.claim(segment.ID{0xa2}) },
		func() error { return b.log(1) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (b *replicaBuilder) create(key string, data []byte) error {
	return b.store.Create(context.Background(), key, data)
}

func (b *replicaBuilder) size() uint64 { return uint64(len(b.state)) / replicaPage }

func (b *replicaBuilder) header(kind segment.Kind, txid uint64) segment.Header {
	return segment.Header{
		Kind: kind, PageSize: replicaPage, Database: replicaID, Session: b.session,
		MinTXID: txid, PrevChain: b.prev, Owner: replicaOwner,
	}
}

func replicaTime(txid uint64) int64 {
	return replicaStart.Add(time.Duration(txid) * time.Second).UnixMicro()
}

func (b *replicaBuilder) claim(session segment.ID) error {
	b.txid++
	b.session = session
	h := b.header(segment.KindLog, b.txid)
	h.Pre, h.PreCommit, h.LastMono = b.sum, b.size(), replicaTime(b.txid)
	obj, chain, err := segment.EncodeClaim(h)
	if err != nil {
		return err
	}
	b.prev = chain
	return b.create(segment.LogKey(b.txid), obj)
}

// log makes n transactions in one log segment.
func (b *replicaBuilder) log(n int) error {
	h := b.header(segment.KindLog, b.txid+1)
	var entries []*segment.Entry
	for range n {
		b.txid++
		sql := fmt.Sprintf(`INSERT INTO t VALUES (%d, hex(zeroblob(3000)))`, b.txid)
		if b.txid == 2 {
			sql = `CREATE TABLE t(n INTEGER PRIMARY KEY, filler TEXT);` + sql
			if b.variant == "custom" {
				sql += `; CREATE TABLE c(a TEXT COLLATE custom); CREATE INDEX ci ON c(a); INSERT INTO c VALUES ('x'), ('y')`
			}
		}
		if err := b.db.Exec(`BEGIN;` + sql + `;COMMIT`); err != nil {
			return err
		}
		e, err := b.entry()
		if err != nil {
			return err
		}
		entries = append(entries, e)
	}
	obj, chain, err := segment.Encode(h, entries)
	if err != nil {
		return err
	}
	b.prev = chain
	return b.create(segment.LogKey(h.MinTXID), obj)
}

// entry says what the last transaction changed.
func (b *replicaBuilder) entry() (*segment.Entry, error) {
	now, err := os.ReadFile(b.file)
	if err != nil {
		return nil, err
	}
	if b.variant == "malformed" && b.txid == 13 {
		now[replicaPage] = 0xee // the type of a page of table t
	}
	at := replicaTime(b.txid)
	e := &segment.Entry{
		Kind: segment.Transaction, PageSize: replicaPage, Count: 1, Pre: b.sum, PreCommit: b.size(),
		FirstMono: at, LastMono: at, FirstRaw: at, LastRaw: at,
	}
	var body []byte
	b.changedBy[b.txid] = map[uint64]bool{}
	for no := uint64(1); no <= uint64(len(now))/replicaPage; no++ {
		page := now[(no-1)*replicaPage : no*replicaPage]
		var old []byte
		if no <= b.size() {
			old = b.state[(no-1)*replicaPage : no*replicaPage]
			if bytes.Equal(page, old) {
				continue
			}
			b.sum ^= segment.PageHash(no, old)
		}
		b.sum ^= segment.PageHash(no, page)
		b.changedBy[b.txid][no] = true
		blk, stored := b.block(no, page, old)
		e.Blocks, body = append(e.Blocks, blk), append(body, stored...)
	}
	b.state = now
	b.states[b.txid] = replicaState{b.sum, b.size()}
	e.Post, e.Commit, e.MinCommit, e.Body = b.sum, b.size(), b.size(), segment.BytesBody(body)
	return e, nil
}

func (b *replicaBuilder) block(no uint64, page, old []byte) (segment.Block, []byte) {
	stored, codec, base := b.enc.Encode(nil, page, old)
	return segment.Block{
		Codec: codec, Base: base, Stored: uint32(len(stored)),
		Pages: []segment.Page{{No: no, Hash: segment.PageHash(no, page)}},
	}, stored
}

// whole is an entry of pages that stand alone.
func (b *replicaBuilder) whole(kind segment.EntryKind, first uint64, want func(no uint64) bool) (*segment.Entry, []byte) {
	e := &segment.Entry{
		Kind: kind, PageSize: replicaPage, Count: b.txid - first + 1,
		Commit: b.size(), MinCommit: b.size(), Post: b.sum,
		FirstMono: replicaTime(first), LastMono: replicaTime(b.txid), FirstRaw: replicaTime(first), LastRaw: replicaTime(b.txid),
	}
	var body []byte
	for no := uint64(1); no <= b.size(); no++ {
		if want(no) {
			blk, stored := b.block(no, b.state[(no-1)*replicaPage:no*replicaPage], nil)
			e.Blocks, body = append(e.Blocks, blk), append(body, stored...)
		}
	}
	e.Body = segment.BytesBody(body)
	return e, body
}

func (b *replicaBuilder) snapshot(external bool) error {
	e, body := b.whole(segment.Snapshot, 1, func(uint64) bool { return true })
	name := segment.ID{}
	if external {
		name = segment.ID{0xda, 1}
	}
	return b.export(b.header(segment.KindSnapshot, 1), segment.SnapshotKey(b.txid, b.sum), e, body, name)
}

// export creates a snapshot or page segment, with its blocks in the data object of
// this name if it has one.
func (b *replicaBuilder) export(h segment.Header, key string, e *segment.Entry, body []byte, name segment.ID) error {
	if name.IsZero() {
		obj, _, err := segment.Encode(h, []*segment.Entry{e})
		if err != nil {
			return err
		}
		return b.create(key, obj)
	}
	var data bytes.Buffer
	w := segment.NewDataWriter(&data, segment.DataHeader{Name: name, Kind: h.Kind, PageSize: replicaPage, Database: replicaID, Session: b.session})
	for _, blk := range e.Blocks {
		if err := w.WriteBlock(blk, body[:blk.Stored]); err != nil {
			return err
		}
		body = body[blk.Stored:]
	}
	if err := w.EndEntry(e); err != nil {
		return err
	}
	root, err := w.Close()
	if err != nil {
		return err
	}
	obj, _, err := segment.EncodeExternal(h, []*segment.Entry{e}, root)
	if err != nil {
		return err
	}
	if err := b.create(segment.DataKey(name), data.Bytes()); err != nil {
		return err
	}
	return b.create(key, obj)
}

// pages makes the page segment of first to last, which is the newest TXID.
func (b *replicaBuilder) pages(first, last uint64) error {
	e, body := b.whole(segment.Pages, first, func(no uint64) bool {
		for txid := first; txid <= last; txid++ {
			if b.changedBy[txid][no] {
				return true
			}
		}
		return false
	})
	e.Pre, e.PreCommit = b.states[first-1].sum, b.states[first-1].size
	e.MinCommit = b.states[first].size // tables only grow here
	name := segment.ID{}
	if b.variant == "large" {
		name = segment.ID{0xda, 2}
	}
	return b.export(b.header(segment.KindPages, first), segment.PagesKey(first, last, b.sum), e, body, name)
}
