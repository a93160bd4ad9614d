package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mesh"
)

// maxKey is the longest idempotency key and reply id in bytes.
const maxKey = 256

// sendTries is how often one send asks the daemon when the connection breaks. Every try carries the same client message id, so none can duplicate.
const sendTries = 3

func sendVerb() verb {
	return verb{
		name: "send", args: "TO TEXT…\nTO -", short: "send a message to a peer, a group, a topic or everybody",
		long: `TO is a display name (any case), 16 to 64 hex digits of a key, @group, '#topic', or '*' for everybody in the mesh. A name or prefix that
means several peers is refused with the candidates listed. TEXT may be several words; "-" reads it from stdin, byte for byte.

What is printed is what is known at once:
  accepted    stored here, safe against a crash; it goes out as soon as the broker and the peer can be reached
  sent        the broker has it
  delivered   the recipient's machine stored it
  surfaced    it was handed to the recipient's session
Without a daemon (--no-daemon) it is sent or refused while you wait, and not kept.
--wait STATE waits until that much is known. When the time is over the exit code is 8 and the message stays on its way.

To be sure that a repeated command sends one message, give both runs the same --idempotency-key.`,
		examples: []string{
			`claudemesh send bob "ship it"`,
			`git diff | claudemesh send @reviewers - --priority low`,
			`claudemesh send bob "tests are green" --wait delivered --timeout 10s --json`,
		},
		fails: []string{
			"1  the message was refused by the mesh after it was accepted (with --wait)",
			"3  the target means several peers or yourself, several meshes and none named, the text is empty or over the limit",
			"5  no such peer or mesh",
			"6  the idempotency key belongs to another message",
			"7  this session may not send that, or its token is not accepted",
			"8  the daemon does not answer, or --wait ran out of time",
		},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "priority", Usage: "`now|next|low`, shown with the message: now is marked urgent, next the default"},
			&urfave.StringFlag{Name: "reply-to", Usage: "`ID` of the message this one answers"},
			&urfave.StringFlag{Name: "wait", Usage: "the state to wait for: `sent|delivered|surfaced`"},
			&urfave.StringFlag{Name: "timeout", Value: "30s", Usage: "how long --wait waits: `DURATION` (default 30s)"},
			&urfave.StringFlag{Name: "idempotency-key", Usage: "`KEY` that makes a repeat of this message harmless (default: a new one)"},
			selfFlag(),
		},
		run: func(ctx context.Context, c *call) error {
			s, err := c.newSend(ctx)
			if err != nil {
				return err
			}
			return s.run(ctx)
		},
	}
}

func messageVerb() verb {
	return verb{name: "message", short: "send and read messages", subs: []verb{sendVerb(), inboxVerb(), messageStatusVerb()}}
}

// sending is one send on its way.
type sending struct {
	*call
	slug    string
	kind    string
	req     bus.SendRequest
	ownKey  bool // the idempotency key was minted here
	wait    string
	timeout time.Duration

	accepted *bus.SendReply // the daemon's answer, once there is one
	known    progress
	deadline time.Time
	show     func(bus.SendReply, progress) error // prints the result; nil: as send does
}

// newSend reads and checks the arguments; nothing is sent before all of them are good.
func (c *call) newSend(ctx context.Context) (*sending, error) {
	if err := c.want(2, -1, `claudemesh send TO TEXT… (or "-" for stdin)`); err != nil {
		return nil, err
	}
	target, err := mesh.ParseTarget(c.args()[0])
	if err != nil {
		return nil, err
	}
	s := &sending{call: c, kind: target.SendKind(), wait: c.cmd.String("wait")}
	s.req = bus.SendRequest{To: target.Typed, Priority: c.cmd.String("priority"), ReplyTo: c.cmd.String("reply-to"), ClientMessageID: c.cmd.String("idempotency-key")}
	switch s.req.Priority {
	case "", "now", "next", "low":
	default:
		return nil, usagef("--priority is now, next or low")
	}
	switch s.wait {
	case "", bus.StateSent, bus.StateDelivered, bus.StateSurfaced:
	default:
		return nil, usagef("--wait is sent, delivered or surfaced")
	}
	if s.timeout, err = parseDuration(c.cmd.String("timeout")); err != nil || s.timeout <= 0 {
		return nil, usagef("--timeout is a duration such as 10s or 2m")
	}
	if c.cmd.IsSet("timeout") && s.wait == "" {
		return nil, usagef("--timeout belongs to --wait")
	}
	for flag, value := range map[string]string{"idempotency-key": s.req.ClientMessageID, "reply-to": s.req.ReplyTo} {
		if c.cmd.IsSet(flag) && value == "" || len(value) > maxKey || !utf8.ValidString(value) || strings.ContainsRune(value, 0) {
			return nil, usagef("--%s is a text of 1 to %d bytes", flag, maxKey)
		}
	}
	if s.ownKey = s.req.ClientMessageID == ""; s.ownKey {
		id, err := uuid.NewRandom()
		if err != nil {
			return nil, fmt.Errorf("make message id: %w", err)
		}
		s.req.ClientMessageID = id.String()
	}
	words := c.args()[1:]
	fromStdin := len(words) == 1 && words[0] == "-"
	if s.slug, err = c.mesh(ctx, !fromStdin); err != nil {
		return nil, err
	}
	if err := s.checkSelf(target); err != nil {
		return nil, err
	}
	if fromStdin {
		s.req.Body, err = c.readText(mesh.MaxBody)
	} else {
		s.req.Body, err = strings.Join(words, " "), nil
	}
	if err != nil {
		return nil, err
	}
	return s, checkText(s.req.Body)
}

// readText reads stdin to its end, at most limit bytes.
func (c *call) readText(limit int) (string, error) {
	b, err := io.ReadAll(io.LimitReader(c.stdin, int64(limit)+1))
	if err != nil {
		return "", fmt.Errorf("read stdin: %w", err)
	}
	if len(b) > limit {
		return "", &tooLargeError{limit}
	}
	return string(b), nil
}

func checkText(s string) error {
	switch {
	case s == "":
		return usagef("the message is empty")
	case len(s) > mesh.MaxBody:
		return &tooLargeError{mesh.MaxBody}
	case !utf8.ValidString(s):
		return usagef("the message is not UTF-8 text")
	case strings.ContainsRune(s, 0):
		return usagef("the message holds a NUL character")
	}
	return nil
}

func (s *sending) run(ctx context.Context) error {
	for try := 1; ; try++ {
		n, err := s.connect(ctx)
		if err != nil {
			return s.unfinished(err)
		}
		err = s.attempt(ctx, n, try)
		n.Close()
		broken := errors.Is(err, bus.ErrInterrupted) || errors.Is(err, bus.ErrNoDaemon)
		if broken && ctx.Err() == nil && (s.accepted != nil || try < sendTries) {
			continue
		}
		if broken {
			err = fmt.Errorf("%w; to repeat it safely use --idempotency-key %s", err, s.req.ClientMessageID)
		}
		return s.unfinished(err)
	}
}

// attempt sends over one connection, and waits if asked to. An error that the connection broke is one to try again after: the daemon knows the message by
// its id.
func (s *sending) attempt(ctx context.Context, n *conn, try int) (err error) {
	var w *waiter
	if s.wait != "" && n.live == nil && s.wait != bus.StateSent { // what is sent without a daemon is sent when the answer is here
		return n.refuse("the word of the recipient comes to it")
	}
	if s.wait != "" && n.live != nil {
		// Before the send, or the receipt of a fast peer would be missed.
		if w, err = newWaiter(n, s.slug, s.req.ClientMessageID); err != nil {
			return err
		}
	}
	var reply bus.SendReply
	if err := n.Do(ctx, bus.SendSubject(s.slug, n.actor, s.kind), s.req, &reply); err != nil {
		return err
	}
	switch {
	case s.accepted != nil:
		reply.Duplicate = s.accepted.Duplicate
	case s.ownKey && try > 1:
		// The earlier request was ours: for the user this is no repeat.
		reply.Duplicate = false
	}
	if s.accepted == nil {
		s.deadline = s.clock.Now().Add(s.timeout)
	}
	s.accepted = &reply
	s.known.learn(progress{State: reply.State, BrokerMessageID: reply.BrokerMessageID})
	if w != nil {
		if err := w.wait(ctx, s.clock, s.wait, s.deadline, &s.known); err != nil {
			return err
		}
	}
	result := sendResult(reply, s.known)
	result.Via = n.via()
	if s.known.State == bus.StateFailed {
		return &sendFailedError{result}
	}
	if reply.Warning != "" && !s.ui.json {
		s.ui.warn("%s", cleanLine(reply.Warning))
	}
	if s.show != nil {
		return s.show(reply, s.known)
	}
	return s.ui.result(result, func() error { return s.ui.print("%s", sentence(reply, s.known)) })
}

// unfinished adds to an error, after the message was accepted, that it was.
func (s *sending) unfinished(err error) error {
	var failed *sendFailedError
	if err == nil || s.accepted == nil || errors.As(err, &failed) {
		return err
	}
	return &waitError{want: s.wait, result: sendResult(*s.accepted, s.known), cause: err}
}

// sendJSON is the result of a send.
type sendJSON struct {
	OK              bool   `json:"ok"`
	MessageID       string `json:"messageId"` // the client message id: valid at once, and for ever
	BrokerMessageID string `json:"brokerMessageId,omitempty"`
	Target          string `json:"target"`
	Mesh            string `json:"mesh"`
	State           string `json:"state"`
	Duplicate       bool   `json:"duplicate"`
	Via             string `json:"via"` // daemon, or cold when this command reached the broker by itself
	SurfacedVia     string `json:"surfacedVia,omitempty"`
	Recipient       string `json:"recipient,omitempty"`
	RecipientKey    string `json:"recipientKey,omitempty"`
	Online          string `json:"online"` // yes, no or unknown
	Reason          string `json:"reason,omitempty"`
	Note            string `json:"note,omitempty"`
	Warning         string `json:"warning,omitempty"`
}

func sendResult(r bus.SendReply, p progress) sendJSON {
	out := sendJSON{
		OK: true, MessageID: r.ClientMessageID, BrokerMessageID: p.BrokerMessageID, Target: r.Target, Mesh: r.Mesh, State: p.State, Duplicate: r.Duplicate,
		Via: "daemon", SurfacedVia: p.Via, Recipient: r.RecipientName, RecipientKey: r.RecipientKey, Online: r.Online, Reason: p.Reason,
		Warning: r.Warning,
	}
	if p.State == bus.StateAccepted {
		out.Note = r.Note // about what it waits for: stale once it has moved on
	}
	return out
}

// sentence says what is known about a message, and no more.
func sentence(r bus.SendReply, p progress) string {
	to := cleanLine(r.Target)
	if r.RecipientName != "" {
		to = cleanLine(r.RecipientName)
	}
	var s string
	switch p.State {
	case bus.StateSent:
		s = "sent to " + to
	case bus.StateDelivered:
		s = "delivered to " + to
	case bus.StateSurfaced:
		s = "surfaced to " + to
		if p.Via != "" {
			s += " via " + cleanLine(p.Via)
		}
	case bus.StateAnswered:
		s = "answered by " + to
	default:
		s = "accepted for " + to
		switch {
		case r.Note != "":
			s = fmt.Sprintf("accepted for %s, waiting (%s)", to, cleanLine(r.Note))
		case r.Online == "no":
			s += ", who is offline now: it is delivered when they are back"
		}
	}
	if r.Duplicate {
		s += " (this message was accepted before; nothing new was sent)"
	}
	return s + "  [" + cleanLine(r.ClientMessageID) + "]"
}
