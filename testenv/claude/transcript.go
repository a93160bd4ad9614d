//go:build unix

package claude

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"claudemesh/testenv"
)

// DebugFile is where the client writes what it does.
func (h *Home) DebugFile() string { return filepath.Join(h.Dir, "debug.log") }

// Debug is what it has written.
func (h *Home) Debug() string {
	b, _ := os.ReadFile(h.DebugFile()) // not there before the first line
	return string(b)
}

// WaitDebug waits for a line that matches.
func (h *Home) WaitDebug(what string, re *regexp.Regexp) string {
	h.T.Helper()
	var found string
	testenv.Wait(h.T, what, nil, func() bool {
		found = re.FindString(h.Debug())
		return found != ""
	})
	return found
}

// WaitMCP waits until the client has connected the MCP server that is configured under this name.
func (h *Home) WaitMCP(server string) {
	h.T.Helper()
	h.WaitDebug("MCP server "+server+" to be connected", regexp.MustCompile(`MCP server "`+regexp.QuoteMeta(server)+`": Successfully connected`))
}

// WaitRefusal waits until the client has said whether it will show the channel messages of a server, and returns why not, "" when it will.
func (h *Home) WaitRefusal(server string) string {
	h.T.Helper()
	line := h.WaitDebug("the client to decide on channels", regexp.MustCompile(`MCP server "`+regexp.QuoteMeta(server)+`": Channel notifications (registered|skipped: [^\n]*)`))
	_, why, _ := strings.Cut(line, "skipped: ")
	return why
}

// Transcripts are the conversations of the project: what the client recorded, by conversation id.
func (h *Home) Transcripts() map[string]Transcript {
	h.T.Helper()
	files, err := filepath.Glob(filepath.Join(h.Dir, ".claude", "projects", "*", "*.jsonl"))
	if err != nil {
		h.T.Fatal(err)
	}
	all := map[string]Transcript{}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			h.T.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(path), ".jsonl")] = Transcript{Path: path, text: b}
	}
	return all
}

// Transcript is one conversation as the client recorded it.
type Transcript struct {
	Path string
	text []byte
}

// Line is what is needed of one of its lines.
type Line struct {
	Type      string `json:"type"`
	Subtype   string `json:"subtype"`
	Operation string `json:"operation"`
	Raw       []byte `json:"-"`
}

// Lines are its whole lines; one that is still being written is left out.
func (t Transcript) Lines() []Line {
	var lines []Line
	for text := t.text; ; {
		raw, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole {
			return lines
		}
		var l Line
		if json.Unmarshal(raw, &l) == nil {
			l.Raw = raw
			lines = append(lines, l)
		}
		text = rest
	}
}

// Sent reports whether a request to the model held this text, by the client's own record.
func (t Transcript) Sent(text string) bool {
	var quoted bytes.Buffer
	enc := json.NewEncoder(&quoted)
	enc.SetEscapeHTML(false) // the client does not
	if enc.Encode(text) != nil {
		return false
	}
	inside := bytes.Trim(quoted.Bytes(), "\"\n")
	for _, l := range t.Lines() {
		if l.Type == "api-request-blob" && bytes.Contains(l.Raw, inside) {
			return true
		}
	}
	return false
}

// idle reports whether the last turn is over: the client notes each turn's time at its end.
func (t Transcript) idle() bool {
	busy := false
	for _, l := range t.Lines() {
		switch {
		case l.Type == "api-request", l.Type == "user", l.Type == "queue-operation" && l.Operation == "enqueue":
			busy = true
		case l.Type == "system" && l.Subtype == "turn_duration":
			busy = false
		}
	}
	return !busy
}

// WaitIdle waits until n requests were made at least, the conversation that made the last one has no turn under way, and its transcript says so.
func (h *Home) WaitIdle(n int) {
	h.T.Helper()
	testenv.Wait(h.T, "the client to be idle", nil, func() bool {
		all := h.API.Requests()
		if len(all) < n || n == 0 {
			return len(all) >= n
		}
		t, there := h.Transcripts()[all[len(all)-1].Session]
		return there && t.idle()
	})
}
