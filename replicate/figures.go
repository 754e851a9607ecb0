package replicate

import (
	"iter"
	"time"
)

// Figures count what was done for one database. They begin at zero with the engine
// (or with the [Counters] that it was given) and only grow; a copy is a snapshot of
// them. Each is exact, but they needn't be of the very same moment.
type Figures struct {
	// Commits of the application that are in the replica, those in merges included.
	Commits uint64 `json:"commits"`
	// Entries of the log that are in the replica, by kind.
	Entries EntryFigures `json:"entries"`
	// Store counts what was asked of the store, by operation.
	Store StoreFigures `json:"store"`

	Retries  uint64 `json:"retries"`  // attempts that failed and were repeated
	Restores uint64 `json:"restores"` // how often the database was made from the replica
	Fences   uint64 `json:"fences"`   // how often another session was found to have extended the replica

	Snapshots    uint64 `json:"snapshots"`     // snapshots written
	PageSegments uint64 `json:"page_segments"` // page segments written

	Deleted      uint64 `json:"deleted"`       // objects that retention deleted
	DeletedBytes uint64 `json:"deleted_bytes"` // their bytes
}

// EntryFigures count entries by kind.
type EntryFigures struct {
	Transactions uint64 `json:"transactions"` // one commit each
	Merges       uint64 `json:"merges"`       // several commits that can't be restored one by one
	Repairs      uint64 `json:"repairs"`      // what differed when database and replica were compared
	Adopts       uint64 `json:"adopts"`       // a database was taken over
	Claims       uint64 `json:"claims"`       // sessions that began to write
}

// StoreFigures count the operations of a [Store]. One operation can be several
// requests: the parts of an upload, the pages of a listing, the repetitions of a
// request that a server answered with "slow down".
type StoreFigures struct {
	Create   OperationFigures `json:"create,omitzero"`    // small objects that must not exist: log segments, descriptors
	Put      OperationFigures `json:"put,omitzero"`       // the same on stores without conditional writes
	Upload   OperationFigures `json:"upload,omitzero"`    // data objects, of any size
	Get      OperationFigures `json:"get,omitzero"`       // whole objects
	GetRange OperationFigures `json:"get_range,omitzero"` // parts of objects
	List     OperationFigures `json:"list,omitzero"`
	Delete   OperationFigures `json:"delete,omitzero"` // of up to a thousand objects
	Sweep    OperationFigures `json:"sweep,omitzero"`  // of uploads that killed sessions left behind
}

// OperationFigures count one kind of operation.
type OperationFigures struct {
	Count uint64 `json:"count"`
	// Errors are those of Count that failed. That an object exists already, or
	// doesn't, is an answer, and what was given up because somebody ended it is none.
	Errors   uint64 `json:"errors"`
	Sent     uint64 `json:"sent"`     // bytes of objects written, and of uploads as they are read
	Received uint64 `json:"received"` // bytes of objects read
	// Seconds is how long all of Count took together: reads and listings until the
	// answer began, everything else until its end.
	Seconds float64 `json:"seconds"`
	// Latency counts operations by how long each took: Latency[i] those of at most
	// LatencyBounds()[i] that took longer than the bound before; the last one those
	// that took longer than all bounds.
	Latency [latencyBounds + 1]uint64 `json:"latency"`
}

const latencyBounds = 13

// LatencyBounds are the upper bounds of [OperationFigures].Latency, ascending.
func LatencyBounds() [latencyBounds]time.Duration {
	const ms = time.Millisecond
	return [...]time.Duration{5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms,
		time.Second, 2500 * ms, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute}
}

// Operations yields the figures of each operation by its name, that of the JSON form.
func (f *StoreFigures) Operations() iter.Seq2[string, *OperationFigures] {
	return func(yield func(string, *OperationFigures) bool) {
		for op := range operations {
			if !yield(operationNames[op], f.of(op)) {
				return
			}
		}
	}
}

// operation is a kind of operation of a store.
type operation int

const (
	opCreate operation = iota
	opPut
	opUpload
	opGet
	opGetRange
	opList
	opDelete
	opSweep
	operations
)

var operationNames = [operations]string{"create", "put", "upload", "get", "get_range", "list", "delete", "sweep"}

func (f *StoreFigures) of(op operation) *OperationFigures {
	return [operations]*OperationFigures{&f.Create, &f.Put, &f.Upload, &f.Get, &f.GetRange, &f.List, &f.Delete, &f.Sweep}[op]
}
