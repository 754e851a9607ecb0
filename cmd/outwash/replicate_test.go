package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/outwash/outwash/internal/stocksqlite"
)

// stock is where the scripts find the program with stock SQLite.
func stock(t *testing.T) string {
	if runtime.GOOS != "linux" {
		return "STOCK="
	}
	bin, err := stocksqlite.Build()
	if err != nil {
		t.Fatal(err)
	}
	return "STOCK=" + bin
}

// stockMain is an application that knows nothing of Outwash: it runs SQL with stock
// SQLite and prints the rows.
//
//	stock DB SQL…
func stockMain() {
	cmd := exec.Command(os.Getenv("STOCK"), os.Args[1], "10000")
	var in strings.Builder
	for _, sql := range os.Args[2:] {
		line, err := json.Marshal(map[string]string{"op": "query", "sql": sql})
		if err != nil {
			panic(err)
		}
		in.Write(append(line, '\n'))
	}
	cmd.Stdin, cmd.Stderr = strings.NewReader(in.String()), os.Stderr
	out, err := cmd.Output()
	for line := range strings.Lines(string(out)) {
		var r struct {
			Rows  [][]string
			Error json.RawMessage
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Error != nil {
			fmt.Fprintln(os.Stderr, "stock:", line)
			os.Exit(1)
		}
		for _, row := range r.Rows {
			fmt.Println(strings.Join(row, "|"))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "stock:", err)
		os.Exit(1)
	}
}
