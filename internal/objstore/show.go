package objstore

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Format shows the names of what is set, whatever the verb: values may be secrets.
func (s Settings) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "settings("+strings.Join(s.names(), " ")+")")
}

// MarshalJSON is the list of the names of what is set.
func (s Settings) MarshalJSON() ([]byte, error) { return json.Marshal(s.names()) }

func (s Settings) names() []string {
	if len(s) == 0 {
		return []string{}
	}
	return slices.Sorted(maps.Keys(s))
}
