package testenv_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"claudemesh/bus"
	"claudemesh/mcp"
	"claudemesh/mcp/feed"
	"claudemesh/testenv"
)

// The last metre, with everything real: another session sends, the shim of this one writes the notification to an MCP client, and the sender learns it.
func TestAMessageReachesTheClientOfTheShimAndTheSenderLearnsIt(t *testing.T) {
	m := testenv.NewMachine(t)
	team := m.Create("team")
	alice, bob := m.Session(team, "alice"), m.Session(team, "bob")
	m.WaitPeer(team, "bob")

	// What the client shows its model stands in its record of the conversation, of which a hook has told.
	transcript := filepath.Join(t.TempDir(), "transcript.jsonl")
	bob.Do(bus.OpHook, bus.HookEvent{Event: "SessionStart", Transcript: transcript, PID: os.Getppid()}, nil)
	early := alice.Send("bob", "before the shim") // it waits in the inbox
	bob.WaitMessage("before the shim")
	channel := shim(t, m, bob)
	expect(t, channel, "alice: before the shim", transcript)
	m.WaitState(team, early.ClientMessageID, bus.StateSurfaced)

	live := alice.Send("bob", "now")
	expect(t, channel, "alice: now", transcript)
	item := m.WaitState(team, live.ClientMessageID, bus.StateSurfaced)
	if last := item.Receipts[len(item.Receipts)-1]; last.Via != bus.ViaChannel {
		t.Errorf("surfaced via %q, want %q", last.Via, bus.ViaChannel)
	}

	// The shim outlives the daemon, and hears what came while there was none.
	m.Stop()
	m.Start()
	alice = testenv.Resume(m, alice)
	after := alice.Send("bob", "after the restart")
	expect(t, channel, "alice: after the restart", transcript)
	m.WaitState(team, after.ClientMessageID, bus.StateSurfaced)
	select {
	case n := <-channel:
		t.Errorf("one notification too many: %+v", n)
	default:
	}
}

// notification is what a channel-capable client is told.
type notification struct {
	Content string            `json:"content"`
	Meta    map[string]string `json:"meta"`
}

// expect waits for a notification, and shows it as a client does.
func expect(t *testing.T, channel <-chan notification, content, transcript string) {
	t.Helper()
	select {
	case n := <-channel:
		if !strings.HasSuffix(n.Content, content) {
			t.Errorf("the client was told %q, want %q", n.Content, content)
		}
		if n.Meta["from_name"] != "alice" || n.Meta["mesh"] != "team" || n.Meta["message_id"] == "" {
			t.Errorf("meta %v", n.Meta)
		}
		f, err := os.OpenFile(transcript, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(f, "{\"type\":\"user\",\"content\":\"<channel message_id=\\\"%s\\\">\"}\n", n.Meta["message_id"])
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	case <-time.After(testenv.Patience):
		t.Fatalf("the client was not told %q", content)
	}
}

// shim runs the shim of a session with the SDK's client at its other end.
func shim(t *testing.T, m *testenv.Machine, s *testenv.Session) <-chan notification {
	t.Helper()
	fromClient, toShim := io.Pipe()
	fromShim, toClient := io.Pipe()
	env := map[string]string{feed.EnvSession: s.Info.ID, feed.EnvTokenFile: s.Info.TokenFile, feed.EnvMesh: s.Info.Mesh}
	ended := make(chan error, 1)
	go func() {
		ended <- mcp.Serve(context.Background(), mcp.Config{
			In: fromClient, Out: toClient, Err: os.Stderr, Getenv: func(k string) string { return env[k] }, Dir: m.Dir(), Version: "test", Settle: -1,
		})
		toClient.Close()
	}()
	heard := make(chan notification, 100)
	ctx, cancel := context.WithTimeout(context.Background(), testenv.Patience)
	defer cancel()
	client, err := sdk.NewClient(&sdk.Implementation{Name: "test"}, nil).Connect(ctx, &earTransport{&sdk.IOTransport{Reader: fromShim, Writer: toShim}, heard}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		_ = toShim.Close()
		if err := <-ended; err != nil {
			t.Errorf("the shim ended with %v", err)
		}
	})
	if c := client.InitializeResult().Capabilities; c.Experimental["claude/channel"] == nil {
		t.Errorf("the shim declares %+v, no claude/channel", c)
	}
	return heard
}

// earTransport takes the channel notifications out of what the SDK's client reads, because it does not know them.
type earTransport struct {
	sdk.Transport
	heard chan<- notification
}

func (t *earTransport) Connect(ctx context.Context) (sdk.Connection, error) {
	c, err := t.Transport.Connect(ctx)
	return &earConn{c, t.heard}, err
}

type earConn struct {
	sdk.Connection
	heard chan<- notification
}

func (c *earConn) Read(ctx context.Context) (jsonrpc.Message, error) {
	for {
		msg, err := c.Connection.Read(ctx)
		r, ok := msg.(*jsonrpc.Request)
		if err != nil || !ok || r.Method != "notifications/claude/channel" {
			return msg, err
		}
		var n notification
		if err := json.Unmarshal(r.Params, &n); err != nil {
			return nil, err
		}
		c.heard <- n
	}
}
