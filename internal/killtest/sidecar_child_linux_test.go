package killtest

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"net/url"
	"os"

	"github.com/ncruces/go-sqlite3"
	"github.com/outwash/outwash/internal/objstore/faultstore"
	"github.com/outwash/outwash/internal/sidecar"
	"github.com/outwash/outwash/replicate"
)

const sidecarEnv = "OUTWASH_KILLTEST_SIDECAR"

// sidecarMain is a sidecar in a process of its own. A line on its input, which it
// repeats, has it say where the replica is once it has all that was committed, and the
// store works from then on; the input's end, that it ends in order.
func sidecarMain(text string) {
	w := &worker{}
	if err := json.Unmarshal([]byte(text), &w.job); err != nil {
		die(err)
	}
	if err := setupDriver(w.Cache); err != nil {
		die(err)
	}
	warm, err := sqlite3.Open(":memory:")
	if err != nil {
		die(err)
	}
	warm.Close()
	s, err := replicate.OpenStore(context.Background(), (&url.URL{Scheme: "file", Path: w.Store}).String())
	if err != nil {
		die(err)
	}
	w.store = faultstore.New(s)
	w.inject()
	db, err := sidecar.Open(context.Background(), sidecar.Options{
		Path: w.Path, MaxLag: w.MaxLag,
		Open:   func(context.Context) (replicate.Store, error) { return w.store, nil },
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	if err != nil {
		die(err)
	}
	say("START")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		w.store.SetHooks(faultstore.Hooks{}) // the store is well from now on
		ctx, cancel := context.WithTimeout(context.Background(), slowest)
		txid, err := db.Sync(ctx)
		cancel()
		if err != nil {
			say("FAILED %v", err)
			continue
		}
		say("A %d %s", txid, lines.Text())
	}
	w.store.SetHooks(faultstore.Hooks{})
	ctx, cancel := context.WithTimeout(context.Background(), slowest)
	defer cancel()
	if err := db.Close(ctx); err != nil {
		die(err)
	}
	say("DONE")
}
