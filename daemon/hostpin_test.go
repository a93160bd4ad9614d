package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jonboulle/clockwork"

	"claudemesh/bus"
	"claudemesh/mesh"
)

// onHost are the options of a daemon on a host of that id; an empty one is a host that has none.
func onHost(dir, id string) Options {
	return Options{
		Dir: filepath.Join(dir, "d"), ConfigDir: dir, NoTCP: true, Version: "0.0.0-test", DisplayName: "owner", Clock: clockwork.NewRealClock(),
		HostID: func() (string, error) {
			if id == "" {
				return "", errors.New("this system has no machine id")
			}
			return id, nil
		},
	}
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "cm")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestADirectoryStartsOnItsHostOnly(t *testing.T) {
	dir := shortDir(t)
	start := func(id string) error {
		d, err := Start(t.Context(), onHost(dir, id))
		if err == nil {
			must(t, d.Stop())
		}
		return err
	}
	must(t, start("ada"))
	must(t, start("ada")) // whatever its network is now: it is not in the pin
	before := files(t, filepath.Join(dir, "d"))
	var foreign *ForeignHostError
	if err := start("eve"); !errors.As(err, &foreign) || foreign.Stored == foreign.Here || strings.Contains(err.Error(), "eve") {
		t.Fatalf("%v", err)
	}
	if after := files(t, filepath.Join(dir, "d")); strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("files before %q, after %q", before, after)
	}
	if bus.Held(filepath.Join(dir, "d")) {
		t.Error("the lock is held")
	}
	must(t, start("")) // nothing can be told, and that is said

	d, err := Start(t.Context(), onHost(dir, "ada"))
	must(t, err)
	for _, err := range []error{func() error { _, err := AcceptHost(onHost(dir, "ada")); return err }(), func() error { _, _, err := Remint(onHost(dir, "ada")); return err }()} {
		if !errors.Is(err, bus.ErrLocked) {
			t.Errorf("while it runs: %v", err)
		}
	}
	must(t, d.Stop())
	if _, err := AcceptHost(onHost(dir, "")); err == nil {
		t.Error("a host without an id was accepted")
	}
	_, err = AcceptHost(onHost(dir, "eve"))
	must(t, err)
	must(t, start("eve"))
	if err := start("ada"); !errors.As(err, &foreign) {
		t.Errorf("the host it was moved from: %v", err)
	}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestACopyThatIsBegunAnewLosesNothing(t *testing.T) {
	dir := shortDir(t)
	d, err := Start(t.Context(), onHost(dir, "ada"))
	must(t, err)
	_, err = ask[bus.MeshJoined](t, d.createMesh, bus.User, "", "", bus.MeshCreate{Name: "team"})
	must(t, err)
	must(t, d.Stop())
	before, err := os.ReadFile(filepath.Join(dir, "d", localTokenFile))
	must(t, err)

	aside, _, err := Remint(onHost(dir, "eve"))
	must(t, err)
	for _, name := range []string{outboxFile, inboxFile, sessionFile, localTokenFile, pinFile} {
		if _, err := os.Stat(filepath.Join(aside, name)); err != nil {
			t.Errorf("%s was not put aside: %v", name, err)
		}
	}
	d, err = Start(t.Context(), onHost(dir, "eve"))
	must(t, err)
	defer func() { must(t, d.Stop()) }()
	after, err := os.ReadFile(filepath.Join(dir, "d", localTokenFile))
	must(t, err)
	if string(before) == string(after) {
		t.Error("the copy has the other host's token")
	}
	config, err := mesh.LoadConfig(dir)
	must(t, err)
	if len(config.Meshes) != 1 {
		t.Errorf("%d memberships", len(config.Meshes))
	}
}

func TestAPinThatCannotBeReadOpensNothing(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "nonsense", "empty": "", "another program's": `{"schema_version":2,"host":"x"}`, "too long": strings.Repeat(" ", maxPin+1),
	} {
		t.Run(name, func(t *testing.T) {
			dir := shortDir(t)
			must(t, os.MkdirAll(filepath.Join(dir, "d"), 0o700))
			must(t, os.WriteFile(filepath.Join(dir, "d", pinFile), []byte(text), 0o600))
			if _, err := Start(t.Context(), onHost(dir, "ada")); !errors.Is(err, ErrHostPin) {
				t.Fatalf("%v", err)
			}
			if _, err := os.Stat(filepath.Join(dir, "d", outboxFile)); err == nil {
				t.Error("a store was opened")
			}
		})
	}
}

func TestAHostIsNamedByTheEnvironmentFirst(t *testing.T) {
	id, err := HostID(func(string) string { return "x" })
	if err != nil || id != "env:x" {
		t.Errorf("%q, %v", id, err)
	}
}
