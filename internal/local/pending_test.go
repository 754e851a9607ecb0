package local

import (
	"os"
	"testing"
)

func TestPending(t *testing.T) {
	d := openDir(t)
	check := func(want bool) {
		t.Helper()
		if got, err := d.Pending(); err != nil || got != want {
			t.Errorf("pending is %v, %v; expected %v", got, err, want)
		}
	}
	check(false) // a directory from before there was such a note
	must(t, d.PreparePending())
	check(false)
	must(t, d.SetPending(true))
	check(true)
	must(t, d.PreparePending())
	check(true)
	must(t, d.SetPending(false))
	check(false)
	for _, torn := range []string{"", "all capt", "repair pending", "\x00\x00"} {
		must(t, os.WriteFile(d.file("pending"), []byte(torn), 0o600))
		check(true)
	}
}
