package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2/maybe"

	"claudemesh/bus"
	"claudemesh/daemon/session"
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

// resumeGrants are the credentials that hold from before this start: the user's, the tap's, and those of the sessions that still run. They are in force
// before a door opens, so that a client that comes back at once is not turned away.
func (d *Daemon) resumeGrants(ctx context.Context) (map[bus.Hash]bus.Grant, error) {
	token, err := d.localToken()
	if err != nil {
		return nil, err
	}
	grants := map[bus.Hash]bus.Grant{bus.HashToken(token): {Role: bus.RoleUser, Actor: bus.User}}
	tap, err := os.ReadFile(filepath.Join(d.opt.Dir, tapTokenFile))
	switch {
	case err == nil:
		grants[bus.HashToken(strings.TrimSpace(string(tap)))] = bus.Grant{Role: bus.RoleTap, Actor: tapActor}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("read tap token: %w", err)
	}
	live, err := d.session.Live(ctx)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	for _, s := range live {
		if g := sessionGrant(s); g.Check() == nil { // what does not pass is told when the sessions are resumed
			grants[s.TokenHash] = g
		}
	}
	return grants, nil
}

// removeStaleTokens removes the token files of sessions that are not live: of a daemon that died between writing one and registering or ending its session.
// Nothing registers while it runs: requests are served after the sessions have been resumed.
func (d *Daemon) removeStaleTokens(live []session.Session) error {
	files, err := os.ReadDir(filepath.Join(d.opt.Dir, tokenDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for stale session tokens: %w", err)
	}
	for _, f := range files {
		if slices.ContainsFunc(live, func(s session.Session) bool { return s.ID == f.Name() }) {
			continue
		}
		if err := os.Remove(d.tokenPath(f.Name())); err != nil {
			return fmt.Errorf("remove stale session token: %w", err)
		}
	}
	return nil
}

// tapActor is the actor of every tap; it is no session id, since those never equal it.
const tapActor = "tap"

// openTap makes the read-only credential, or hands out the existing one.
func (d *Daemon) openTap() (bus.Tap, error) {
	if d.server.TCPURL() == "" {
		return bus.Tap{}, &bus.APIError{Code: 409, Reason: "tcp_closed", Detail: "the daemon runs without its TCP door (--no-tcp), which the nats CLI needs"}
	}
	d.taps.Lock()
	defer d.taps.Unlock()
	path := filepath.Join(d.opt.Dir, tapTokenFile)
	token, err := d.tokenAt(path)
	if err != nil {
		return bus.Tap{}, err
	}
	if err := d.server.Grants().Add(bus.HashToken(token), bus.Grant{Role: bus.RoleTap, Actor: tapActor}); err != nil {
		return bus.Tap{}, fmt.Errorf("admit tap: %w", err)
	}
	return bus.Tap{URL: d.server.TCPURL(), TokenFile: path, InboxPrefix: bus.InboxPrefix(tapActor)}, nil
}

// closeTap revokes the credential: live taps are cut.
func (d *Daemon) closeTap() error {
	d.taps.Lock()
	defer d.taps.Unlock()
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
