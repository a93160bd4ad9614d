//go:build unix

package claude_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"claudemesh/bus"
	"claudemesh/mcp"
	"claudemesh/mcp/feed"
	"claudemesh/testenv"
)

// inFlight is how many messages of the crowd are on their way at once. It is no limit of the product: it keeps the figures about messages and not about a queue.
const inFlight = 250

// member is one of many sessions: the real shim, and at its other end what a client does with a channel message: it puts it into the transcript.
type member struct {
	*testenv.Session
	transcript *os.File

	mu    sync.Mutex
	shown map[string]int // by the text
}

func TestEveryMessageOfACrowdSurfacesOnceAndInTheRightSession(t *testing.T) {
	m := testenv.NewMachine(t)
	slug := m.Create("team")
	m.WaitLink(slug)
	crowd := make([]*member, crowdSessions)
	for i := range crowd {
		crowd[i] = newMember(t, m, slug, fmt.Sprintf("s%02d", i))
	}
	sent, times := talk(t, m, slug, crowd)
	for i, c := range crowd {
		c.mu.Lock()
		for text, n := range c.shown {
			if to, known := sent[text]; !known || to != i {
				t.Errorf("%s was shown %q, which is for session %d", c.Info.Name, text, to)
			} else if n != 1 {
				t.Errorf("%s was shown %q %d times", c.Info.Name, text, n)
			}
			delete(sent, text)
		}
		c.mu.Unlock()
	}
	if len(sent) > 0 {
		t.Errorf("%d messages were not shown", len(sent))
	}
	slices.Sort(times)
	t.Logf("%d sessions, %d messages: send to surfaced p50 %v, p99 %v, max %v", len(crowd), len(times),
		times[len(times)/2].Round(time.Millisecond), times[len(times)*99/100].Round(time.Millisecond), times[len(times)-1].Round(time.Millisecond))
}

// talk lets everybody write to everybody in turn, until crowdMessages have been sent and surfaced. It returns for whom each text was, and how long each took.
func talk(t *testing.T, m *testenv.Machine, slug string, crowd []*member) (sent map[string]int, times []time.Duration) {
	t.Helper()
	sent = map[string]int{}
	var mu sync.Mutex
	began := map[string]time.Time{} // by message id
	over := map[string]time.Time{}
	free, done := make(chan struct{}, inFlight), make(chan struct{})
	sub, err := m.User().Subscribe(bus.ReceiptSubject(slug, "*", "*"), func(msg *nats.Msg) {
		var r bus.Receipt
		if json.Unmarshal(msg.Data, &r) != nil || r.State != bus.StateSurfaced {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if _, known := over[r.ClientMessageID]; known {
			return
		}
		over[r.ClientMessageID] = time.Now()
		<-free
		if len(over) == crowdMessages {
			close(done)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	var senders sync.WaitGroup
	for i, from := range crowd {
		senders.Go(func() {
			// The n-th message of everybody goes to the n-th neighbour, so that no pair has more than its share at once.
			for n := i; n < crowdMessages; n += len(crowd) {
				to := (i + 1 + n/len(crowd)%(len(crowd)-1)) % len(crowd)
				text := fmt.Sprintf("message-%05d", n)
				select {
				case free <- struct{}{}:
				case <-time.After(testenv.Patience):
					return // the others report it
				}
				mu.Lock()
				sent[text] = to
				mu.Unlock()
				start := time.Now()
				r := from.Send(crowd[to].Info.Pubkey, text)
				mu.Lock()
				began[r.ClientMessageID] = start
				mu.Unlock()
			}
		})
	}
	senders.Wait()
	select {
	case <-done:
	case <-time.After(testenv.Patience):
		t.Errorf("%d of %d messages have surfaced", len(over), crowdMessages)
	}
	mu.Lock()
	defer mu.Unlock()
	for id, end := range over {
		times = append(times, end.Sub(began[id]))
	}
	return sent, times
}

// newMember starts a session with its shim.
func newMember(t *testing.T, m *testenv.Machine, slug, name string) *member {
	t.Helper()
	c := &member{Session: m.Session(slug, name), shown: map[string]int{}}
	var err error
	if c.transcript, err = os.Create(filepath.Join(m.Home, name+".jsonl")); err != nil {
		t.Fatal(err)
	}
	c.Do(bus.OpHook, bus.HookEvent{Event: "SessionStart", Conversation: "c-" + name, Transcript: c.transcript.Name(), PID: os.Getpid()}, &bus.HookReply{})
	fromClient, toShim := io.Pipe()
	fromShim, toClient := io.Pipe()
	env := map[string]string{feed.EnvSession: c.Info.ID, feed.EnvTokenFile: c.Info.TokenFile, feed.EnvMesh: slug}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() {
		err := mcp.Serve(ctx, mcp.Config{
			In: fromClient, Out: toClient, Err: io.Discard, Getenv: func(k string) string { return env[k] }, Dir: m.Dir(), Version: "test", Settle: -1, PID: os.Getpid(),
		})
		if err != nil {
			t.Errorf("the shim of %s ended: %v", name, err)
		}
		toClient.Close()
	})
	tasks.Go(func() { c.read(fromShim) })
	t.Cleanup(func() {
		cancel()
		toShim.Close()
		tasks.Wait()
		c.transcript.Close()
	})
	for _, line := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"claude-code","version":"test"}}}`,
		`{"jsonrpc":"2.0","method":"notifications/initialized"}`,
	} {
		if _, err := io.WriteString(toShim, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// read is the client: a channel message is put before the model, and so into the transcript.
func (c *member) read(from io.Reader) {
	lines := bufio.NewScanner(from)
	lines.Buffer(make([]byte, 64<<10), 16<<20)
	for lines.Scan() {
		var n struct {
			Method string
			Params struct {
				Content string
				Meta    map[string]string
			}
		}
		if json.Unmarshal(lines.Bytes(), &n) != nil || n.Method != "notifications/claude/channel" {
			continue
		}
		text := n.Params.Content
		if i := strings.LastIndex(text, "message-"); i >= 0 {
			text = strings.TrimSpace(text[i:])
		}
		c.mu.Lock()
		c.shown[text]++
		c.mu.Unlock()
		tag, _ := json.Marshal(fmt.Sprintf(`<channel source="claudemesh" message_id="%s">`+"\n%s\n</channel>", n.Params.Meta["message_id"], n.Params.Content))
		_, _ = fmt.Fprintf(c.transcript, `{"type":"api-request-blob","message":{"role":"user","content":%s}}`+"\n", tag)
	}
}
