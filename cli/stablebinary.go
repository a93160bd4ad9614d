package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// stableBinary is the path of this program as it may be written into other programs' files: absolute, and one that outlives an upgrade. A name on PATH
// that leads to this program is better than the file itself, which a package manager replaces by one of another name.
func (c *call) stableBinary() (path string, onPath bool, err error) {
	exe, err := c.executable()
	if err != nil {
		return "", false, fmt.Errorf("find own executable: %w", err)
	}
	self, err := os.Stat(exe)
	if err != nil {
		return "", false, fmt.Errorf("find own executable: %w", err)
	}
	name := "claudemesh"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	path = exe
	for _, dir := range filepath.SplitList(c.getenv("PATH")) {
		candidate := filepath.Join(dir, name)
		st, err := os.Stat(candidate)
		if !filepath.IsAbs(dir) || err != nil || st.IsDir() {
			continue
		}
		// Only the first one counts: it is what a shell runs.
		if onPath = os.SameFile(self, st); onPath {
			path = candidate
		}
		break
	}
	for _, part := range strings.Split(filepath.ToSlash(path), "/") {
		if strings.HasPrefix(part, "go-build") {
			return "", false, &usageError{message: path + " was built by go run and will be gone", hint: "build it where it can stay: make install"}
		}
	}
	if filepath.Base(path) != name {
		return "", false, &usageError{message: path + " is not named " + name, hint: "the skill and the permission rules call it claudemesh: give it that name, on your PATH"}
	}
	return path, onPath, nil
}
