package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// median of values; NaN if there are none.
func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	switch {
	case n == 0:
		return math.NaN()
	case n%2 == 1:
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// percentile is the smallest value that p percent of values don't exceed
// (nearest rank); the zero value if there are none.
func percentile[T cmp.Ordered](values []T, p float64) T {
	var zero T
	if len(values) == 0 {
		return zero
	}
	s := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(p / 100 * float64(len(s))))
	return s[min(max(rank, 1), len(s))-1]
}

// ratios divides pairwise.
func ratios(over, under []float64) []float64 {
	var r []float64
	for i := range min(len(over), len(under)) {
		r = append(r, over[i]/under[i])
	}
	return r
}

// each picks a figure of every element.
func each[T any](all []T, f func(T) float64) []float64 {
	r := make([]float64, len(all))
	for i, v := range all {
		r[i] = f(v)
	}
	return r
}

// goal is what a figure is compared with.
type goal struct {
	AtLeast bool    `json:"at_least"` // else: at most
	Value   float64 `json:"value"`
}

func atLeast(v float64) *goal { return &goal{true, v} }
func atMost(v float64) *goal  { return &goal{false, v} }

// verdict is "meets" or "misses"; "" without a goal or without a figure.
func (g *goal) verdict(v float64) string {
	switch {
	case g == nil || math.IsNaN(v):
		return ""
	case g.AtLeast && v >= g.Value || !g.AtLeast && v <= g.Value:
		return "meets"
	}
	return "misses"
}

// spread tells the smallest and the largest of several values.
func spread(values []float64, unit string) string {
	if len(values) < 2 {
		return ""
	}
	return fmt.Sprintf("%s to %s in %d pairs", figure(slices.Min(values), unit), figure(slices.Max(values), unit), len(values))
}
