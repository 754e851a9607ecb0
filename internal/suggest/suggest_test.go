package suggest

import "testing"

func TestNearest(t *testing.T) {
	words := []string{"restore", "ls", "inspect", "demo", "version", "help"}
	for in, want := range map[string]string{
		"restroe": "restore", "rest": "restore", "lst": "ls", "ispect": "inspect",
		"dmeo": "demo", "vers": "version", "frobnicate": "", "x": "",
	} {
		if got := Nearest(in, words); got != want {
			t.Errorf("Nearest(%q) = %q, expected %q", in, got, want)
		}
	}
}
