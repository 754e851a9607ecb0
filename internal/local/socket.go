package local

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// NoteSocket notes at which socket the process that replicates the database tells how
// it does. The directory must exist. It needn't survive anything: it isn't synced.
func NoteSocket(database, socket string) error {
	name := filepath.Join(database+Suffix, "socket")
	err := os.WriteFile(name+".new", []byte(socket+"\n"), 0o600)
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	if err != nil {
		return fmt.Errorf("local: note the status socket: %w", err)
	}
	return nil
}

// Socket returns what NoteSocket noted last; its process may have ended since.
func Socket(database string) (string, error) {
	f, err := os.Open(filepath.Join(database+Suffix, "socket"))
	if err != nil {
		return "", fmt.Errorf("local: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", fmt.Errorf("local: %w", err)
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}
