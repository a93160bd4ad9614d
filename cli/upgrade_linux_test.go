package cli

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jonboulle/clockwork"

	"claudemesh/cli/release"
)

func TestANewReleaseIsToldAtATerminalOnceADayAndNeverWaitedFor(t *testing.T) {
	exe, err := exec.LookPath("claudemesh")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	answer := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		<-answer
		_, _ = io.WriteString(w, `{"version":"9.0.0","url":"https://example.org/9"}`)
	}))
	defer server.Close()
	home := t.TempDir()
	clock := clockwork.NewFakeClockAt(time.Now())
	// version runs the verb and returns what stood on stderr.
	version := func(terminal bool, env map[string]string, args ...string) string {
		t.Helper()
		var shown *screen
		var file *os.File
		var piped bytes.Buffer
		e := hostEnv(append([]string{"claudemesh", "version"}, args...))
		e.stdin, e.stdout, e.stderr, e.clock = strings.NewReader(""), io.Discard, &piped, clock
		if terminal {
			program, person := newTerminal(t)
			file, shown = program, watchScreen(person)
			e.stderr = program
		}
		vars := map[string]string{"HOME": home, releaseEnv: server.URL}
		for k, v := range env {
			vars[k] = v
		}
		e.getenv = func(name string) string { return vars[name] }
		e.environ = func() []string { return []string{"HOME=" + home, releaseEnv + "=" + server.URL} }
		e.executable = func() (string, error) { return exe, nil }
		if code := run(context.Background(), e); code != exitOK {
			t.Errorf("exit code %d", code)
		}
		if !terminal {
			return piped.String()
		}
		file.Close()
		<-shown.ended
		return shown.String()
	}
	quiet := func(what, got string) {
		t.Helper()
		if strings.Contains(got, "is out") {
			t.Errorf("%s: %q", what, got)
		}
	}
	quiet("where nobody sits", version(false, nil))
	quiet("in CI", version(true, map[string]string{"CI": "true"}))
	quiet("where a program reads", version(true, nil, "--json"))
	quiet("where no server is named", version(true, map[string]string{releaseEnv: ""}))
	if _, err := os.Stat(filepath.Join(home, ".claudemesh")); err == nil {
		t.Error("something was written")
	}
	quiet("at the first time", version(true, nil)) // returns, while the server does not answer
	if !until(func() bool { return asked.Load() == 1 }) {
		t.Fatal("nobody asks the server")
	}
	quiet("while the server is asked", version(true, nil))
	close(answer)
	dir := filepath.Join(home, ".claudemesh")
	if !until(func() bool { return release.Recall(dir).Version == "9.0.0" }) {
		t.Fatal("the answer is not remembered")
	}
	if got := version(true, nil); !strings.Contains(got, "[claudemesh] info version 9.0.0 is out, this is "+Version+": https://example.org/9") {
		t.Errorf("%q", got)
	}
	quiet("a second time", version(true, nil))
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times in a day", n)
	}
	clock.Advance(25 * time.Hour)
	if got := version(true, nil); !strings.Contains(got, "9.0.0 is out") {
		t.Errorf("the next day: %q", got)
	}
	if !until(func() bool { return asked.Load() == 2 }) {
		t.Error("nobody asks on the next day")
	}
	// The process that asks ends before its HOME is removed.
	if !until(func() bool { return release.Recall(dir).AskedAt < clock.Now().Add(-time.Hour).UnixMilli() }) {
		t.Error("the second answer is not remembered")
	}
}
