package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2/maybe"

	"claudemesh/bus"
)

// Tokens are 64 hex digits in files of mode 0600 below the daemon directory. They travel in no reply: clients are told the file's name.

// localToken reads the user's token, or makes it on the first start.
func (d *Daemon) localToken() (string, error) {
	return d.tokenAt(filepath.Join(d.opt.Dir, localTokenFile))
}

func (d *Daemon) tokenAt(path string) (string, error) {
	b, err := os.ReadFile(path)
	switch {
	case err == nil && len(strings.TrimSpace(string(b))) >= 32:
		return strings.TrimSpace(string(b)), nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read token: %w", err)
	}
	return d.newToken(path)
}

// newToken makes a token and writes its file, replacing an older one.
func (d *Daemon) newToken(path string) (string, error) {
	token, err := bus.NewToken(d.opt.Rand)
	if err != nil {
		return "", err
	}
	if err := maybe.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write token: %w", err)
	}
	return token, nil
}

// resumeTap lets a tap that was handed out before this start connect again.
func (d *Daemon) resumeTap() error {
	b, err := os.ReadFile(filepath.Join(d.opt.Dir, tapTokenFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read tap token: %w", err)
	}
	d.server.Grants().Add(bus.HashToken(strings.TrimSpace(string(b))), bus.Grant{Role: bus.RoleTap, Actor: tapActor})
	return nil
}

// tapActor is the actor of every tap; it is no session id, since those never equal it.
const tapActor = "tap"

// openTap makes the read-only credential, or hands out the existing one.
func (d *Daemon) openTap() (bus.Tap, error) {
	if d.server.TCPURL() == "" {
		return bus.Tap{}, &bus.APIError{Code: 409, Reason: "tcp_closed", Detail: "the daemon runs without its TCP door (--no-tcp), which the nats CLI needs"}
	}
	path := filepath.Join(d.opt.Dir, tapTokenFile)
	token, err := d.tokenAt(path)
	if err != nil {
		return bus.Tap{}, err
	}
	d.server.Grants().Add(bus.HashToken(token), bus.Grant{Role: bus.RoleTap, Actor: tapActor})
	return bus.Tap{URL: d.server.TCPURL(), TokenFile: path, InboxPrefix: bus.InboxPrefix(tapActor)}, nil
}

// closeTap revokes the credential: live taps are cut.
func (d *Daemon) closeTap() error {
	path := filepath.Join(d.opt.Dir, tapTokenFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read tap token: %w", err)
	}
	d.server.Grants().Revoke(bus.HashToken(strings.TrimSpace(string(b))))
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove tap token: %w", err)
	}
	return nil
}
