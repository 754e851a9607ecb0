package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"
)

// Everything that is measured runs in a process of its own, this program again:
// peak memory is a process's, and nothing that one run leaves behind (heap,
// pools, compiled code) helps the next. A task goes to its stdin and what came
// out comes from its stdout, both JSON.

// childEnv is set in such a process.
const childEnv = "OUTWASH_BENCH_CHILD"

type order struct {
	Task    string          `json:"task"`
	Args    json.RawMessage `json:"args"`
	Profile string          `json:"profile,omitempty"` // beginning of file names
}

type reply struct {
	Result json.RawMessage `json:"result"`
	Peak   int64           `json:"peak"` // bytes; 0: not known on this system
}

// outcome is what a task found and what its process used.
type outcome[R any] struct {
	Result R
	Peak   int64
}

var tasks = map[string]func(context.Context, json.RawMessage) (any, error){}

// task makes f, which runs in a child, callable from the parent.
func task[A, R any](name string, f func(context.Context, A) (R, error)) func(context.Context, *bench, A) (outcome[R], error) {
	tasks[name] = func(ctx context.Context, raw json.RawMessage) (any, error) {
		var args A
		if err := json.Unmarshal(raw, &args); err != nil {
			return nil, err
		}
		return f(ctx, args)
	}
	return func(ctx context.Context, b *bench, args A) (out outcome[R], err error) {
		r, err := b.call(ctx, name, args)
		if err == nil {
			err = json.Unmarshal(r.Result, &out.Result)
		}
		out.Peak = r.Peak
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		return out, err
	}
}

// call runs a task in a child.
func (b *bench) call(ctx context.Context, name string, args any) (r reply, err error) {
	o := order{Task: name}
	if o.Args, err = json.Marshal(args); err != nil {
		return r, err
	}
	if b.profile != "" {
		o.Profile = filepath.Join(b.profile, fmt.Sprintf("%s-%s", name, time.Now().Format("150405.000")))
	}
	in, err := json.Marshal(o)
	if err != nil {
		return r, err
	}
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(append(os.Environ(), childEnv+"=1"), b.env...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

// serve is the child.
func serve(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	var o order
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		return err
	}
	f := tasks[o.Task]
	if f == nil {
		return fmt.Errorf("no task %q", o.Task)
	}
	stop := func() error { return nil }
	if o.Profile != "" {
		if stop, err = profile(o.Profile); err != nil {
			return err
		}
	}
	result, err := f(ctx, o.Args)
	if err = errors.Join(err, stop()); err != nil {
		return err
	}
	r := reply{Peak: peakMemory()}
	if r.Result, err = json.Marshal(result); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

// profile begins a CPU profile; stop ends it and writes what was allocated.
func profile(name string) (stop func() error, err error) {
	cpu, err := os.Create(name + "-cpu.pprof")
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		allocs, err := os.Create(name + "-allocs.pprof")
		if err == nil {
			runtime.GC()
			err = errors.Join(pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close())
		}
		return errors.Join(err, cpu.Close())
	}, nil
}
