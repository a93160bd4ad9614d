package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Streams of the account BUS. They are a replay buffer for taps, events and people who debug; the truth is the daemon's database.
const (
	StreamMessages = "MESSAGES" // mesh.*.msg.>, 7 days, at most 256 MiB
	StreamEvents   = "EVENTS"   // mesh.*.event.> and mesh.*.receipt.>, 7 days, at most 64 MiB
)

// EnsureStreams makes the streams of BUS or brings them to this version's settings. They persist asynchronously: the server then leaves out the fsync
// that SyncAlways means for the streams of BROKER, and a crash may lose the last of them, which the database still has.
func EnsureStreams(ctx context.Context, nc *nats.Conn) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("use streams: %w", err)
	}
	for _, cfg := range []jetstream.StreamConfig{
		{Name: StreamMessages, Description: "opened inbound messages", Subjects: []string{AnyMsgSubject("*")}, MaxBytes: 256 << 20},
		{
			Name: StreamEvents, Description: "what happened in the meshes, and receipts",
			Subjects: []string{pattern("mesh", "*", "event", ">"), pattern("mesh", "*", "receipt", ">")}, MaxBytes: 64 << 20,
		},
	} {
		cfg.Storage = jetstream.FileStorage
		cfg.PersistMode = jetstream.AsyncPersistMode
		cfg.MaxAge = 7 * 24 * time.Hour
		cfg.Discard = jetstream.DiscardOld
		cfg.AllowDirect = true
		if _, err := js.CreateOrUpdateStream(ctx, cfg); err != nil {
			return fmt.Errorf("make stream %s: %w", cfg.Name, err)
		}
	}
	return nil
}
