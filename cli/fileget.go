package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/wire"
)

func fileGetVerb() verb {
	return verb{
		name: "get", args: "ID", short: "fetch a file and decrypt it",
		long: `Saves it here under its own name, or where --out says: a file, a directory that exists, or "-" for stdout. Directories above --out are made.
A file that exists is not touched without --force. The name was chosen by another: one with a path in it, or hidden, is not used.

--json prints {fileId, name, savedTo, sizeBytes, encrypted}.`,
		examples: []string{"claudemesh file get 8sJ2…", "claudemesh file get 8sJ2… --out /tmp/report.pdf", "claudemesh file get 8sJ2… --out - | less"},
		fails: []string{
			"3  the file's name cannot be used here", "4  the broker cannot be reached", "5  no such file", "6  a file of that name exists, or this one is damaged",
			"7  the file is not for you, or this session lacks the capability files", "10  the file cannot be written",
		},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "out", Usage: "save it as `PATH`"},
			&urfave.BoolFlag{Name: "force", Usage: "replace a file that exists"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh file get ID [--out PATH]"); err != nil {
				return err
			}
			if c.ui.json && c.cmd.String("out") == "-" {
				return usagef(`--out - and --json both want stdout`)
			}
			return c.getFile(ctx, c.args()[0])
		},
	}
}

func (c *call) getFile(ctx context.Context, id string) error {
	var opened bus.FileOpened
	var fetched bus.FileFetched
	var path string
	err := c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
		if err := n.daemon(ctx, bus.OpFileOpen, bus.FileOpen{Mesh: slug, FileID: id}, &opened); err != nil {
			return err
		}
		t := bus.FileTransfer{ID: opened.ID}
		defer n.endTransfer(t)
		var err error
		if path, err = c.savePath(opened.Name); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, fileLimit)
		defer cancel()
		err = c.meter("downloading "+opened.Name).during(ctx, n.progressOf(t), func(ctx context.Context) error { return n.daemon(ctx, bus.OpFileFetch, t, &fetched) })
		if err != nil {
			return err
		}
		return c.save(ctx, n, t, path, fetched.Size)
	})
	if err != nil || path == "-" {
		return err
	}
	out := map[string]any{"fileId": id, "name": opened.Name, "savedTo": path, "sizeBytes": fetched.Size, "encrypted": opened.Encrypted}
	return c.ui.result(out, func() error {
		how := "decrypted"
		if !opened.Encrypted {
			how = "it was not encrypted"
		}
		return c.ui.print("saved %s (%s, %s)", cleanLine(path), byteSize(fetched.Size), how)
	})
}

// savePath decides where a file goes, before its bytes are fetched.
func (c *call) savePath(name string) (string, error) {
	path := c.cmd.String("out")
	if path == "-" {
		return path, nil
	}
	info, err := os.Stat(path)
	if path == "" || err == nil && info.IsDir() || strings.HasSuffix(path, string(filepath.Separator)) {
		// The name comes from somebody else: it must stay a name.
		if wire.CheckFileName(name) != nil || !filepath.IsLocal(name) || strings.HasPrefix(name, ".") {
			return "", &usageError{message: "the file is called " + quoted(name) + ", which is not used as a name here", hint: "choose one with --out PATH"}
		}
		path = filepath.Join(path, name)
	}
	if _, err := os.Lstat(path); err == nil && !c.cmd.Bool("force") {
		return "", &existsError{path}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look at %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	return path, nil
}

// save reads a fetched file from the daemon.
func (c *call) save(ctx context.Context, n *conn, t bus.FileTransfer, path string, size int64) error {
	if path == "-" {
		return n.copyFile(ctx, c.stdout, t, size)
	}
	f, err := newFile(path, c.cmd.Bool("force"))
	if err != nil {
		return err
	}
	return f.finish(n.copyFile(ctx, f, t, size))
}

func (n *conn) copyFile(ctx context.Context, w io.Writer, t bus.FileTransfer, size int64) error {
	for offset := int64(0); offset < size; {
		var chunk bus.FileData
		if err := n.daemon(ctx, bus.OpFileRead, bus.FileRead{ID: t.ID, Offset: offset}, &chunk); err != nil {
			return err
		}
		if len(chunk.Data) == 0 {
			return io.ErrUnexpectedEOF
		}
		if _, err := w.Write(chunk.Data); err != nil {
			return err
		}
		offset += int64(len(chunk.Data))
	}
	return nil
}
