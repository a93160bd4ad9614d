package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

const (
	configName = "config.json"
	// maxConfig bounds config.json in bytes; a membership takes about 600.
	maxConfig = 4 << 20
)

// ConfigPath is the config file in a configuration directory.
func ConfigPath(dir string) string { return filepath.Join(dir, configName) }

// LoadConfig reads config.json in dir. A missing file is an empty Config; one that
// cannot be understood, or is longer than 4 MiB, is an error that wraps
// [ErrConfigCorrupt]. It takes no lock: the file is only ever replaced as a whole.
func LoadConfig(dir string) (*Config, error) {
	path := filepath.Join(dir, configName)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Config{Meshes: []Joined{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load config: %w", err)
	}
	// Opening a pipe would wait for its writer.
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("load config: %w: %s is not a regular file", ErrConfigCorrupt, path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load config: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("load config: %w", err)
	}
	c, err := parseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("load config %s: %w", path, err)
	}
	return c, nil
}

func parseConfig(text []byte) (*Config, error) {
	if len(text) > maxConfig {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrConfigCorrupt, maxConfig)
	}
	// Tested here because encoding/json would report it without ErrConfigCorrupt
	// and quote a byte of the text.
	if !json.Valid(text) {
		return nil, fmt.Errorf("%w: not valid JSON", ErrConfigCorrupt)
	}
	c := new(Config)
	if err := c.UnmarshalJSON(text); err != nil {
		return nil, err
	}
	return c, nil
}

func formatConfig(c *Config) ([]byte, error) {
	raw, err := c.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := json.Indent(&text, raw, "", "  "); err != nil {
		return nil, err
	}
	text.WriteByte('\n')
	return text.Bytes(), nil
}

// UpdateConfig loads config.json in dir, lets edit change it, and replaces the
// file, all under an exclusive lock on config.json.lock, so that of two joins at
// once neither is lost. The directory is made and set to 0700, the file is 0600.
//
// Nothing is written when the file cannot be understood ([ErrConfigCorrupt]) or
// edit returns an error, which is returned as it is. edit must be quick: other
// processes wait for it.
func UpdateConfig(dir string, edit func(*Config) error) (err error) {
	if err := privateDir(dir); err != nil {
		return fmt.Errorf("update config: %w", err)
	}
	path := filepath.Join(dir, configName)
	lock := flock.New(path+".lock", flock.SetPermissions(0o600))
	if err := lock.Lock(); err != nil {
		return fmt.Errorf("lock config: %w", err)
	}
	defer func() {
		if closeErr := lock.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("unlock config: %w", closeErr)
		}
	}()
	c, err := LoadConfig(dir)
	if err != nil {
		return err
	}
	if err := edit(c); err != nil {
		return err
	}
	text, err := formatConfig(c)
	if err != nil {
		return fmt.Errorf("encode config: %w", err)
	}
	// What this program could not load again, it must not leave behind.
	if _, err := parseConfig(text); err != nil {
		return fmt.Errorf("update config: %w", err)
	}
	if err := replaceFile(path, text); err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	return nil
}

// privateDir makes dir and closes it to others. A shared directory such as /tmp,
// known by its sticky bit, is refused: closing it would break its other users.
func privateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSticky != 0 {
		return fmt.Errorf("%s is a directory shared with other users", dir)
	}
	if info.Mode().Perm() == 0o700 {
		return nil
	}
	return os.Chmod(dir, 0o700)
}

// WritePrivate puts text in place of the file path, as a whole and 0600; its
// directory is made if need be and closed to others. It is for files beside
// config.json that hold secrets as well.
func WritePrivate(path string, text []byte) error {
	if err := privateDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	if err := replaceFile(path, text); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}
