package vfs

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
)

func shorten(sql string) string {
	if len(sql) > 150 {
		return fmt.Sprintf("%s… (%d bytes)", sql[:130], len(sql))
	}
	return sql
}

func blob(r *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return "x'" + hex.EncodeToString(b) + "'"
}

// body changes about n rows, and is unlike every other: no two states are equal.
func (l *life) body(n int) string {
	r := l.r
	var s strings.Builder
	l.token++
	fmt.Fprintf(&s, "INSERT INTO t(b,c) VALUES(%d,'%s%d');", l.token, l.m.name, l.token)
	for n > 0 {
		k := min(n, 1+r.IntN(10))
		n -= k
		switch r.IntN(5) {
		case 0, 1:
			for range k {
				fmt.Fprintf(&s, "INSERT INTO t(b,c) VALUES(%s,%d);", blob(r, r.IntN(300)), r.IntN(1000))
			}
		case 2, 3:
			fmt.Fprintf(&s, "UPDATE t SET b=%s,c=%d WHERE a%%%d=0;", blob(r, r.IntN(200)), r.IntN(1000), 1+r.IntN(9))
		case 4:
			fmt.Fprintf(&s, "DELETE FROM t WHERE a%%%d=1;", 2+r.IntN(6))
		}
	}
	return s.String()
}

// rows is how many rows a transaction changes: few mostly, sometimes more than
// the page cache holds, so that it spills into the log.
func (l *life) rows() int {
	if l.r.IntN(6) == 0 {
		return 30 + l.r.IntN(50)
	}
	return l.r.IntN(6)
}
