package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// The rooms and what each may import of ours. docs/architecture.md says why; an arrow that points up breaks this test, not a review.
var mayImport = map[string][]string{
	"mesh":               {},
	"wire":               {"mesh"},
	"bus":                {"mesh"},
	"bridge":             {"bus", "wire", "mesh"},
	"broker":             {"bus", "wire", "mesh", "broker/fts"}, // bus for the server type of its embedded store
	"broker/fts":         {},
	"daemon/groupcommit": {},
	"daemon/outbox":      {"daemon/groupcommit", "mesh"},
	"daemon/inbox":       {"daemon/groupcommit", "mesh"},
	"daemon/session":     {"daemon/groupcommit", "mesh"},
	"daemon/service":     {},
	"daemon/wake":        {},
	"daemon/httpapi":     {"bus", "wire", "mesh"},
	"daemon/logfile":     {},
	"daemon/spans":       {},
	"daemon":             {"mesh", "wire", "bus", "bridge", "broker", "daemon/groupcommit", "daemon/outbox", "daemon/inbox", "daemon/session", "daemon/wake", "daemon/httpapi", "daemon/spans"},
	"cli/account":        {"bridge", "wire", "mesh"},
	"mcp":                {"bus", "wire", "mesh", "mcp/feed", "mcp/frame", "mcp/skilltext"},
	"mcp/skilltext":      {"wire", "mesh"},
	"mcp/frame":          {"bus"},
	"mcp/feed":           {"bus", "mesh"},
	"cli/claudeconf":     {},
	"cli/release":        {},
	"cli":                {"mesh", "wire", "bus", "bridge", "broker", "daemon", "daemon/outbox", "daemon/service", "cli/claudeconf", "cli/release", "mcp", "mcp/feed", "mcp/frame", "mcp/skilltext", "testenv/conformance", "daemon/logfile", "daemon/spans", "cli/account", "cli/backup", "cli/policy", "cli/urlhandler"},
	"cli/urlhandler":     {},
	"cli/backup":         {},
	"cli/policy":         {},
	"":                   {"cli"},
	"testenv":            nil, // nil: everything
	"testenv/faultproxy": {"wire", "mesh"},
	"testenv/crowd":      {"wire", "mesh"},
	"testenv/bench":      nil,
	"testenv/claude":     nil,
	// The scripted client knows nothing of ours: it stands for a program that does not.
	"testenv/claude/fake": {},
	// What a command of the product runs imports no testing package and no room but the protocol's.
	"testenv/conformance": {"bridge", "wire", "mesh"},
}

// Packages of others that only some rooms may touch.
var confined = map[string][]string{
	"github.com/nats-io/nats-server": {"bus"},
	"net/http":                       {"broker", "bridge", "daemon", "cli/release", "testenv", "testenv/faultproxy", "testenv/crowd", "testenv/bench", "testenv/conformance", "testenv/claude", "testenv/claude/fake", "daemon/httpapi", "daemon/spans", "cli/account"},
	"net":                            {"bus", "bridge", "broker", "daemon", "cli", "cli/release", "mcp", "testenv", "testenv/faultproxy", "testenv/crowd", "testenv/bench", "testenv/claude/fake", "daemon/httpapi"},
	"modernc.org/sqlite":             {"daemon/groupcommit", "broker/fts"},
}

func TestRoomsImportOnlyWhatTheirRowAllows(t *testing.T) {
	for dec, out := goList(t); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("read go list: %v", err)
		}
		_ = out
		room := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, "claudemesh"), "/")
		allowed, known := mayImport[room]
		if !known {
			t.Errorf("room %q has no row in the table: add it here and in docs/architecture.md", room)
			continue
		}
		for _, imp := range p.Imports {
			if imp == "claudemesh" || strings.HasPrefix(imp, "claudemesh/") {
				to := strings.TrimPrefix(imp, "claudemesh/")
				if allowed != nil && !slices.Contains(allowed, to) {
					t.Errorf("%s imports %s", room, to)
				}
			}
			for what, rooms := range confined {
				if (imp == what || what != "net" && strings.HasPrefix(imp, what+"/")) && !slices.Contains(rooms, room) {
					t.Errorf("%s imports %s, which only %v may", room, imp, rooms)
				}
			}
		}
	}
}

func goList(t *testing.T) (*json.Decoder, []byte) {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return json.NewDecoder(strings.NewReader(string(out))), out
}
