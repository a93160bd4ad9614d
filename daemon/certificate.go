package daemon

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/jonboulle/clockwork"
)

// certificate is a pair of files that is read again when one of them changes, so that a renewed certificate is served without a restart. A pair that cannot
// be read, as in the moment between the two writes, leaves the old one in use.
type certificate struct {
	cert, key string
	clock     clockwork.Clock
	log       *slog.Logger

	mu      sync.Mutex
	pair    *tls.Certificate
	stamp   [2]fileStamp
	checked time.Time
	broken  string // the last failure, logged once
}

type fileStamp struct {
	size int64
	at   time.Time
}

// rereadCert is how often the files are looked at, at most.
const rereadCert = time.Second

func loadCertificate(cert, key string, clock clockwork.Clock, log *slog.Logger) (*certificate, error) {
	c := &certificate{cert: cert, key: key, clock: clock, log: log}
	stamp, err := c.look()
	if err != nil {
		return nil, err
	}
	return c, c.load(stamp)
}

func (c *certificate) look() (stamp [2]fileStamp, err error) {
	for i, path := range []string{c.cert, c.key} {
		st, err := os.Stat(path)
		if err != nil {
			return stamp, fmt.Errorf("read certificate: %w", err)
		}
		stamp[i] = fileStamp{st.Size(), st.ModTime()}
	}
	return stamp, nil
}

func (c *certificate) load(stamp [2]fileStamp) error {
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	c.pair, c.stamp, c.broken = &pair, stamp, ""
	return nil
}

// get is asked at every handshake.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Now()
	if now.Sub(c.checked) < rereadCert {
		return c.pair, nil
	}
	c.checked = now
	stamp, err := c.look()
	if err == nil && stamp != c.stamp {
		if err = c.load(stamp); err == nil {
			c.log.Info("certificate_reloaded", "file", c.cert)
		}
	}
	if err != nil && err.Error() != c.broken {
		c.broken = err.Error()
		c.log.Error("certificate_not_reloaded", "error", err)
	}
	return c.pair, nil
}

// config serves HTTP/1.1 only: a WebSocket needs it.
func (c *certificate) config() *tls.Config {
	return &tls.Config{GetCertificate: c.get, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
}
