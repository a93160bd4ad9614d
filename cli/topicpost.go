package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/mesh"
)

// postWait is how long topic post waits for the broker, to be able to say which id the post has there. After it the post is still on its way.
const postWait = 5 * time.Second

func topicPostVerb() verb {
	return verb{
		name: "post", args: "TOPIC TEXT…\nTOPIC -", short: "post to a topic",
		long: `Posts the words, or, with "-", what comes on stdin. As any message it is first stored here and then sent, so nothing is lost while the
broker is away. Prints the post's id once the broker has it. send "#TOPIC" TEXT does the same without waiting.

A topic that has a key takes sealed posts only from here; there is no way to post to it in clear.`,
		examples: []string{`claudemesh topic post deploys "v2 is out, @bob"`, "git log -3 | claudemesh topic post deploys - --reply-to 4kXb2Q"},
		fails: []string{
			"3  the text is empty or over the limit, --reply-to is shorter than 6 characters or means several posts", "5  no such topic, or no post for --reply-to",
			"6  the idempotency key belongs to another message", "7  you do not belong to the topic",
		},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "reply-to", Aliases: []string{"replyTo"}, Usage: "`ID` of the post this one answers, or its first 6 or more characters"},
			&urfave.StringFlag{Name: "priority", Usage: "`P`, shown with the post: now (marked urgent), next (default), low"},
			&urfave.StringFlag{Name: "idempotency-key", Usage: "`KEY` that makes a repeat of this post harmless (default: a new one)"},
		},
		run: func(ctx context.Context, c *call) error {
			s, err := c.newPost(ctx)
			if err != nil {
				return err
			}
			err = s.run(ctx)
			// The post is kept and goes out later: what is known is told.
			if errors.Is(err, errWaitOver) && s.accepted != nil {
				return s.show(*s.accepted, s.known)
			}
			return err
		},
	}
}

// postJSON is the result of a post. The reference has an id at the broker and another in the history; here they are one, known once the broker has the post.
type postJSON struct {
	OK            bool     `json:"ok"`
	MessageID     string   `json:"messageId"`           // the client message id: valid at once
	HistoryID     string   `json:"historyId,omitempty"` // the post's id
	Topic         string   `json:"topic"`
	TopicID       string   `json:"topicId,omitempty"`
	Mesh          string   `json:"mesh"`
	State         string   `json:"state"`
	Duplicate     bool     `json:"duplicate"`
	Notifications int      `json:"notifications"` // always 0: a mention is text
	ReplyToID     string   `json:"replyToId,omitempty"`
	BodyVersion   int      `json:"bodyVersion,omitempty"`
	Mentions      []string `json:"mentions"`
	Note          string   `json:"note,omitempty"`
	Warning       string   `json:"warning,omitempty"`
}

func (c *call) newPost(ctx context.Context) (*sending, error) {
	if err := c.want(2, -1, `claudemesh topic post TOPIC TEXT… (or "-" for stdin)`); err != nil {
		return nil, err
	}
	name, err := c.topicArg()
	if err != nil {
		return nil, err
	}
	s := &sending{call: c, kind: bus.SendTopic, wait: bus.StateSent, timeout: postWait}
	s.req = bus.SendRequest{To: "#" + name, Priority: c.cmd.String("priority"), ClientMessageID: c.cmd.String("idempotency-key")}
	switch s.req.Priority {
	case "", "now", "next", "low":
	default:
		return nil, usagef("--priority is now, next or low")
	}
	if len(s.req.ClientMessageID) > maxKey {
		return nil, usagef("--idempotency-key is a text of 1 to %d bytes", maxKey)
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
	s.req.Body = strings.Join(words, " ")
	if fromStdin {
		if s.req.Body, err = c.readText(mesh.MaxBody); err != nil {
			return nil, err
		}
	}
	if err := checkText(s.req.Body); err != nil {
		return nil, err
	}
	if s.req.ReplyTo, err = c.replyTo(ctx, s.slug, name, c.cmd.String("reply-to")); err != nil {
		return nil, err
	}
	s.show = func(reply bus.SendReply, known progress) error {
		out := postJSON{
			OK: true, MessageID: reply.ClientMessageID, HistoryID: known.BrokerMessageID, Topic: name, TopicID: reply.TopicID, Mesh: reply.Mesh, State: known.State,
			Duplicate: reply.Duplicate, ReplyToID: s.req.ReplyTo, BodyVersion: reply.BodyVersion, Mentions: mentions(s.req.Body), Note: reply.Note,
			Warning: reply.Warning,
		}
		return c.ui.result(out, func() error {
			line := "posted to #" + cleanLine(name) + "  [" + cleanLine(known.BrokerMessageID) + "]"
			if known.BrokerMessageID == "" {
				line = "accepted for #" + cleanLine(name) + ", waiting for the broker or the topic's key  [" + cleanLine(reply.ClientMessageID) + "]"
			}
			return c.ui.print("%s", line)
		})
	}
	return s, nil
}

// A whole id is taken as it is; a beginning of 6 to 15 characters is looked for among the newest posts.
const (
	wholeID    = 16
	leastID    = 6
	replyDepth = 200
)

func (c *call) replyTo(ctx context.Context, slug, topic, id string) (string, error) {
	switch {
	case id == "" && !c.cmd.IsSet("reply-to"), len(id) >= wholeID && len(id) <= maxKey:
		return id, nil
	case len(id) < leastID || len(id) > maxKey:
		return "", usagef("--reply-to is the id of a post, or its first %d or more characters", leastID)
	}
	n, err := c.connect(ctx)
	if err != nil {
		return "", err
	}
	defer n.Close()
	var posts []bus.TopicPost
	err = n.whenOpen(ctx, c.clock, slug, func() (err error) {
		posts, _, err = n.posts(ctx, slug, topic, "", replyDepth, nil)
		return err
	})
	if err != nil {
		return "", err
	}
	var found []string
	for _, p := range posts {
		if strings.HasPrefix(p.ID, id) {
			found = append(found, p.ID)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", &failure{Code: "post_not_found", Message: fmt.Sprintf("no post of the newest %d begins with %q", replyDepth, id), Hint: "give the whole id, as topic history --json shows it", Exit: exitNotFound}
	}
	return "", usagef("several posts begin with %q: %s", id, strings.Join(found, ", "))
}

var mention = regexp.MustCompile(`(?:^|[^A-Za-z0-9_-])@([A-Za-z0-9_-]{1,64})`)

// mentions are the names behind an @ in a text, in lower case, each once, at most 16.
func mentions(text string) []string {
	out := []string{}
	seen := map[string]bool{}
	for _, m := range mention.FindAllStringSubmatchIndex(text, -1) {
		end := m[3]
		if end < len(text) && strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-", rune(text[end])) {
			continue // longer than a name can be
		}
		name := strings.ToLower(text[m[2]:end])
		if !seen[name] && len(out) < 16 {
			seen[name] = true
			out = append(out, name)
		}
	}
	return out
}
