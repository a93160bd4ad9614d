//go:build unix

package fake

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

type object = map[string]any

// transcript is the record of one conversation: a file of lines, made with the first of them.
type transcript struct {
	mu      sync.Mutex
	path    string
	session string
	cwd     string
}

func newTranscript(home, cwd, session string) *transcript {
	return &transcript{path: filepath.Join(projectDir(home, cwd), session+".jsonl"), session: session, cwd: cwd}
}

// write appends a line. What cannot be written is lost, as with the real client.
func (t *transcript) write(line object) {
	line["sessionId"], line["cwd"], line["version"] = t.session, t.cwd, version
	if line["timestamp"] == nil {
		line["timestamp"] = time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // as the real one: < stays <
	if enc.Encode(line) != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if os.MkdirAll(filepath.Dir(t.path), 0o700) != nil {
		return
	}
	f, err := os.OpenFile(t.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	_, _ = f.Write(b.Bytes())
	_ = f.Close()
}

func (t *transcript) user(text string, origin string) {
	line := object{"type": "user", "message": object{"role": "user", "content": text}, "uuid": uuid.NewString()}
	if origin != "" {
		line["origin"] = object{"kind": origin}
	}
	t.write(line)
}

func (t *transcript) attachment(a object) {
	t.write(object{"type": "attachment", "attachment": a, "uuid": uuid.NewString()})
}

// history is what the model was given and said, by the record.
func (t *transcript) history() ([]message, error) {
	b, err := os.ReadFile(t.path)
	if err != nil {
		return nil, err
	}
	var all []message
	for line := range bytes.Lines(b) {
		var l struct {
			Type    string  `json:"type"`
			Message message `json:"message"`
		}
		if json.Unmarshal(line, &l) == nil && (l.Type == "api-request-blob" || l.Type == "assistant") {
			all = append(all, l.Message)
		}
	}
	return all, nil
}

// known reports whether there is a conversation of this id.
func (t *transcript) known() bool {
	_, err := os.Stat(t.path)
	return !errors.Is(err, fs.ErrNotExist)
}

// lastSession is the id of the conversation of a directory that was written last, "" if there is none.
func lastSession(home, cwd string) string {
	files, _ := filepath.Glob(filepath.Join(projectDir(home, cwd), "*.jsonl"))
	var last string
	var when time.Time
	for _, path := range files {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(when) {
			last, when = strings.TrimSuffix(filepath.Base(path), ".jsonl"), info.ModTime()
		}
	}
	return last
}
