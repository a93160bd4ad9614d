package bus

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/renameio/v2/maybe"
)

// rememberedPort is the port that the TCP door had last time, 0 if unknown: contexts of the nats CLI name it.
func rememberedPort(dir string) int {
	b, err := os.ReadFile(filepath.Join(dir, portFile))
	if err != nil {
		return 0
	}
	p, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || p < 1024 || p > 65535 {
		return 0
	}
	return p
}

func rememberPort(dir string, port int) error {
	if port == rememberedPort(dir) {
		return nil
	}
	if err := maybe.WriteFile(filepath.Join(dir, portFile), []byte(strconv.Itoa(port)+"\n"), 0o600); err != nil {
		return fmt.Errorf("remember the port: %w", err)
	}
	return nil
}
