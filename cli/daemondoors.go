package cli

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/daemon"
	"claudemesh/daemon/logfile"
)

// How a daemon that is started is reached, and where it writes what it does.

// doorFlags are the flags of daemon up and daemon restart about the daemon's doors.
func doorFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.BoolFlag{Name: "no-tcp", Usage: "no loopback TCP doors; the stock nats CLI cannot connect then"},
		&urfave.BoolFlag{Name: "no-http", Usage: "no HTTP for scripts, neither on http.sock nor on loopback"},
		&urfave.BoolFlag{Name: "public-health", Usage: "GET /v1/health on loopback answers without a token"},
		&urfave.BoolFlag{Name: "metrics", Usage: "GET /metrics has figures in the Prometheus format"},
	}
}

// doorArgs are those of the flags that are set, for the daemon that is spawned.
func (c *call) doorArgs() []string {
	var args []string
	for _, f := range doorFlags() {
		if name := f.Names()[0]; c.cmd.Bool(name) {
			args = append(args, "--"+name)
		}
	}
	return args
}

// doors enters the flags into a daemon's options.
func (c *call) doors(o *daemon.Options) {
	o.NoTCP, o.NoHTTP, o.PublicHealth, o.Metrics = c.cmd.Bool("no-tcp"), c.cmd.Bool("no-http"), c.cmd.Bool("public-health"), c.cmd.Bool("metrics")
}

// daemonLog is where a daemon in this process logs: stderr or, when that is the daemon's log file, that file with its bounds; path is then its name. Closing ends it.
func (c *call) daemonLog(dir string) (log *slog.Logger, path string, closeLog func() error, err error) {
	path = filepath.Join(dir, logFile)
	if !isFile(c.stderr, path) {
		return jsonLog(c.stderr), "", func() error { return nil }, nil
	}
	w, err := logfile.Open(path, logfile.MaxSize, logfile.Keep, takeOver)
	if err != nil {
		return nil, "", nil, err
	}
	return jsonLog(w), path, w.Close, nil
}

func jsonLog(w io.Writer) *slog.Logger { return slog.New(slog.NewJSONHandler(w, nil)) }

// isFile reports whether a stream is the file of that name.
func isFile(stream io.Writer, path string) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}
