package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/cli/backup"
	"claudemesh/mesh"
)

// What a backup may hold, and where that lies. Nothing else is ever written by a restore.
const (
	backupConfig = "config.json"
	backupAuth   = "auth.json"
	backupCA     = "ca.pem"
	daemonPart   = "daemon/"
)

// daemonFiles are the databases, with what was not yet moved into them.
func daemonFiles() (names []string) {
	for _, db := range []string{"outbox.db", "inbox.db", "sessions.db"} {
		names = append(names, db, db+"-wal")
	}
	return names
}

func backupVerb() verb {
	return verb{
		name: "backup", args: "[FILE]", short: "save your memberships, sealed with a passphrase",
		long: `Writes config.json with the keys of your memberships, the sign-in to a broker and the authorities that you trust into FILE (default
claudemesh-backup-TIME.cmb; 0600), sealed with a passphrase of at least 12 characters. --messages adds outbox, inbox and sessions; the daemon must be down for that. Whoever has file and passphrase
is you. The store of a broker that runs inside your daemon is not in it: meshes that live there are named.`,
		examples: []string{"claudemesh backup", "claudemesh backup keys.cmb --passphrase-file pass.txt", "claudemesh daemon down && claudemesh backup all.cmb --messages"},
		fails: []string{
			"3  no passphrase, a short one, or two that differ", "5  nothing to back up", "6  FILE exists (--force replaces it); --messages while the daemon runs", "7  inside a session",
			"10  a file cannot be read or written",
		},
		flags: []urfave.Flag{
			passphraseFlag(), &urfave.BoolFlag{Name: "messages", Usage: "outbox, inbox and sessions, too"}, &urfave.BoolFlag{Name: "force", Usage: "replace FILE"},
		},
		run: func(_ context.Context, c *call) error {
			if err := c.want(0, 1, "claudemesh backup [FILE]"); err != nil {
				return err
			}
			return c.backup()
		},
	}
}

func (c *call) backup() error {
	if err := c.userOnly(); err != nil {
		return err
	}
	dir, err := c.configDir()
	if err != nil {
		return err
	}
	config, err := mesh.LoadConfig(dir)
	if err != nil {
		return err
	}
	if len(config.Meshes) == 0 {
		return &failure{Code: "nothing_to_back_up", Message: "no mesh is joined here: there is nothing to back up", Exit: exitNotFound}
	}
	var files []backup.File
	for _, name := range []string{backupConfig, backupAuth, backupCA} {
		if files, err = addFile(files, filepath.Join(dir, name), name); err != nil {
			return err
		}
	}
	if c.cmd.Bool("messages") {
		unlock, daemonDir, err := c.lockDaemon()
		if err != nil {
			return err
		}
		for _, name := range daemonFiles() {
			if files, err = addFile(files, filepath.Join(daemonDir, name), daemonPart+name); err != nil {
				break
			}
		}
		if err := errors.Join(err, unlock()); err != nil {
			return err
		}
	}
	pass, err := c.passphrase(true)
	if err != nil {
		return err
	}
	data, err := backup.Seal(files, pass, rand.Reader)
	if err != nil {
		return backupFailure(err)
	}
	path := "claudemesh-backup-" + strings.NewReplacer(":", "-", ".", "-").Replace(c.clock.Now().UTC().Format("2006-01-02T15:04:05.000Z")) + ".cmb"
	if len(c.args()) == 1 {
		path = c.args()[0]
	}
	out, err := newFile(path, c.cmd.Bool("force"))
	if err != nil {
		return err
	}
	_, err = out.Write(data)
	if err = out.finish(errors.Join(err, out.Sync())); err != nil {
		return err
	}
	local := []string{}
	for _, j := range config.Meshes {
		if loopbackURL(j.BrokerURL) {
			local = append(local, j.Slug)
		}
	}
	return c.ui.result(map[string]any{
		"ok": true, "file": path, "bytes": len(data), "meshes": config.Slugs(), "messages": c.cmd.Bool("messages"), "broker_not_included": local,
	}, func() error {
		if len(local) > 0 {
			c.ui.warn("the broker of %s is on this machine, and its store is not in the backup (docs/broker-storage.md says how to save that)", strings.Join(local, ", "))
		}
		return c.ui.print("backed up %s to %s; keep the passphrase elsewhere", plural(len(config.Meshes), "membership"), path)
	})
}

func addFile(files []backup.File, path, name string) ([]backup.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return files, nil
	}
	if err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, backup.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("back up %s: %w", name, err)
	}
	return append(files, backup.File{Name: name, Data: data}), nil
}

// lockDaemon keeps a daemon from starting while its files are read or written.
func (c *call) lockDaemon() (unlock func() error, dir string, err error) {
	if dir, err = c.daemonDir(); err != nil {
		return nil, "", err
	}
	lock, err := bus.AcquireLock(dir)
	if errors.Is(err, bus.ErrLocked) {
		return nil, "", &failure{Code: "daemon_running", Message: "the daemon runs, and its files change while it does; nothing was done", Hint: "stop it first: claudemesh daemon down", Exit: exitConflict}
	}
	if err != nil {
		return nil, "", err
	}
	return lock.Release, dir, nil
}

func backupFailure(err error) error {
	f := &failure{Code: "backup_damaged", Message: err.Error() + "; nothing was changed", Exit: exitUsage}
	switch {
	case errors.Is(err, backup.ErrPassphrase):
		f.Code, f.Exit, f.Hint = "wrong_passphrase", exitPermission, "try again; the file is as it was"
	case errors.Is(err, backup.ErrTruncated):
		f.Code, f.Hint = "backup_truncated", "copy it again from where it came"
	case errors.Is(err, backup.ErrDamaged):
	case errors.Is(err, backup.ErrFormat):
		f.Code = "no_backup"
	case errors.Is(err, backup.ErrVersion):
		f.Code, f.Hint = "backup_too_new", "install a newer claudemesh"
	case errors.Is(err, backup.ErrParameters):
		f.Code, f.Hint = "backup_hostile", "it was not made by this program; nothing of it was tried"
	case errors.Is(err, backup.ErrTooLarge):
		f.Code, f.Message, f.Hint = "too_large", err.Error(), "leave out --messages"
	default:
		return err
	}
	return f
}

func restoreVerb() verb {
	return verb{
		name: "restore", args: "FILE", short: "put a backup in place",
		long: `Makes this machine the members that the backup was of: it can read and write as they could. What is here now is kept beside it, as
config.json.before-restore.TIME and so on; where meshes are joined it asks first, or takes --yes. A daemon that runs is stopped, and starts with the next command.
Two machines with the same keys are one member with one mailbox: each message is taken by the one that asks first.`,
		examples: []string{"claudemesh restore keys.cmb", "claudemesh restore keys.cmb --passphrase-file pass.txt --yes"},
		fails: []string{
			"3  FILE is no backup, cut off, damaged or hostile; nobody to ask and no --yes", "7  the passphrase is wrong; inside a session", "8  the daemon does not stop", "10  a file cannot be read or written",
		},
		flags: []urfave.Flag{passphraseFlag(), yesFlag()},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh restore FILE"); err != nil {
				return err
			}
			return c.restore(ctx, c.args()[0])
		},
	}
}

func (c *call) restore(ctx context.Context, path string) error {
	if err := c.userOnly(); err != nil {
		return err
	}
	dir, err := c.configDir()
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, backup.MaxSize+backup.MaxSize/8+1))
	if err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	pass, err := c.passphrase(false)
	if err != nil {
		return err
	}
	files, err := backup.Open(data, pass)
	if err != nil {
		return backupFailure(err)
	}
	config, err := checkBackup(files)
	if err != nil {
		return backupFailure(err)
	}
	present, err := mesh.LoadConfig(dir)
	if err != nil && !errors.Is(err, mesh.ErrConfigCorrupt) {
		return err
	}
	if err != nil || len(present.Meshes) > 0 {
		if err := c.confirm("replace the memberships of this machine by those of the backup? What is here is kept under another name"); err != nil {
			return err
		}
	}
	kept, err := c.putBack(ctx, dir, files)
	if err != nil {
		return err
	}
	return c.ui.result(map[string]any{"ok": true, "meshes": config.Slugs(), "files": fileNames(files), "kept": kept}, func() error {
		if err := c.ui.print("restored %s: %s", plural(len(config.Meshes), "membership"), strings.Join(config.Slugs(), ", ")); err != nil {
			return err
		}
		for _, k := range kept {
			if err := c.ui.print("  kept  %s", k); err != nil {
				return err
			}
		}
		return nil
	})
}

func fileNames(files []backup.File) (names []string) {
	for _, f := range files {
		names = append(names, f.Name)
	}
	return names
}

// checkBackup makes sure that all of it can be put in place before any of it is.
func checkBackup(files []backup.File) (*mesh.Config, error) {
	var config *mesh.Config
	for _, f := range files {
		db, isDaemon := strings.CutPrefix(f.Name, daemonPart)
		switch {
		case f.Name == backupConfig:
			config = new(mesh.Config)
			if err := config.UnmarshalJSON(f.Data); err != nil {
				return nil, fmt.Errorf("%w: its config.json is not understood", backup.ErrDamaged)
			}
		case f.Name == backupAuth, f.Name == backupCA, isDaemon && slices.Contains(daemonFiles(), db):
		default:
			return nil, fmt.Errorf("%w: it holds a file that does not belong there", backup.ErrDamaged)
		}
	}
	if config == nil {
		return nil, fmt.Errorf("%w: it holds no config.json", backup.ErrDamaged)
	}
	return config, nil
}

// putBack writes the files while no daemon runs. What it replaces is kept beside, first.
func (c *call) putBack(ctx context.Context, dir string, files []backup.File) (kept []string, err error) {
	if _, err := c.down(ctx); err != nil && !errors.Is(err, bus.ErrNoDaemon) {
		return nil, err
	}
	unlock, daemonDir, err := c.lockDaemon()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	stamp := fmt.Sprintf(".before-restore.%d", c.clock.Now().UnixMilli())
	var place []string // of each file
	for _, f := range files {
		at := filepath.Join(dir, f.Name)
		if name, ok := strings.CutPrefix(f.Name, daemonPart); ok {
			at = filepath.Join(daemonDir, name)
		}
		place = append(place, at)
	}
	aside := slices.Clone(place)
	if slices.ContainsFunc(files, func(f backup.File) bool { return strings.HasPrefix(f.Name, daemonPart) }) {
		// A log of another database would be played into this one.
		for _, name := range daemonFiles() {
			aside = append(aside, filepath.Join(daemonDir, name), filepath.Join(daemonDir, strings.TrimSuffix(name, "-wal")+"-shm"))
		}
	}
	slices.Sort(aside)
	for _, at := range slices.Compact(aside) {
		switch err := os.Rename(at, at+stamp); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return kept, fmt.Errorf("keep what is here: %w", err)
		default:
			kept = append(kept, at+stamp)
		}
	}
	for i, f := range files {
		if err := mesh.WritePrivate(place[i], f.Data); err != nil {
			return kept, fmt.Errorf("%w; what was here is kept: %s", err, strings.Join(kept, ", "))
		}
	}
	return kept, nil
}
