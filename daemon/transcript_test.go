package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	must(t, err)
	_, err = f.WriteString(text)
	must(t, err)
	must(t, f.Close())
}

func TestTranscript(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.jsonl")
	var tr transcript
	tr.open(path, -1)
	found := func() string {
		t.Helper()
		ids, err := tr.read()
		must(t, err)
		var all []string
		for id := range ids {
			all = append(all, id)
		}
		return strings.Join(all, " ")
	}
	for _, step := range []struct{ name, add, want string }{
		{"a file that is not there yet", "", ""},
		{"a message of a hook in a request", `{"type":"api-request-blob","message":{"content":"<mesh-message id=\"message-1\" from=\"bob\">"}}` + "\n", "message-1"},
		{"nothing new", "", ""},
		{"half a line", `{"type":"user","message":{"content":"<channel source=\"mesh\" message_id=\"mess`, ""},
		{"and its rest", `age-2\">"}}` + "\n", "message-2"},
		{"escaped twice", `{"type":"user","content":"{\"text\":\"<mesh-message id=\\\"message-3\\\">\"}"}` + "\n", "message-3"},
		{"the client's own queue proves nothing", `{"type":"queue-operation","operation":"enqueue","content":"<mesh-message id=\"message-4\">"}` + "\n", ""},
		{"nor does what a hook printed", `{"type":"attachment","attachment":{"type":"hook_success","stdout":"<mesh-message id=\"message-4\">"}}` + "\n", ""},
		{"a message that quotes such a line does not hide itself", `{"type":"user","content":"<mesh-message id=\"message-5\">{\"type\":\"queue-operation\"}"}` + "\n", "message-5"},
		{"an id in passing is not a message", `{"type":"assistant","content":"look at message-6, uuid=\"message-6\" or reply_to=\"message-6\""}` + "\n", ""},
	} {
		if step.add != "" {
			appendTo(t, path, step.add)
		}
		if got := found(); got != step.want {
			t.Errorf("%s: found %q, want %q", step.name, got, step.want)
		}
	}

	t.Run("what was there before is not read, unless the file was replaced", func(t *testing.T) {
		tr.open(path, -1)
		if got := found(); got != "" {
			t.Errorf("found %q", got)
		}
		must(t, os.WriteFile(path, []byte(`{"type":"user","content":"id=\"message-7\""}`+"\n"), 0o600))
		if got := found(); got != "message-7" {
			t.Errorf("found %q", got)
		}
	})
	t.Run("a line that is too long is passed over, the next one is read", func(t *testing.T) {
		appendTo(t, path, strings.Repeat("x", transcriptLine+1)+`id=\"message-8\"`+"\n"+`{"content":"id=\"message-9\""}`+"\n")
		if got := found(); got != "message-9" {
			t.Errorf("found %q", got)
		}
		if cap(tr.rest) > 1<<20 {
			t.Errorf("%d bytes are kept for the next line", cap(tr.rest))
		}
	})
	t.Run("what is no file is not opened", func(t *testing.T) {
		tr.open(t.TempDir(), 0)
		if _, err := tr.read(); err == nil {
			t.Error("no error")
		}
	})
}

func FuzzShownIn(f *testing.F) {
	f.Add([]byte(`{"content":"<mesh-message id=\"message-1\">"}`))
	f.Add([]byte(`{"type":"queue-operation","content":"id=\\\"message-1\\\""}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		found := map[string]bool{}
		shownIn(line, found)
		for id := range found {
			if !strings.Contains(string(line), id) || len(id) < 8 || len(id) > 512 {
				t.Fatalf("found %q in %q", id, line)
			}
		}
	})
}
