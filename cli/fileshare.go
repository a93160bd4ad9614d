package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// fileLimit is how long the daemon may take to move one file.
const fileLimit = time.Hour

func fileShareVerb() verb {
	return verb{
		name: "share", args: "PATH", short: "share a file with a peer, or with the whole mesh",
		long: `With --to the file is for that peer's member only, who is told by a message how to get it. Without it everybody who is a member now gets
a key; who joins later does not, until you say: claudemesh file grant ID --to PEER.

--json prints {mode, fileId, name, sizeBytes, to, mesh, encrypted, recipients}, with --to also toKey and messageId.`,
		examples: []string{"claudemesh file share report.pdf", `claudemesh file share build.log --to bob --message "fails at line 40" --tags ci,log`},
		fails: []string{
			"3  PATH is no ordinary file or over 50 MiB, or several peers are called that", "4  the broker cannot be reached, or did not take the file", "5  no such peer",
			"7  this session lacks the capability files", "10  the file cannot be read",
		},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "to", Usage: "the `PEER` it is for: a name, or 16 to 64 hex digits of a key"},
			&urfave.StringFlag{Name: "tags", Usage: "comma-separated `TAGS`, which the broker can read"},
			&urfave.StringFlag{Name: "message", Usage: "a `TEXT` for the peer, beside how to get the file"},
			&urfave.BoolFlag{Name: "ephemeral", Usage: "the broker is to delete it after a day"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh file share PATH [--to PEER]"); err != nil {
				return err
			}
			s := &shared{call: c, to: c.cmd.String("to"), message: c.cmd.String("message")}
			if s.message != "" && s.to == "" {
				return usagef("--message belongs to --to")
			}
			if len(s.message) > mesh.MaxBody/2 {
				return usagef("--message has at most %d bytes", mesh.MaxBody/2)
			}
			if err := checkText(s.message); s.message != "" && err != nil {
				return err
			}
			return s.run(ctx, c.args()[0])
		},
	}
}

// shared is one file being shared.
type shared struct {
	*call
	to, message string
}

func (s *shared) run(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return fmt.Errorf("read file: %w", err)
	case !info.Mode().IsRegular():
		return usagef("%s is no ordinary file", path)
	case info.Size() > mesh.MaxFile:
		return &usageError{message: fmt.Sprintf("the file has %s, the limit is %s", byteSize(info.Size()), byteSize(mesh.MaxFile)), hint: "share it in parts"}
	}
	begin := bus.FileBegin{Name: filepath.Base(f.Name()), Size: info.Size(), To: s.to, Ephemeral: s.cmd.Bool("ephemeral")}
	for _, tag := range strings.Split(s.cmd.String("tags"), ",") {
		if tag = strings.TrimSpace(tag); tag != "" {
			begin.Tags = append(begin.Tags, tag)
		}
	}
	if err := errors.Join(wire.CheckFileName(begin.Name), wire.CheckFileTags(begin.Tags)); err != nil {
		return usagef("%v", err)
	}
	var out bus.FileShared
	var told *bus.SendReply
	var tellErr error
	var slugUsed string
	err = s.onMesh(ctx, func(ctx context.Context, n *conn, slug string) error {
		slugUsed, begin.Mesh = slug, slug
		if _, err := f.Seek(0, io.SeekStart); err != nil { // this may be asked again
			return fmt.Errorf("read file: %w", err)
		}
		var t bus.FileTransfer
		if err := n.daemon(ctx, bus.OpFileBegin, begin, &t); err != nil {
			return err
		}
		defer n.endTransfer(t)
		if err := s.send(ctx, n, t, f, begin); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, fileLimit)
		defer cancel()
		err := s.meter("uploading "+begin.Name).during(ctx, n.progressOf(t), func(ctx context.Context) error { return n.daemon(ctx, bus.OpFileCommit, t, &out) })
		if err == nil && s.to != "" {
			told, tellErr = s.tell(ctx, n, slug, out)
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.report(slugUsed, out, told, tellErr)
}

// send hands the file to the daemon, chunk by chunk.
func (s *shared) send(ctx context.Context, n *conn, t bus.FileTransfer, f io.Reader, begin bus.FileBegin) error {
	m := s.meter("reading " + begin.Name)
	defer m.clear()
	chunk := make([]byte, bus.FileChunkSize)
	for offset := int64(0); offset < begin.Size; {
		size, err := io.ReadFull(f, chunk[:min(int64(len(chunk)), begin.Size-offset)])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return &bus.APIError{Code: 409, Reason: "file_changed", Detail: "the file became shorter while it was read; nothing was shared"}
		}
		if err != nil {
			return fmt.Errorf("read file: %w", err)
		}
		if err := n.daemon(ctx, bus.OpFileChunk, bus.FileChunk{ID: t.ID, Offset: offset, Data: chunk[:size]}, nil); err != nil {
			return err
		}
		offset += int64(size)
		m.set(offset, begin.Size)
	}
	return nil
}

// tell writes to the peer how to get the file. The message id is made of the file's: a repeat is the same message.
func (s *shared) tell(ctx context.Context, n *conn, slug string, f bus.FileShared) (*bus.SendReply, error) {
	body := fmt.Sprintf("I share a file with you: %s (%s). Get it with: claudemesh file get %s --mesh %s", f.Name, byteSize(f.Size), f.FileID, slug)
	if s.message != "" {
		body += "\n\n" + s.message
	}
	var reply bus.SendReply
	err := n.Do(ctx, bus.SendSubject(slug, n.actor, bus.SendDM), bus.SendRequest{To: s.to, Body: body, ClientMessageID: "file-" + f.FileID}, &reply)
	return &reply, err
}

func (s *shared) report(slug string, f bus.FileShared, told *bus.SendReply, tellErr error) error {
	out := map[string]any{
		"mode": "upload", "fileId": f.FileID, "name": f.Name, "sizeBytes": f.Size, "to": nilIfEmpty(s.to), "mesh": slug, "encrypted": true, "recipients": f.Recipients,
	}
	if f.ToKey != "" {
		out["toKey"] = f.ToKey
	}
	if len(f.Missed) > 0 {
		out["missed"] = f.Missed
	}
	var failed *failure
	if tellErr != nil {
		failed = explain(tellErr)
		out["messageError"] = failed.Code
	} else if told != nil {
		out["messageId"] = told.ClientMessageID
	}
	err := s.ui.result(out, func() error {
		with := plural(f.Recipients, "member")
		if s.to != "" {
			with = peerText(f.ToName, f.ToKey)
		}
		if err := s.ui.print("shared %s (%s) with %s\n  claudemesh file get %s", cleanLine(f.Name), byteSize(f.Size), with, cleanLine(f.FileID)); err != nil {
			return err
		}
		if len(f.Missed) > 0 {
			s.ui.warn("these could not be given the key: %s", cleanLine(strings.Join(f.Missed, ", ")))
		}
		if failed != nil {
			s.ui.warn("the file is shared, but the message about it was not accepted: %s", failed.Message)
		}
		return nil
	})
	if err == nil && failed != nil {
		return &exitError{failed.Exit}
	}
	return err
}

// endTransfer lets the daemon forget a transfer, also after an interrupt: what it does not hear of it forgets by itself after a while.
func (n *conn) endTransfer(t bus.FileTransfer) {
	ctx, cancel := context.WithTimeout(context.Background(), bus.DefaultConnectTimeout)
	defer cancel()
	_ = n.daemon(ctx, bus.OpFileClose, t, nil)
}

// progressOf asks how far the daemon's part of a transfer has come.
func (n *conn) progressOf(t bus.FileTransfer) func(context.Context) (done, total int64, err error) {
	return func(ctx context.Context) (int64, int64, error) {
		var p bus.FileProgress
		err := n.daemon(ctx, bus.OpFileProgress, t, &p)
		return p.Done, p.Total, err
	}
}
