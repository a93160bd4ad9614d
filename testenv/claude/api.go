//go:build unix

package claude

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"claudemesh/testenv"
)

// maxRequest bounds what the stub reads of a request: the real client's first has about 150 kB.
const maxRequest = 64 << 20

// API is a stub of the Messages API on loopback: it keeps what the model was asked and answers as the test says. Only requests with tools are the
// conversation; the client asks others in between (titles, for example), which are answered and not kept.
type API struct {
	t      testing.TB
	server *httptest.Server

	mu       sync.Mutex
	requests []Request
	script   []Reply
	waiting  []chan struct{}
}

// Reply is what the model says: a text that ends the turn, or a command for the Bash tool.
type Reply struct {
	Text    string
	Command string
}

// Say ends a turn with a text.
func Say(text string) Reply { return Reply{Text: text} }

// Run calls the Bash tool.
func Run(command string) Reply { return Reply{Command: command} }

// NewAPI starts a stub; it ends with the test.
func NewAPI(t testing.TB) *API {
	a := &API{t: t}
	a.server = httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(a.server.Close)
	return a
}

// URL is what ANTHROPIC_BASE_URL must be.
func (a *API) URL() string { return a.server.URL }

// Script adds the next answers of the model. When there are none it says "ok", which ends the turn.
func (a *API) Script(replies ...Reply) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.script = append(a.script, replies...)
}

// Requests is what the model was asked so far, oldest first.
func (a *API) Requests() []Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

// WaitRequest waits for a request that satisfies ok and returns the first.
func (a *API) WaitRequest(what string, ok func(Request) bool) Request {
	a.t.Helper()
	poke := make(chan struct{}, 1)
	a.mu.Lock()
	a.waiting = append(a.waiting, poke)
	a.mu.Unlock()
	var found Request
	testenv.Wait(a.t, "a request with "+what, poke, func() bool {
		all := a.Requests()
		i := slices.IndexFunc(all, ok)
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	return found
}

// WaitText waits for the first request that holds a text outside of what the model itself said.
func (a *API) WaitText(text string) Request {
	a.t.Helper()
	return a.WaitRequest(text, func(r Request) bool { return r.Count(text) > 0 })
}

// Once fails the test unless the model was given the text in exactly one place of its conversation: the last request holds all of it that still counts.
// A conversation begins anew at /clear, so each is looked at by itself.
func (a *API) Once(text string) {
	a.t.Helper()
	last := map[string]Request{}
	for _, r := range a.Requests() {
		last[r.Session] = r
	}
	n := 0
	for _, r := range last {
		n += r.Count(text)
	}
	if n != 1 {
		a.t.Errorf("the model was given %q %d times, want once", text, n)
	}
}

func (a *API) serve(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost || r.URL.Path != "/v1/messages" {
		http.NotFound(w, r)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var in wireRequest
	if err := json.Unmarshal(body, &in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	n, reply := a.take(in, r.Header.Get("X-Claude-Code-Session-Id"))
	if in.Stream {
		w.Header().Set("Content-Type", "text/event-stream")
		writeStream(w, fmt.Sprint("msg_", n), in.Model, reply)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(message(fmt.Sprint("msg_", n), in.Model, reply))
}

// take keeps a request of the conversation and returns its number and what to answer.
func (a *API) take(in wireRequest, session string) (int, Reply) {
	a.mu.Lock()
	defer a.mu.Unlock()
	reply := Say("ok")
	if len(in.Tools) == 0 {
		return 0, reply
	}
	a.requests = append(a.requests, in.request(session))
	if len(a.script) > 0 {
		reply, a.script = a.script[0], a.script[1:]
	}
	for _, poke := range a.waiting {
		select {
		case poke <- struct{}{}:
		default:
		}
	}
	return len(a.requests), reply
}
