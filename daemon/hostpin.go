package daemon

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/denisbrodbeck/machineid"
	"github.com/google/renameio/v2/maybe"

	"claudemesh/bus"
)

// The host pin: a data directory belongs to the host on which it was first used. A copy of it on another host would send the same outbox, speak with the keys
// of the same sessions and, worst, be the same broker a second time.
//
// Only the machine's own id is in it, the one that the operating system makes when it is installed. Addresses, interfaces and names change under a host that
// stays the same: with a dock, a VPN, a container's restart.

// pinFile is in the daemon directory, 0600.
const pinFile = "host-pin.json"

// maxPin bounds what is read of it.
const maxPin = 4 << 10

// HostIDEnv names this host where the system's machine id is none to rely on, as in containers that share an image.
const HostIDEnv = "CLAUDEMESH_HOST_ID"

// pin is what pinFile holds.
type pin struct {
	Version int    `json:"schema_version"`
	Host    string `json:"host"` // SHA-256 of the machine id, in hex: the id itself tells other programs who we are
	At      int64  `json:"written_at"`
}

// ErrHostPin: the pin of a data directory cannot be understood. It may be all that keeps two brokers apart, so nothing is opened.
var ErrHostPin = errors.New("the host pin is damaged")

// ForeignHostError: the data directory was last used on another host.
type ForeignHostError struct {
	Dir          string
	Stored, Here string // prefixes of hashes
}

func (e *ForeignHostError) Error() string {
	return fmt.Sprintf("%s was last used on another host (it says %s, this host is %s); nothing was opened", e.Dir, e.Stored, e.Here)
}

// HostID is this host's own id, as HostIDEnv or the operating system tells it. The error says why there is none.
func HostID(getenv func(string) string) (string, error) {
	if id := getenv(HostIDEnv); id != "" {
		return "env:" + id, nil
	}
	id, err := machineid.ID()
	if err != nil {
		return "", fmt.Errorf("read machine id: %w", err)
	}
	if id = strings.TrimSpace(id); id == "" || id == "uninitialized" { // as systemd writes into images
		return "", errors.New("this system has no machine id")
	}
	return id, nil
}

func hashHost(id string) string {
	sum := sha256.Sum256([]byte("claudemesh-host-pin\x00" + id))
	return hex.EncodeToString(sum[:])
}

// readPin returns the pin of a directory; ok is false when there is none. One that cannot be understood is an error: it may be all that keeps two brokers
// apart.
func readPin(dir string) (p pin, ok bool, err error) {
	path := filepath.Join(dir, pinFile)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	if err == nil && st.Size() > maxPin {
		err = fmt.Errorf("it has %d bytes", st.Size())
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err == nil && (p.Version != 1 || len(p.Host) != 2*sha256.Size) {
		err = errors.New("it is not of this program")
	}
	if err != nil {
		return p, false, fmt.Errorf("%w: %s: %w", ErrHostPin, path, err)
	}
	return p, true, nil
}

// checkHost holds the directory against this host, and pins it when nobody has. Where this system has no id nothing can be told, and the user is.
func (d *Daemon) checkHost() error {
	stored, pinned, err := readPin(d.opt.Dir)
	if err != nil {
		return err
	}
	id, err := d.opt.HostID()
	if err != nil {
		d.notice(fmt.Sprintf("a copy of the data directory on another host would not be noticed: %v; name this host with %s", err, HostIDEnv))
		return nil
	}
	here := hashHost(id)
	switch {
	case !pinned:
		return writePin(d.opt.Dir, here, d.started.UnixMilli())
	case stored.Host != here:
		return &ForeignHostError{Dir: d.opt.Dir, Stored: stored.Host[:16], Here: here[:16]}
	}
	return nil
}

func writePin(dir, host string, at int64) error {
	b, err := json.Marshal(pin{Version: 1, Host: host, At: at})
	if err == nil {
		err = maybe.WriteFile(filepath.Join(dir, pinFile), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write host pin: %w", err)
	}
	return nil
}

// AcceptHost pins a data directory to this host, with all that is in it: the directory has moved, and nobody uses the original any more. It returns a prefix of
// the host's hash, and bus.ErrLocked while a daemon runs there.
func AcceptHost(o Options) (string, error) {
	o = o.withDefaults()
	lock, err := bus.AcquireLock(o.Dir)
	if err != nil {
		return "", err
	}
	defer lock.Release()
	return acceptHost(o)
}

func acceptHost(o Options) (string, error) {
	id, err := o.HostID()
	if err != nil {
		return "", err
	}
	here := hashHost(id)
	return here[:16], writePin(o.Dir, here, o.Clock.Now().UnixMilli())
}

// Remint begins the data directory anew on this host: the directory is a copy, and the original is still in use. Whatever the other host goes on with (outbox,
// inbox, sessions and their keys, tokens, a broker's store) is put aside, into the directory it returns; memberships are not in it and stay. It returns
// bus.ErrLocked while a daemon runs there.
func Remint(o Options) (aside, prefix string, err error) {
	o = o.withDefaults()
	lock, err := bus.AcquireLock(o.Dir)
	if err != nil {
		return "", "", err
	}
	defer lock.Release()
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		return "", "", fmt.Errorf("read daemon directory: %w", err)
	}
	aside = filepath.Join(o.Dir, "aside-"+o.Clock.Now().UTC().Format("20060102T150405Z"))
	if err := os.Mkdir(aside, 0o700); err != nil {
		return "", "", fmt.Errorf("put data aside: %w", err)
	}
	for _, e := range entries {
		if keptByRemint(e.Name()) {
			continue
		}
		if err := os.Rename(filepath.Join(o.Dir, e.Name()), filepath.Join(aside, e.Name())); err != nil {
			return aside, "", fmt.Errorf("put data aside: %w", err)
		}
	}
	prefix, err = acceptHost(o)
	return aside, prefix, err
}

// keptByRemint are the lock that is held, the lock of whoever waits for it, what was put aside before, and the log.
func keptByRemint(name string) bool {
	return strings.HasSuffix(name, ".lock") || strings.HasPrefix(name, "aside-") || strings.HasPrefix(name, "daemon.log")
}
