package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/semver"

	"claudemesh/bus"
)

// A daemon outlives the upgrade of its program. The first command of the newer program sees that, and replaces it when nobody is in the middle of something;
// else it says so. An older program never replaces a newer daemon: two of them on one machine would do so in turns.

const (
	toldFile = ".version-told" // in the daemon directory: its age and text say when the user was told last, and what
	toldLife = time.Hour
)

// mend compares the version of a daemon that answers with ours. It reports true when the daemon was replaced, or is gone: connect again.
func (c *call) mend(ctx context.Context, dir string, n *conn) (again bool, err error) {
	info, err := bus.ReadInfo(dir)
	if err != nil || info.Version == "" || info.Version == c.release || c.mended || n.session {
		return false, nil
	}
	c.mended = true
	differ := fmt.Sprintf("the daemon is version %s, this program is %s", cleanLine(info.Version), c.release)
	if !newer(c.release, info.Version) {
		c.tellSometimes(dir, info, differ+"; the newer one is left as it is")
		return false, nil
	}
	why, err := c.busy(ctx, n)
	if errors.Is(err, bus.ErrInterrupted) || errors.Is(err, bus.ErrNoDaemon) { // another command is replacing it
		n.Close()
		c.mended = false
		return true, nil
	}
	if err != nil || why != "" {
		c.tellSometimes(dir, info, differ+" and "+why+"; when it suits: claudemesh daemon restart")
		return false, nil
	}
	n.Close()
	unlock, err := c.spawnLock(ctx, dir)
	if err != nil {
		return true, err
	}
	defer unlock()
	// Another command may have been faster: its daemon is not to be stopped.
	if now, err := bus.ReadInfo(dir); !bus.Held(dir) || err == nil && now.PID != info.PID {
		return true, nil
	}
	if _, err := c.down(ctx); err != nil {
		return true, fmt.Errorf("replace the daemon of version %s: %w", info.Version, err)
	}
	begin := c.clock.Now()
	if err := c.start(ctx, dir, spawnOptions{args: info.Args, limit: startLimit}); err != nil {
		return true, err
	}
	c.tell("info", "daemon restarted, version %s is now %s (took %dms)", cleanLine(info.Version), c.release, c.clock.Since(begin).Milliseconds())
	return true, nil
}

// newer reports whether a is a later version than b. What is no version is not comparable.
func newer(a, b string) bool {
	a, b = "v"+a, "v"+b
	return semver.IsValid(a) && semver.IsValid(b) && semver.Compare(a, b) > 0
}

// busy says what a restart would disturb, "" when nothing.
func (c *call) busy(ctx context.Context, n *conn) (string, error) {
	var s bus.Status
	if err := n.daemon(ctx, bus.OpStatus, nil, &s); err != nil {
		return "does not say what it does", err
	}
	if s.Log == "" {
		return "runs in somebody's foreground", nil
	}
	if s.Sessions > 0 {
		return "has " + plural(s.Sessions, "session"), nil
	}
	for _, m := range s.Meshes {
		if n := m.Outbox["pending"] + m.Outbox["inflight"]; n > 0 {
			return "is sending " + plural(n, "message"), nil
		}
		if s.Broker != nil && m.Peers > 0 {
			return "is the broker of " + plural(m.Peers, "peer"), nil
		}
	}
	if m, err := c.manager(); err == nil && m.Installed() {
		binary, _, err := c.stableBinary()
		if err != nil || !m.Current(c.serviceSpec(binary, n.dir)) {
			return "is a service of another program or place: claudemesh daemon install-service", nil
		}
	}
	return "", nil
}

// tellSometimes is tell for what stays true: once an hour, and when it changes.
func (c *call) tellSometimes(dir string, info bus.Info, what string) {
	path := filepath.Join(dir, toldFile)
	key := fmt.Sprintf("%d %s %s", info.PID, info.Version, c.release)
	st, err := os.Stat(path)
	if err == nil && c.clock.Since(st.ModTime()) < toldLife && st.Size() == int64(len(key)) {
		if old, err := os.ReadFile(path); err == nil && string(old) == key {
			return
		}
	}
	c.tell("warn", "%s", what)
	err = os.WriteFile(path, []byte(key), 0o600)
	now := c.clock.Now()
	_ = errors.Join(err, os.Chtimes(path, now, now)) // then it is said again
}
