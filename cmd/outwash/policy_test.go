package main

import (
	"testing"

	"github.com/outwash/outwash/internal/policy"
	"github.com/outwash/outwash/s3store"
)

// TestPolicyServers: outwash policy knows providers by the names that s3store has.
func TestPolicyServers(t *testing.T) {
	for url, documents := range map[string]bool{
		"s3://b/p": true,
		"s3://b/p?endpoint=https://b.vpce-1a2b3c4d-5e6f.s3.us-east-1.vpce.amazonaws.com": true,
		"s3://b.s3.us-west-004.backblazeb2.com/p":                                        false,
		"s3://b.fra1.digitaloceanspaces.com/p":                                           false,
		"s3://b.eu-central-1.linodeobjects.com/p":                                        false,
		"s3://b.s3.fr-par.scw.cloud/p":                                                   false,
		"s3://b/p?endpoint=https://a.r2.cloudflarestorage.com":                           false,
		"s3://b/p?endpoint=https://storage.googleapis.com":                               false,
		"s3://b/p?endpoint=https://t3.storage.dev":                                       true,
		"s3://b/p?endpoint=https://s3.eu-central-1.wasabisys.com":                        true,
		"s3://b/p?endpoint=https://s3.gra.io.cloud.ovh.net":                              true,
		"s3://b/p?endpoint=https://s3.filebase.com":                                      true,
		"s3://b/p?endpoint=http://127.0.0.1:9000":                                        true,
	} {
		target, err := s3store.Locate(t.Context(), url, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		s := policy.ServerOf(target.Provider, target.Host)
		if s.Documents != documents || s.AWS != (target.Provider == "Amazon S3") {
			t.Errorf("%s (%s): %+v", url, target.Provider, s)
		}
	}
}
