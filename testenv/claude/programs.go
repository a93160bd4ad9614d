//go:build unix

package claude

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"claudemesh/cli"
	"claudemesh/testenv"
	"claudemesh/testenv/claude/fake"
)

// EnvBin names the real client.
const EnvBin = "CLAUDE_BIN"

// Programs that the test binary becomes under their names.
const (
	nameMesh = "claudemesh"
	nameFake = "claude"
)

// RunIfProgram is one of the programs, and ends the process, when the test binary was started under its name; else it does nothing. TestMain of every
// package that uses Programs calls it first.
func RunIfProgram() {
	testenv.RunIfChild()
	switch filepath.Base(os.Args[0]) {
	case nameMesh:
		os.Exit(cli.Main(os.Args))
	case nameFake:
		os.Exit(fake.Main())
	}
}

// Programs is a directory for PATH with the program "claudemesh" and the scripted client "claude". They are the test binary itself, under names that
// os.Executable tells too, so that what claudemesh writes into settings and scripts starts claudemesh and not the tests. The names in more are for programs
// of the test's own, which its TestMain must know.
func Programs(t testing.TB, more ...string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(testenv.TempDir(t), "bin")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(more, nameMesh, nameFake) {
		to := filepath.Join(dir, name)
		err := os.Link(exe, to)
		if errors.Is(err, syscall.EXDEV) || errors.Is(err, os.ErrPermission) {
			err = copyProgram(exe, to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
