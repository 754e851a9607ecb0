package metrics_test

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/replicate/metrics"
	"github.com/outwash/outwash/vfs"
)

// The metrics of the databases that a program opens through package vfs.
func ExampleNewCollector() {
	paths := []string{"/var/lib/app.db", "/var/lib/sessions.db"}
	prometheus.MustRegister(metrics.NewCollector(func() (list []replicate.Status) {
		for _, path := range paths {
			if s, err := vfs.Stat(path); err == nil { // else it isn't open at the moment
				list = append(list, s)
			}
		}
		return list
	}))
}
