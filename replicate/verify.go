package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/outwash/outwash/internal/segment"
)

// VerifyOptions says what to verify, and how far. Store (or URL) is necessary.
type VerifyOptions struct {
	Store Store
	URL   string // opened if Store is nil
	// ReadData reads the blocks of data objects, too: each must have the SHA-256
	// that its index says, and what stands alone is decoded and its pages hashed. Of
	// patches the bytes are proven; that they decode, a restore shows.
	ReadData bool
	// Subset is the share of the data objects that ReadData reads; zero: all.
	Subset DataSubset
	// Against, if set, returns the present state of a live database, which is
	// compared with the replica. It can be called several times.
	Against func(context.Context) (*DatabaseState, error)
	// Keep is what the replica's retention keeps. Of what is older a part may be gone:
	// where a deletion was interrupted, say.
	Keep Keep
	// Parallelism is how many requests run at once, 1 to 64; 0: 8.
	Parallelism int
	// Progress, if set, is called from time to time, by one goroutine at a time.
	Progress func(Progress)

	wait      func(context.Context) error // before what looks wrong is looked at again; nil: for verifyPause
	orphanAge time.Duration               // 0: that of retention
	now       func() time.Time
}

const (
	// verifyPause is long for whatever removes objects in batches, and short for
	// people who wait.
	verifyPause = time.Second
	// verifyRounds is how often what looks wrong is looked at.
	verifyRounds = 8
)

// FindingKind says what is wrong with an object.
type FindingKind string

// The kinds of findings. The last three are information: nothing is lost.
const (
	FindingMissing FindingKind = "missing" // an object that others name is not there
	FindingDamaged FindingKind = "damaged" // its bytes are not what was written
	FindingForeign FindingKind = "foreign" // it is of another database, another line, or not Outwash's
	FindingGap     FindingKind = "gap"     // nothing is there for some TXIDs, or what is there doesn't join
	FindingNewer   FindingKind = "newer"   // a newer Outwash wrote it: not verified
	FindingStray   FindingKind = "stray"   // a writer's leftovers that no restore reads
	FindingOrphan  FindingKind = "orphan"  // a data object that no segment names
	FindingVoid    FindingKind = "void"    // begun and never finished
)

// TXIDs is a range of transactions.
type TXIDs struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// String returns the range for messages.
func (r TXIDs) String() string {
	if r.From == r.To {
		return fmt.Sprintf("TXID %d", r.From)
	}
	return fmt.Sprintf("TXID %d to %d", r.From, r.To)
}

// A Finding is something about an object of a replica that is not as it should be.
type Finding struct {
	Kind FindingKind `json:"kind"`
	// Key of the object. Of one that is missing it can be as much as is known of it:
	// it ends with "…" then.
	Key  string `json:"key"`
	What string `json:"what"`
	Cost string `json:"cost,omitempty"`
	Do   string `json:"do,omitempty"`
	// Lost is what can't be restored because of it.
	Lost  []TXIDs `json:"lost,omitempty"`
	Bytes int64   `json:"bytes,omitempty"` // of an orphan or a stray
}

// Damage reports whether something is lost or can't be trusted; otherwise the
// finding is information.
func (f *Finding) Damage() bool {
	return !slices.Contains([]FindingKind{FindingStray, FindingOrphan, FindingVoid, FindingNewer}, f.Kind)
}

// VerifyResult says what was verified and what was found.
type VerifyResult struct {
	Database     string      `json:"database"`
	Replica      string      `json:"replica"`
	TXID         uint64      `json:"txid"` // newest
	Time         time.Time   `json:"time"` // of the newest commit
	Checksum     string      `json:"checksum"`
	Pages        uint64      `json:"pages"`
	PageSize     uint32      `json:"page_size"`
	Restorable   []TXIDs     `json:"restorable"`
	LogSegments  int         `json:"log_segments"`
	PageSegments int         `json:"page_segments"`
	Snapshots    int         `json:"snapshots"`
	DataObjects  int         `json:"data_objects"`
	Bytes        int64       `json:"bytes"`       // of all of them
	BlocksRead   int64       `json:"blocks_read"` // of data objects, by ReadData
	Blocks       int64       `json:"blocks"`      // of data objects, all
	Findings     []Finding   `json:"findings"`    // damage first
	Against      *Comparison `json:"against,omitempty"`
	Fetched      int64       `json:"fetched"`
	Requests     int         `json:"requests"`
	Duration     float64     `json:"duration"` // seconds
}

// Damaged counts the findings that are damage.
func (r *VerifyResult) Damaged() (n int) {
	for i := range r.Findings {
		if r.Findings[i].Damage() {
			n++
		}
	}
	return n
}

// Err is nil for a replica that is whole: else an [ErrCorrupt], an [ErrVersion] if
// nothing is damaged but a newer Outwash wrote some of it, or, if the replica is
// whole and another one than the database, an [ErrDiverged].
func (r *VerifyResult) Err() error {
	newer := 0
	for i := range r.Findings {
		f := &r.Findings[i]
		if f.Damage() {
			return fmt.Errorf("replicate: %s: %d of its objects are damaged or missing; the first: %s: %s: %w", r.Replica, r.Damaged(), f.Key, f.What, ErrCorrupt)
		}
		if f.Kind == FindingNewer {
			newer++
		}
	}
	if newer > 0 {
		return fmt.Errorf("replicate: %s: %d of its objects can't be verified: %w", r.Replica, newer, ErrVersion)
	}
	if c := r.Against; c != nil && c.State == AgainstDiffers {
		return fmt.Errorf("replicate: %s: %w: %s", r.Replica, ErrDiverged, c.What)
	}
	return nil
}

// Verify checks whether a replica is whole: every object that a restore to any of
// its states needs is there, is what was written, and joins its neighbours; and the
// pages' hashes make each state's checksum. It reads all but the blocks of data
// objects: see VerifyOptions.ReadData.
//
// What is found is in the result, all of it; an error means that the replica
// couldn't be verified. A replica may be in use: what looks wrong is looked at again
// before it is reported. The newest log segment being deleted can't be told from its
// never having been written, unless a snapshot or page segment is left that ends
// with it.
//
// Memory: some 24 bytes a page, some 500 bytes a log segment, and 64 MiB.
//
// Errors: [ErrNoReplica], [ErrVersion] about the root, and those of stores.
func Verify(ctx context.Context, opts VerifyOptions) (VerifyResult, error) {
	began := time.Now()
	store := opts.Store
	if store == nil {
		var err error
		if store, err = OpenStore(ctx, opts.URL); err != nil {
			return VerifyResult{}, fmt.Errorf("replicate: %w", err)
		}
	}
	if err := errors.Join(opts.Subset.check(), opts.Keep.Check()); err != nil {
		return VerifyResult{}, err
	}
	v := &verifier{opts: opts, store: &readingStore{Store: store}}
	if v.opts.Parallelism <= 0 {
		v.opts.Parallelism = restoreParallelism
	}
	v.opts.Parallelism = min(v.opts.Parallelism, 64)
	if v.opts.orphanAge == 0 {
		v.opts.orphanAge = orphanAge
	}
	if v.opts.now == nil {
		v.opts.now = time.Now
	}
	v.meter = meter{report: opts.Progress, store: v.store}
	v.store.progress = v.meter.tick
	findings, err := v.run(ctx)
	if err != nil {
		return VerifyResult{}, err
	}
	res := v.result(findings)
	res.Replica, res.Duration = store.String(), time.Since(began).Seconds()
	return res, nil
}

// verifier is one verification. What is read becomes facts, of which analyse, a
// pure function, makes findings.
type verifier struct {
	opts    VerifyOptions
	store   *readingStore
	line    *line
	meter   meter
	root    *Finding // about the root
	list    listing
	logs    map[uint64]*logFact
	exports map[string]*exportFact
	replay  replayer
	db      comparer
	meaning meaning
	// blocksRead counts blocks of data objects.
	blocksRead atomic.Int64
}

func (v *verifier) run(ctx context.Context) ([]Finding, error) {
	if err := v.readRoot(ctx); err != nil {
		return nil, err
	}
	if err := v.db.begin(ctx, v.opts.Against); err != nil {
		return nil, err
	}
	v.logs, v.exports = map[uint64]*logFact{}, map[string]*exportFact{}
	var findings, before []Finding
	for round := 1; ; round++ {
		if err := v.look(ctx); err != nil {
			return nil, err
		}
		findings = v.findings()
		if round > 1 {
			// What is wrong in the same way twice is wrong: what a writer or a retention
			// under way leaves open for a moment is something else by now.
			stable := slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool {
				return !slices.ContainsFunc(before, func(g Finding) bool { return f.Key == g.Key && f.What == g.What && f.Cost == g.Cost })
			})
			if len(stable) == len(findings) || round == verifyRounds {
				findings = stable
				break
			}
		}
		if len(findings) == 0 {
			break
		}
		before = findings
		if err := v.wait(ctx); err != nil {
			return nil, err
		}
	}
	if err := v.compare(ctx); err != nil {
		return nil, err
	}
	if v.db.grown {
		v.findings() // for what can be restored now; what is wrong, the next verification says
	}
	return findings, nil
}

func (v *verifier) wait(ctx context.Context) error {
	if v.opts.wait != nil {
		return v.opts.wait(ctx)
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(verifyPause):
		return nil
	}
}

// readRoot reads the root. Without it, or if it is damaged, the newest segments say
// which database they are of.
func (v *verifier) readRoot(ctx context.Context) error {
	v.line = &line{store: v.store}
	info, err := retryValue(ctx, func() (*segment.ReplicaInfo, error) { return readRoot(ctx, v.store) })
	if err != nil && (!isVerdict(err) || errors.Is(err, ErrVersion)) {
		return err
	}
	said, serr := v.database(ctx)
	if serr != nil {
		return serr
	}
	f := Finding{Kind: FindingDamaged, Key: segment.InfoKey, Cost: "nothing can be restored, and nobody can go on writing"}
	switch {
	case info == nil && err == nil && said.IsZero():
		return fmt.Errorf("replicate: %s: %w (there is no object %s)", v.store, ErrNoReplica, segment.InfoKey)
	case info == nil && err == nil:
		f.Kind, f.What = FindingMissing, "the replica's root is missing, and the objects that it is the root of are there"
	case err != nil && said.IsZero():
		return err
	case err != nil:
		f.What = plain(err)
	case !said.IsZero() && info.Database != said:
		f.What = fmt.Sprintf("it says that the replica is of database %s; the objects are of %s", info.Database, said)
	default:
		v.line.database = info.Database
		return nil
	}
	f.Do = fmt.Sprintf("put the old version of %s back, if the bucket keeps versions; else write one that names the database %s: docs/FORMAT.md has its form", segment.InfoKey, said)
	v.root, v.line.database = &f, said
	return nil
}

// database is the database that the first and the last object of the log, and the
// last snapshot, say they are of, if they agree; zero: not known.
func (v *verifier) database(ctx context.Context) (said ID, err error) {
	var keys []string
	for _, prefix := range []string{segment.LogPrefix, segment.SnapshotPrefix} {
		first, last := "", ""
		for o, err := range v.store.List(ctx, prefix, "") {
			if err != nil {
				return ID{}, fmt.Errorf("replicate: list %s: %w", prefix, err)
			}
			if first == "" {
				first = o.Key
			}
			last = o.Key
		}
		keys = append(keys, first, last)
	}
	for _, key := range slices.Compact(keys) {
		if key == "" {
			continue
		}
		b, err := retryValue(ctx, func() ([]byte, error) { return fetchRange(ctx, v.store, key, 0, headerSize) })
		if errors.Is(err, ErrNotExist) {
			continue
		}
		if err != nil {
			return ID{}, err
		}
		h, err := segment.ParseHeader(b)
		switch {
		case err != nil:
		case said.IsZero():
			said = h.Database
		case said != h.Database:
			return ID{}, nil
		}
	}
	return said, nil
}

// plain is an error's text without the package's name in front.
func plain(err error) string { return strings.TrimPrefix(err.Error(), "replicate: ") }
