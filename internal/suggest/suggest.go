// Package suggest finds what somebody may have meant to write.
package suggest

import "strings"

// Nearest returns the word that s may be a misspelling of, or "".
func Nearest(s string, words []string) string {
	best, most := "", 1+len(s)/3
	for _, w := range words {
		d := distance(s, w)
		if len(s) >= 2 && strings.HasPrefix(w, s) {
			d = 0
		}
		if d <= most {
			best, most = w, d-1
		}
	}
	return best
}

// distance counts the letters to insert, delete, change or swap with their
// neighbour to get from a to b.
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
