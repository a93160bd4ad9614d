package urlhandler

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Paths: a plain one, and one that means something to a shell, a script or a desktop file.
var binaries = map[string]string{"plain": "/usr/local/bin/claudemesh", "odd": "/home/ada b/50% \"$HOME\" `x` \\ <&>;/claudemesh"}

func TestTheFilesAreAsReviewed(t *testing.T) {
	for name, binary := range binaries {
		var registry strings.Builder
		for _, v := range registryValues(strings.ReplaceAll(binary, "/", `\`)) {
			fmt.Fprintf(&registry, "%s\t%q\t%s\n", v.key, v.name, v.value)
		}
		for file, got := range map[string]string{
			name + ".desktop": desktopEntry(binary), name + ".applescript": appleScript(binary), name + ".reg.txt": registry.String(), "plist.txt": strings.Join(plistEdits(), "\n") + "\n",
		} {
			path := filepath.Join("testdata", file)
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(want) != got {
				t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
			}
		}
	}
}

func TestTheDesktopFileIsValid(t *testing.T) {
	tool, err := exec.LookPath("desktop-file-validate")
	if err != nil {
		t.Skip("desktop-file-validate is not here: ", err)
	}
	for name, binary := range binaries {
		path := filepath.Join(t.TempDir(), "claudemesh.desktop")
		if err := os.WriteFile(path, []byte(desktopEntry(binary)), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(tool, path).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
