package daemon

import (
	"crypto/tls"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"claudemesh/bridge"
)

// caFile is looked for in the configuration directory when no other file is named.
const caFile = "ca.pem"

func (d *Daemon) tls() (*tls.Config, error) { return authorities(d.opt) }

// authorities says whom to trust at wss:// addresses: the system's authorities, and those of a file. nil means the system's alone.
func authorities(o Options) (*tls.Config, error) {
	path := o.CAFile
	if path == "" {
		path = filepath.Join(o.ConfigDir, caFile)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	return bridge.TrustFile(path)
}
