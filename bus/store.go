package bus

import (
	"fmt"
	"log/slog"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// StoreConfig says how to run the store of a broker that is a process of its own.
type StoreConfig struct {
	Dir   string // any private directory; the caller holds its lock
	Log   *slog.Logger
	Limit int64 // of its files in bytes, at least 1 GiB; 0 means DefaultStoreLimit
	// SyncEvery above zero makes writes durable so often instead of before they are acknowledged: what was acknowledged survives the death of the process, but a
	// power cut may cost the last two intervals.
	SyncEvery time.Duration
	// Door opens TCP on 127.0.0.1 for maintenance with the stock nats CLI: whoever has the token of which Token is the hash may do everything in the store. Port 0
	// means any free one.
	Door  bool
	Port  int
	Token Hash
}

// OpenStore runs only the account BROKER, every write synced unless SyncEvery says otherwise. Without Door nobody can connect but BrokerConn.
func OpenStore(sc StoreConfig) (*Server, error) {
	cfg := ServerConfig{Dir: sc.Dir, Log: sc.Log, StoreLimit: sc.Limit, SyncAlways: true, TCP: sc.Door}.withDefaults()
	if sc.SyncEvery > 0 {
		cfg.SyncAlways, cfg.SyncInterval = false, sc.SyncEvery
	}
	if cfg.StoreLimit < minStoreLimit {
		return nil, fmt.Errorf("%w: store limit of %d bytes is under 1 GiB", ErrServerStart, cfg.StoreLimit)
	}
	if sc.Door && sc.Token == (Hash{}) {
		return nil, fmt.Errorf("%w: a door needs a token", ErrServerStart)
	}
	if err := prepareDir(sc.Dir); err != nil {
		return nil, err
	}
	port := sc.Port
	if port == 0 {
		port = natsserver.RANDOM_PORT
	}
	s, err := start(cfg, port, false)
	if err != nil {
		return nil, err
	}
	if sc.Door {
		s.grants.addOwn(sc.Token, roleStore, s.broker, nil) // who came before it was turned away
	}
	return s, nil
}

// StartStore is OpenStore without a door.
func StartStore(dir string, log *slog.Logger, limit int64) (*Server, error) {
	return OpenStore(StoreConfig{Dir: dir, Log: log, Limit: limit})
}
