package testclock

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	begun := time.Unix(1_700_000_000, 0)
	c := New(begun)
	second, minute := c.After(time.Second), c.After(time.Minute)
	c.Move(time.Second - 1)
	if len(second) != 0 || c.Waiting() != 2 {
		t.Fatal("too early")
	}
	c.Move(1)
	if len(second) != 1 || len(minute) != 0 || c.Waiting() != 1 {
		t.Fatal("one of them is due, and only one")
	}
	if now := <-second; !now.Equal(begun.Add(time.Second)) || !now.Equal(c.Now()) {
		t.Fatal(now)
	}
}
