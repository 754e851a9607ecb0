package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// The workload: a register of packages with two indexes, of which transactions
// insert one, count a download, or publish an update. Rows are made up, the same
// ones each time.

const schema = `
	CREATE TABLE pkg(id INTEGER PRIMARY KEY, name TEXT UNIQUE, summary TEXT, updated TEXT, downloads INT);
	CREATE INDEX pkg_up ON pkg(updated);
	CREATE TABLE doc(id INTEGER PRIMARY KEY, body TEXT);`

var words = strings.Fields(`
	a the for and of to in with library simple react node api data based server
	web file plugin typescript javascript tool client package component json
	generate module utility fast using from parser css wrapper framework build
	that type test template html support http command line interface create
	async function application lightweight form express code custom config
	vue angular stream your you is on by as an it implementation manager
	graphql database string error handler style schema promise object query
	helper loader webpack browser cloud storage event small easy an app
	configuration project format native map list value text validation
	markdown image editor convert language user date time list tree cache
	token key model service request response route middleware security
	authentication session cookie password encrypt hash random number math
	array sort search filter index match pattern expression regular compile
	render view page layout grid table chart canvas color theme icon font
	animation mobile device screen touch mouse keyboard shortcut menu dialog
	button input select option check upload download progress notification
	message queue worker thread process shell terminal log debug trace
	monitor metric report dashboard analytics statistics sample benchmark
	memory buffer binary encode decode compress archive zip backup sync
	replicate transaction commit lock shared exclusive checkpoint journal
	snapshot restore version history change diff patch merge branch release
	tag publish register install update upgrade remove dependency license
	author contributor documentation example tutorial guide reference manual
	question answer issue ticket comment review discuss community support
	contact address street city country region timezone locale currency
	price order invoice payment customer product catalog category brand
	stock delivery shipping discount campaign newsletter mail sender inbox`)

// text makes words up, the first ones more often.
type text struct{ *rand.Rand }

func newText(seed uint64) text { return text{rand.New(rand.NewPCG(seed, 20240229))} }

func (t text) word() string {
	f := t.Float64()
	return words[int(f*f*f*float64(len(words)))]
}

// appendWords appends n words, now and then a number, a version or an identifier.
func (t text) appendWords(b []byte, n int) []byte {
	for i := range n {
		if i > 0 {
			b = append(b, ' ')
		}
		switch t.IntN(24) {
		case 0:
			b = strconv.AppendInt(b, t.Int64N(100_000), 10)
		case 1:
			b = fmt.Appendf(b, "v%d.%d.%d", t.IntN(9), t.IntN(20), t.IntN(30))
		case 2:
			b = strconv.AppendUint(b, t.Uint64N(1<<32), 16)
		default:
			b = append(b, t.word()...)
			if t.IntN(6) == 0 {
				b = append(b, [...]string{"s", "ed", "ing", "er"}[t.IntN(4)]...)
			}
		}
	}
	return b
}

func (t text) summary() string {
	b := t.appendWords(nil, 5+t.IntN(10))
	return strings.ToUpper(string(b[:1])) + string(b[1:])
}

// name is unique for each i.
func (t text) name(i int) string {
	return t.word() + "-" + t.word() + "-" + strconv.FormatInt(int64(i), 36)
}

func (t text) updated() string {
	return time.Date(2022, 1, 1, 0, 0, t.IntN(2*365*86400), t.IntN(1000)*1e6, time.UTC).Format("2006-01-02T15:04:05.000Z")
}

func (t text) body() string { return string(t.appendWords(nil, 150+t.IntN(300))) }

// build makes a database of rows, and of documents until it has that many bytes.
type buildArgs struct {
	Database string `json:"database"`
	Rows     int    `json:"rows"`
	Bytes    int64  `json:"bytes"`
}

var buildTask = task("build", func(ctx context.Context, a buildArgs) (_ struct{}, err error) {
	c, err := sqlite3.Open("file:" + a.Database + "?_pragma=synchronous(off)&_pragma=journal_mode(wal)&_pragma=cache_size(-65536)")
	if err != nil {
		return struct{}{}, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.Exec(schema + "; BEGIN"); err != nil {
		return struct{}{}, err
	}
	t := newText(1)
	pkg, err := prepare(c, `INSERT INTO pkg(name, summary, updated, downloads) VALUES (?, ?, ?, ?)`)
	if err != nil {
		return struct{}{}, err
	}
	defer pkg.Close()
	for i := range a.Rows {
		if err := pkg.exec(t.name(i), t.summary(), t.updated(), t.IntN(1e6)); err != nil {
			return struct{}{}, err
		}
	}
	doc, err := prepare(c, `INSERT INTO doc(body) VALUES (?)`)
	if err != nil {
		return struct{}{}, err
	}
	defer doc.Close()
	for n := 0; a.Bytes > 0; n++ {
		if n%1000 == 0 {
			if err := c.Exec("COMMIT; BEGIN"); err != nil {
				return struct{}{}, err
			}
			pages, err := number(c, "PRAGMA page_count")
			if err != nil || int64(pages)*4096 >= a.Bytes || ctx.Err() != nil {
				return struct{}{}, errors.Join(err, ctx.Err(), c.Exec("COMMIT"))
			}
		}
		if err := doc.exec(t.body()); err != nil {
			return struct{}{}, err
		}
	}
	return struct{}{}, c.Exec("COMMIT")
})

// template returns a database to copy, which is made at first use.
func (b *bench) template(ctx context.Context, path *string, bytes int64) (string, error) {
	if *path != "" {
		return *path, nil
	}
	b.say("  making a database …")
	p := filepath.Join(b.dir, fmt.Sprintf("template-%d.db", bytes))
	if _, err := buildTask(ctx, b, buildArgs{p, b.sizes.rows, bytes}); err != nil {
		return "", err
	}
	*path = p
	return p, nil
}

// writer makes transactions.
type writer struct {
	text
	insert, count, update *statement
	existing, inserted    int
	now                   time.Time
}

// newWriter prepares transactions on a database with that many rows.
func newWriter(c *sqlite3.Conn, rows int) (w *writer, err error) {
	w = &writer{text: newText(2), existing: rows, now: time.Date(2024, 3, 1, 9, 0, 0, 0, time.UTC)}
	for _, s := range []struct {
		to  **statement
		sql string
	}{
		{&w.insert, `INSERT INTO pkg(name, summary, updated, downloads) VALUES (?, ?, ?, ?)`},
		{&w.count, `UPDATE pkg SET downloads = downloads + 1 WHERE id = ?`},
		{&w.update, `UPDATE pkg SET updated = ?, summary = summary || '.' WHERE id = ?`},
	} {
		if *s.to, err = prepare(c, s.sql); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// transaction commits the next one.
func (w *writer) transaction() error {
	w.now = w.now.Add(time.Duration(1+w.IntN(4_000_000)) * time.Microsecond / 2)
	id := 1 + w.IntN(w.existing*14/15)
	switch w.IntN(3) {
	case 0:
		w.inserted++
		return w.insert.exec(w.name(w.existing+w.inserted), w.summary(), w.text.updated(), w.IntN(1e6))
	case 1:
		return w.count.exec(id)
	}
	return w.update.exec(w.now.Format(time.RFC3339Nano), id)
}

func (w *writer) close() error {
	return errors.Join(w.insert.Close(), w.count.Close(), w.update.Close())
}

// statement is a prepared statement without results.
type statement struct{ *sqlite3.Stmt }

func prepare(c *sqlite3.Conn, sql string) (*statement, error) {
	s, _, err := c.Prepare(sql)
	return &statement{s}, err
}

func (s *statement) exec(args ...any) error {
	for i, a := range args {
		var err error
		switch a := a.(type) {
		case string:
			err = s.BindText(i+1, a)
		case int:
			err = s.BindInt(i+1, a)
		}
		if err != nil {
			return err
		}
	}
	s.Step()
	return s.Reset()
}

func number(c *sqlite3.Conn, sql string) (int, error) {
	s, _, err := c.Prepare(sql)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	n := 0
	if s.Step() {
		n = s.ColumnInt(0)
	}
	return n, s.Err()
}

// pacer spreads events evenly; with rate 0 it doesn't hold anything up.
type pacer struct {
	start time.Time
	rate  int
	n     int
}

func (p *pacer) wait(ctx context.Context) {
	if p.rate == 0 {
		return
	}
	if p.n == 0 {
		p.start = time.Now()
	}
	due := p.start.Add(time.Duration(p.n) * time.Second / time.Duration(p.rate))
	p.n++
	if d := time.Until(due); d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(in)
	// What is measured afterwards is not to pay for writing this to the disk.
	return errors.Join(err, out.Sync(), out.Close())
}
