package mcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/jonboulle/clockwork"
	"github.com/nats-io/nats.go"

	"claudemesh/bus"
)

// The last rung of the wake ladder: a line on the client's own inbox socket. The client gives what comes there to its model as the words of a colleague, to be
// acted upon. So nothing of a peer ever travels there, only a number and where to look, and only when the user has allowed it.

// Names of the environment variables by which Claude Code tells its children of its inbox socket and of the conversation.
const (
	envNudgeSocket  = "CLAUDE_CODE_MESSAGING_SOCKET"
	envNudgeToken   = "CLAUDE_CODE_MESSAGING_TOKEN"
	envConversation = "CLAUDE_CODE_SESSION_ID"
)

const (
	nudgeEvery = 5 * time.Second // the client drops what comes too fast, without a word
	nudgeLimit = time.Second     // for all of one nudge
)

// nudger writes nudges, at most one per nudgeEvery: of several that come meanwhile the last one counts.
type nudger struct {
	socket, token string
	clock         clockwork.Clock
	log           *slog.Logger
	wanted        chan int
}

func newNudger(cfg Config, log *slog.Logger) *nudger {
	return &nudger{socket: cfg.Getenv(envNudgeSocket), token: cfg.Getenv(envNudgeToken), clock: cfg.Clock, log: log, wanted: make(chan int, 1)}
}

// able reports whether the client has an inbox socket.
func (n *nudger) able() bool { return n.socket != "" && canOwn }

// heard takes a message from the bus.
func (n *nudger) heard(m *nats.Msg) {
	var nudge bus.Nudge
	if json.Unmarshal(m.Data, &nudge) != nil || nudge.Unread < 1 {
		return
	}
	select {
	case <-n.wanted:
	default:
	}
	select {
	case n.wanted <- nudge.Unread:
	default:
	}
}

// run writes what is wanted until ctx ends.
func (n *nudger) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case unread := <-n.wanted:
			if err := n.write(ctx, unread); err != nil {
				n.log.Warn("the client could not be nudged", "reason", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.clock.After(nudgeEvery):
		}
	}
}

// errNotOurs means that what stands in the socket's place may belong to somebody else.
var errNotOurs = errors.New("not a socket of this user")

func (n *nudger) write(ctx context.Context, unread int) error {
	st, err := os.Lstat(n.socket)
	if err != nil {
		return fmt.Errorf("look at the client's socket: %w", err)
	}
	if st.Mode().Type() != fs.ModeSocket || !own(st) {
		return errNotOurs
	}
	ctx, cancel := context.WithTimeout(ctx, nudgeLimit)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", n.socket)
	if err != nil {
		return fmt.Errorf("reach the client: %w", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := conn.Write(nudgeLines(n.token, unread)); err != nil {
		return fmt.Errorf("write to the client: %w", err)
	}
	return nil
}

// nudgeLines are what is written: who we are, if the client asks for that, and one line for its model.
func nudgeLines(token string, unread int) []byte {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	what := fmt.Sprintf("%d unread mesh messages", unread)
	if unread == 1 {
		what = "1 unread mesh message"
	}
	lines := []any{struct {
		Type    string  `json:"type"`
		Message message `json:"message"`
	}{"user", message{"user", what + ". Read them with: claudemesh inbox --unread"}}}
	if token != "" {
		lines = append([]any{struct {
			Type  string `json:"type"`
			Token string `json:"token"`
		}{"auth", token}}, lines...)
	}
	var out []byte
	for _, l := range lines {
		b, _ := json.Marshal(l) // strings only
		out = append(append(out, b...), '\n')
	}
	return out
}
