package killtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/outwash/outwash/replicate"
	"github.com/outwash/outwash/vfs"
)

const actorEnv = "OUTWASH_KILLTEST_ACTOR"

// process is an actor in a process of its own.
type process struct {
	*contender
	url string
}

func (a *process) pid() int { return a.cmd.Process.Pid }

func (a *process) send(c command) {
	c.Store = a.url
	if err := json.NewEncoder(a.in).Encode(c); err != nil {
		a.t.Fatal(err)
	}
}

func (a *process) reply() (s said) {
	a.t.Helper()
	if !a.out.Scan() {
		a.t.Fatalf("the process ended: %v\n%s", a.out.Err(), &a.log)
	}
	if err := json.Unmarshal(a.out.Bytes(), &s); err != nil {
		a.t.Fatalf("%v: %s\n%s", err, a.out.Bytes(), &a.log)
	}
	return s
}

func (a *process) do(c command) said {
	a.t.Helper()
	a.send(c)
	return a.reply()
}

func startActor(t *testing.T, cache string) *process {
	a := &process{contender: startContender(t, actorEnv, cache)}
	if canPause {
		t.Cleanup(a.wake) // or it would not notice that it is over
	}
	return a
}

// actorMain is the process. A machine's close ends all that is replicated, as
// the end of its process would.
func actorMain(cache string) {
	if err := setupDriver(cache); err != nil {
		die(err)
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	machines := map[string]*machine{}
	for {
		var c command
		if err := in.Decode(&c); err != nil {
			if !errors.Is(err, io.EOF) {
				die(err)
			}
			return
		}
		m := machines[c.Path]
		if m == nil {
			store, err := replicate.OpenStore(context.Background(), c.Store)
			if err != nil {
				die(err)
			}
			m = &machine{who: c.Who, path: c.Path, store: store}
			machines[c.Path] = m
		}
		s := m.do(c, func(rows int) {
			f, err := os.OpenFile(c.Acks, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err == nil {
				_, err = fmt.Fprintln(f, rows)
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				die(err)
			}
		})
		if c.Op == "close" {
			ctx, cancel := context.WithTimeout(context.Background(), slowest)
			if err := vfs.Shutdown(ctx); err != nil && !c.Sync && s.Wrong == "" {
				s.Wrong = fmt.Sprint("shutdown: ", err)
			}
			cancel()
		}
		if err := out.Encode(s); err != nil {
			die(err)
		}
	}
}
