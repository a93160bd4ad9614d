//go:build unix

package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"claudemesh/bus"
)

// The broker says how a file is called, and what it says is what another member said.
func TestTheNameOfAFetchedFile(t *testing.T) {
	name, asked := "", 0
	s := newScripted(t, map[string]bus.Handler{
		bus.OpFileOpen:  func(context.Context, *bus.Call) (any, error) { return bus.FileOpened{ID: "t", Name: name}, nil },
		bus.OpFileFetch: func(context.Context, *bus.Call) (any, error) { asked++; return bus.FileFetched{Size: 2}, nil },
		bus.OpFileRead:  func(context.Context, *bus.Call) (any, error) { return bus.FileData{Data: []byte("hi")}, nil },
		bus.OpFileClose: func(context.Context, *bus.Call) (any, error) { return nil, nil },
	})
	dir := filepath.Join(s.home, "out")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name = range []string{"../x", "/etc/passwd", "a/b", `a\b`, "..", ".", "", ".bashrc", "a\x00", "a\nb", "\x1b[31mred", "a\u202eb", strings.Repeat("x", 256)} {
		t.Run(fmt.Sprintf("%.20q is not used", name), func(t *testing.T) {
			code, out, errs := s.run("file", "get", "x", "--out", dir)
			left, err := filepath.Glob(filepath.Join(dir, "*"))
			if code != exitUsage || !strings.Contains(errs, "--out PATH") || strings.ContainsAny(errs, "\x00\x1b") || asked != 0 || len(left) != 0 || err != nil {
				t.Errorf("exit code %d: %s%q, %v", code, out, errs, left)
			}
		})
	}
	t.Run("a path of one's own is, whatever the file is called", func(t *testing.T) {
		name = "../x"
		path := filepath.Join(dir, "mine")
		code, out, errs := s.run("file", "get", "x", "--out", path)
		if data, err := os.ReadFile(path); code != exitOK || string(data) != "hi" || err != nil {
			t.Errorf("exit code %d: %s%s", code, out, errs)
		}
	})
	t.Run("a link is not followed, with --force neither", func(t *testing.T) {
		link, target := filepath.Join(dir, "link"), filepath.Join(s.home, "target")
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		if code, out, errs := s.run("file", "get", "x", "--out", link); code != exitConflict {
			t.Errorf("exit code %d: %s%s", code, out, errs)
		}
		if code, out, errs := s.run("file", "get", "x", "--out", link, "--force"); code != exitOK {
			t.Errorf("exit code %d: %s%s", code, out, errs)
		}
		if _, err := os.Stat(target); !os.IsNotExist(err) {
			t.Error("the link's target was written")
		}
	})
	t.Run("a file that breaks off leaves nothing", func(t *testing.T) {
		short := newScripted(t, map[string]bus.Handler{
			bus.OpFileOpen:  func(context.Context, *bus.Call) (any, error) { return bus.FileOpened{ID: "t", Name: "a"}, nil },
			bus.OpFileFetch: func(context.Context, *bus.Call) (any, error) { return bus.FileFetched{Size: 9}, nil },
			bus.OpFileRead: func(_ context.Context, c *bus.Call) (any, error) {
				var req bus.FileRead
				if err := c.Decode(&req); err != nil || req.Offset > 0 {
					return bus.FileData{}, err
				}
				return bus.FileData{Data: []byte("half")}, nil
			},
			bus.OpFileClose: func(context.Context, *bus.Call) (any, error) { return nil, nil },
		})
		for _, args := range [][]string{{"file", "get", "x", "--out", short.home}, {"file", "get", "x", "--out", short.home, "--force"}} {
			code, out, errs := short.run(args...)
			left, err := filepath.Glob(filepath.Join(short.home, ".a.part*"))
			if _, statErr := os.Lstat(filepath.Join(short.home, "a")); !os.IsNotExist(statErr) {
				t.Error(statErr)
			}
			if code == exitOK || len(left) != 0 || err != nil {
				t.Errorf("exit code %d: %s%s, %v", code, out, errs, left)
			}
		}
	})
}
