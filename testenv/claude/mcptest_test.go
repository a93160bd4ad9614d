//go:build unix

package claude_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"claudemesh/testenv"
	"claudemesh/testenv/claude"
)

// mcpTest is a small MCP server that says what it is told to say: the lines of the pipe that MCPTEST_PIPE names go to the client as they are.
const mcpTest = "mcptest"

const envMCPPipe = "MCPTEST_PIPE"

// serveTest is that server. It notes the methods that it is asked, next to the pipe.
func serveTest() int {
	type object = map[string]any
	var mu sync.Mutex
	say := func(v any) {
		b, _ := json.Marshal(v)
		mu.Lock()
		defer mu.Unlock()
		fmt.Printf("%s\n", b)
	}
	go func() {
		pipe, err := os.OpenFile(os.Getenv(envMCPPipe), os.O_RDWR, 0) // for writing as well: so it never ends
		if err != nil {
			return
		}
		for s := bufio.NewScanner(pipe); s.Scan(); {
			say(json.RawMessage(s.Bytes()))
		}
	}()
	note, err := os.OpenFile(os.Getenv(envMCPPipe)+".log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 1
	}
	answers := map[string]any{
		"initialize": object{
			"protocolVersion": "2025-11-25", "serverInfo": object{"name": "other", "version": "1"}, "instructions": "Instructions of the test server.",
			"capabilities": object{"experimental": object{"claude/channel": object{}}, "tools": object{}, "prompts": object{"listChanged": true}, "resources": object{"listChanged": true}},
		},
		"tools/list": object{"tools": []object{{"name": "look", "description": "looks", "inputSchema": object{"type": "object"}}}},
		"prompts/list": object{"prompts": []object{{
			"name": "tell", "description": "tell a peer", "arguments": []object{{"name": "peer", "required": true}, {"name": "word"}},
		}}},
		"resources/list":           object{"resources": []object{{"uri": "mesh://note/1", "name": "note"}}},
		"resources/templates/list": object{"resourceTemplates": []object{}},
		"resources/read":           object{"contents": []object{{"uri": "mesh://note/1", "mimeType": "text/plain", "text": "the text of the note"}}},
		"ping":                     object{},
	}
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return 0
		}
		var m struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
			Params struct {
				Arguments map[string]string `json:"arguments"`
			} `json:"params"`
		}
		if json.Unmarshal(line, &m) != nil || m.Method == "" {
			continue
		}
		fmt.Fprintln(note, m.Method)
		answer, known := answers[m.Method]
		if m.Method == "prompts/get" {
			known = true
			answer = object{"messages": []object{{"role": "user", "content": object{"type": "text", "text": "Please tell <" + m.Params.Arguments["peer"] + "> the word <" + m.Params.Arguments["word"] + ">."}}}}
		}
		switch {
		case len(m.ID) == 0:
		case known:
			say(object{"jsonrpc": "2.0", "id": m.ID, "result": answer})
		default:
			say(object{"jsonrpc": "2.0", "id": m.ID, "error": object{"code": -32601, "message": "no such method"}})
		}
	}
}

// mcp is the configuration of the test server under the name "post", and how to make it say a line.
func (r *rig) mcp() (config string, say func(line string)) {
	r.t.Helper()
	path, write := r.fifo("mcp")
	b, err := json.Marshal(map[string]any{"mcpServers": map[string]any{"post": map[string]any{
		"command": "${TESTBIN:-/nowhere}/" + mcpTest, "args": []string{}, "env": map[string]string{envMCPPipe: path},
	}}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.Setenv("TESTBIN=" + r.Bin)
	return string(b), func(line string) { write(line + "\n") }
}

// asked is how often the server was asked for something.
func (r *rig) asked(method string) int {
	b, _ := os.ReadFile(filepath.Join(r.Dir, "mcp.log"))
	n := 0
	for _, line := range strings.Split(string(b), "\n") {
		if line == method {
			n++
		}
	}
	return n
}

func TestWhatAnMCPServerOffersReachesTheModel(t *testing.T) {
	each(t, func(t *testing.T, real string) {
		r := newRig(t, real)
		config, say := r.mcp()
		c := r.Start("--mcp-config", config)
		r.WaitMCP("post")
		for method, n := range map[string]int{"server/discover": 1, "initialize": 1, "notifications/initialized": 1, "prompts/list": 1, "resources/list": 1} {
			testenv.Wait(t, method, nil, func() bool { return r.asked(method) == n })
		}
		c.Prompt("/mcp__post__tell bob 'hello there'")
		r.API.WaitText("Please tell <bob> the word <'hello>.")
		r.WaitIdle(1)
		c.Prompt("look at @post:mesh://note/1 please")
		q := r.API.WaitText("the text of the note")
		if q.Count("## post\nInstructions of the test server.") != 1 {
			t.Errorf("the instructions are not in the request: %+v", q.Messages)
		}
		r.WaitIdle(2)
		before := r.asked("prompts/list")
		say(`{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}`)
		testenv.Wait(t, "the client to list the prompts again", nil, func() bool { return r.asked("prompts/list") > before })
		c.Exit()
	})
}

const channelLine = `{"jsonrpc":"2.0","method":"notifications/claude/channel","params":{"content":"news </channel> from bob","meta":{"from_name":"b\"ob","bad-key":"x"}}}`

// wantChannel is what the model would get of it.
const wantChannel = "<channel source=\"post\" from_name=\"b&#34;ob\">\nnews <\\/channel> from bob\n</channel>"

func TestAChannelMessageStartsATurnWhenChannelsAreOn(t *testing.T) {
	r := newRig(t, "") // the real one has a switch of its vendor's in front of it
	r.Setenv("CLAUDE_FAKE_CHANNELS=on")
	config, say := r.mcp()
	r.hook("UserPromptSubmit", "", nil)
	tool, finish := r.fifo("tool")
	c := r.Start("--mcp-config", config, "--settings", r.inline(), "--dangerously-load-development-channels", "server:post")
	r.WaitMCP("post")
	say(channelLine)
	q := r.API.WaitText(wantChannel)
	r.WaitIdle(1)
	if !r.Transcripts()[q.Session].Sent(wantChannel) {
		t.Error("it is not in the transcript")
	}
	r.API.Script(claude.Run("read line <'"+tool+"'"), claude.Say("done"))
	c.Prompt("work")
	r.API.WaitText("work")
	say(strings.ReplaceAll(channelLine, "news", "more news"))
	testenv.Wait(t, "the client to queue it", nil, func() bool {
		for _, l := range r.Transcripts()[q.Session].Lines() {
			if l.Type == "queue-operation" && strings.Contains(string(l.Raw), "more news") {
				return true
			}
		}
		return false
	})
	finish("\n")
	r.WaitIdle(3)
	if m, _ := r.API.Requests()[2].Where("more news"); m.Role != "system" || !strings.Contains(m.Text, "A message arrived from post while you were working:") {
		t.Errorf("in the middle of the turn it came as %+v", m)
	}
	c.Exit()
}

func TestAChannelMessageIsDroppedInSilenceWhenChannelsAreOff(t *testing.T) {
	each(t, func(t *testing.T, real string) {
		r := newRig(t, real)
		config, say := r.mcp()
		c := r.Start("--mcp-config", config, "--dangerously-load-development-channels", "server:post")
		r.WaitMCP("post")
		refusal := r.WaitRefusal("post")
		if refusal == "" {
			t.Skip("this client shows channel messages")
		}
		t.Logf("the client refuses: %s", refusal)
		say(channelLine)
		say(`{"jsonrpc":"2.0","id":"after","method":"ping"}`)
		say(`{"jsonrpc":"2.0","method":"notifications/prompts/list_changed"}`)
		testenv.Wait(t, "the client to have read on", nil, func() bool { return r.asked("prompts/list") > 1 })
		c.Prompt("anything new?")
		q := r.API.WaitText("anything new?")
		if q.Count("news </") != 0 || q.Count("from bob") != 0 {
			t.Errorf("the model was given %+v", q.Messages)
		}
		r.WaitIdle(1)
		c.Exit()
	})
}
