package replicate

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
)

// DataSubset is a share of what data objects hold: part N of Of, so that parts 1 to
// Of together are all of it, or, if Percent is set, a random share. Its zero value
// is all.
type DataSubset struct {
	N, Of   uint64
	Percent float64
}

// ParseDataSubset understands "2/7" and "2.5%".
func ParseDataSubset(s string) (DataSubset, error) {
	var d DataSubset
	var err error
	if p, ok := strings.CutSuffix(s, "%"); ok {
		d.Percent, err = strconv.ParseFloat(p, 64)
		if err == nil && d.Percent == 0 {
			err = strconv.ErrRange
		}
	} else if n, of, ok := strings.Cut(s, "/"); ok {
		if d.N, err = strconv.ParseUint(n, 10, 32); err == nil {
			d.Of, err = strconv.ParseUint(of, 10, 32)
		}
		if err == nil && d.Of == 0 {
			err = strconv.ErrRange
		}
	} else {
		err = strconv.ErrSyntax
	}
	if err == nil {
		err = d.check()
	}
	if err != nil {
		return DataSubset{}, fmt.Errorf("replicate: subset %q: expected N/T, with N from 1 to T, or X%%, above 0 and up to 100: %w", s, ErrConfig)
	}
	return d, nil
}

func (d DataSubset) check() error {
	if d == (DataSubset{}) || d.Percent == 0 && d.N >= 1 && d.N <= d.Of || d.N == 0 && d.Of == 0 && d.Percent > 0 && d.Percent <= 100 {
		return nil
	}
	return fmt.Errorf("replicate: subset %d/%d, %v%%: %w", d.N, d.Of, d.Percent, ErrConfig)
}

// has reports whether the blocks at offset of the object belong to the share.
func (d DataSubset) has(key string, offset int64) bool {
	switch {
	case d.Percent > 0:
		return rand.Float64()*100 < d.Percent
	case d.Of > 1:
		h := fnv.New64a()
		h.Write(binary.BigEndian.AppendUint64([]byte(key), uint64(offset))) // never fails
		// FNV's low bits are weak.
		v := h.Sum64()
		return (v^v>>32)%d.Of == d.N-1
	}
	return true
}
