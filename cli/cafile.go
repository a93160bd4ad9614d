package cli

import (
	"fmt"
	"os"
	"path/filepath"

	urfave "github.com/urfave/cli/v3"
)

// caEnv names a PEM file of certificate authorities for brokers at wss://, beside those of the system. Without it, ca.pem beside config.json is used.
const caEnv = "CLAUDEMESH_CA_FILE"

var caFlag = urfave.StringFlag{Name: "ca-file", Usage: "trust the authorities in this PEM `FILE`, too, for brokers at wss:// (default " + caEnv + ", else ~/.claudemesh/ca.pem)"}

// caFile is the file that was named, "" when none was. It must be there: a misspelt one would show much later, as a broker that is not trusted.
func (c *call) caFile() (string, error) {
	file := c.cmd.String("ca-file")
	if file == "" {
		file = c.getenv(caEnv)
	}
	if file == "" {
		return "", nil
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return "", fmt.Errorf("find CA file: %w", err)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("read CA file: %w", err)
	}
	return path, nil
}
