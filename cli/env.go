package cli

import (
	"io"
	"os"

	"github.com/jonboulle/clockwork"
	"golang.org/x/term"

	"claudemesh/daemon"
)

// env is the world as a run of the program sees it. Tests bring their own.
type env struct {
	args   []string // with the program's name in front
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer

	getenv     func(string) string
	environ    func() []string
	executable func() (string, error) // the file to start as daemon
	clock      clockwork.Clock
	rooms      rooms
	release    string // the version of this program
}

// hostEnv is the real world.
func hostEnv(args []string) *env {
	return &env{
		args: args, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		getenv: os.Getenv, environ: os.Environ, executable: os.Executable, clock: clockwork.NewRealClock(),
		rooms: rooms{daemon: daemon.Run, broker: daemon.ServeBroker, store: daemon.ServeStore}, release: Version,
	}
}

// terminal reports whether a stream is one that a person sits at.
func terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
