package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// facts are what figures depend on. What can't be found out is empty.
type facts struct {
	OS         string `json:"os"`
	Kernel     string `json:"kernel"`
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Memory     int64  `json:"memory"` // bytes
	FileSystem string `json:"file_system"`
	Go         string `json:"go"`
	Driver     string `json:"driver"`
	Revision   string `json:"revision"` // of outwash
}

// machine finds out the facts; most of them only on Linux.
func machine(dir string) facts {
	f := facts{
		OS: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.GOMAXPROCS(0), Go: runtime.Version(),
		Kernel: firstLine("/proc/sys/kernel/osrelease"),
		CPU:    procField("/proc/cpuinfo", "model name"),
		Memory: procBytes("/proc/meminfo", "MemTotal"),
	}
	f.FileSystem = fileSystem(dir)
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			if d.Path == "github.com/ncruces/go-sqlite3" {
				f.Driver = d.Version
			}
		}
	}
	if out, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		f.Revision = strings.TrimSpace(string(out))
	}
	return f
}

// String is one line for people.
func (f facts) String() string {
	parts := []string{fmt.Sprintf("%d cores", f.Cores)}
	add := func(name, v string) {
		if v != "" {
			parts = append(parts, strings.TrimSpace(name+" "+v))
		}
	}
	add("", f.CPU)
	if f.Memory > 0 {
		add("", size(float64(f.Memory))+" memory")
	}
	add("", f.OS)
	add("kernel", f.Kernel)
	add("on", f.FileSystem)
	add("", f.Go)
	add("go-sqlite3", f.Driver)
	add("outwash", f.Revision)
	return strings.Join(parts, ", ")
}

func firstLine(path string) string {
	b, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// procField reads "name : value".
func procField(path, name string) string {
	b, _ := os.ReadFile(path)
	for line := range strings.Lines(string(b)) {
		k, v, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func procBytes(path, name string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSuffix(procField(path, name), " kB"), 10, 64)
	return n << 10
}

// peakMemory is the most memory that this process has had at a time; 0: unknown.
func peakMemory() int64 { return procBytes("/proc/self/status", "VmHWM") }

func loadAverage() float64 {
	one, _, _ := strings.Cut(firstLine("/proc/loadavg"), " ")
	v, _ := strconv.ParseFloat(one, 64)
	return v
}

// fileSystem is the type of the file system that dir is on.
func fileSystem(dir string) (kind string) {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	b, _ := os.ReadFile("/proc/self/mounts")
	longest := -1
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		if at := strings.TrimSuffix(f[1], "/"); (dir == at || strings.HasPrefix(dir, at+"/")) && len(at) >= longest {
			longest, kind = len(at), f[2]
		}
	}
	return kind
}
