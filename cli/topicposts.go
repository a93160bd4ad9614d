package cli

import (
	"context"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/wire"
)

// Reading a topic: history and search.

// maxHistory is the most that one topic history lists.
const maxHistory = 10_000

func topicHistoryVerb() verb {
	return verb{
		name: "history", args: "TOPIC", short: "print the posts of a topic",
		long: `Prints the newest posts, the oldest of them first. --json prints an array, newest first, as the broker keeps them, with the text added as
message: null for a post that this member has no key for (of before it joined, or of while it had left).`,
		examples: []string{"claudemesh topic history deploys --limit 20", "claudemesh topic history deploys --before ID --json"},
		fails:    []string{"5  no such topic or post", "7  you do not belong to it"},
		flags: []urfave.Flag{
			&urfave.IntFlag{Name: "limit", Value: 50, Usage: "at most `N` posts (default 50)"},
			&urfave.StringFlag{Name: "before", Usage: "only posts before the one with this `ID`"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh topic history TOPIC"); err != nil {
				return err
			}
			name, err := c.topicArg()
			if err != nil {
				return err
			}
			limit := c.cmd.Int("limit")
			if limit < 1 || limit > maxHistory {
				return usagef("--limit is a number from 1 to %d", maxHistory)
			}
			var posts []bus.TopicPost
			err = c.onMesh(ctx, func(ctx context.Context, n *conn, slug string) (err error) {
				posts, _, err = n.posts(ctx, slug, name, c.cmd.String("before"), limit, nil)
				return err
			})
			if err != nil {
				return err
			}
			return c.ui.result(posts, func() error {
				if len(posts) == 0 {
					return c.ui.print("no posts")
				}
				return c.printPosts(posts)
			})
		},
	}
}

// posts reads posts, newest first: at most limit, before the one named, and only those newer than the first that known knows.
func (n *conn) posts(ctx context.Context, slug, topic, before string, limit int, known func(id string) bool) (posts []bus.TopicPost, topicID string, err error) {
	posts = []bus.TopicPost{}
	for ask := (bus.TopicHistory{Topic: topic, BeforeID: before}); ; {
		ask.Limit = min(limit-len(posts), wire.MaxTopicPage)
		var page bus.TopicPage
		if err := n.broker(ctx, slug, bus.CallTopicHistory, ask, &page); err != nil {
			return nil, "", err
		}
		topicID = page.TopicID
		for _, p := range page.Messages {
			if known != nil && known(p.ID) {
				return posts, topicID, nil
			}
			posts = append(posts, p)
			ask.BeforeID = p.ID
		}
		if !page.HasMore || len(page.Messages) == 0 || len(posts) >= limit {
			return posts, topicID, nil
		}
	}
}

// printPosts prints posts that come newest first, the oldest first.
func (c *call) printPosts(posts []bus.TopicPost) error {
	shown := postPrinter{call: c, texts: map[string]string{}}
	for _, p := range slices.Backward(posts) {
		if err := shown.print(p); err != nil {
			return err
		}
	}
	return nil
}

// postPrinter prints posts for people, and remembers the last ones, for the answers to them.
type postPrinter struct {
	*call
	texts map[string]string
	order []string
}

const rememberedPosts = 256

func (p *postPrinter) print(post bus.TopicPost) error {
	text := "(this post cannot be opened: " + cleanLine(post.Reason) + ")"
	if post.Message != nil {
		text = clean(*post.Message)
	}
	name := post.SentAs
	if name == "" {
		name = post.SenderName
	}
	head := p.ui.paint(bold, cleanLine(name)) + "  " + p.ui.paint(dim, cleanLine(post.CreatedAt)+"  #"+cleanLine(post.ID[:min(8, len(post.ID))]))
	if post.BodyVersion != wire.BodySealed {
		head += p.ui.paint(yellow, "  not sealed")
	}
	if post.ReplyToID != "" {
		quoted := p.texts[post.ReplyToID]
		if quoted == "" {
			quoted = "#" + cleanLine(post.ReplyToID[:min(8, len(post.ReplyToID))])
		}
		head += "\n    " + p.ui.paint(dim, "in reply to "+quoted)
	}
	start := cleanLine(text)
	p.texts[post.ID] = cleanLine(name) + ": " + strings.ToValidUTF8(start[:min(len(start), 60)], "")
	if p.order = append(p.order, post.ID); len(p.order) > rememberedPosts {
		delete(p.texts, p.order[0])
		p.order = p.order[1:]
	}
	return p.ui.print("%s\n    %s", head, indent(text, "    "))
}

func topicSearchVerb() verb {
	return verb{
		name: "search", args: "TOPIC WORD…", short: "find posts by their words",
		long: `Finds the posts that hold all words, in any case, newest first. The broker cannot search what it cannot read: the daemon opens the newest
2,000 posts and looks itself. --json prints {topic, messages, searched, hasMore}.`,
		examples: []string{"claudemesh topic search deploys rollback db"},
		fails:    []string{"5  no such topic", "7  you do not belong to it"},
		flags:    []urfave.Flag{&urfave.IntFlag{Name: "limit", Value: 50, Usage: "at most `N` posts, 1 to 200 (default 50)"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(2, -1, "claudemesh topic search TOPIC WORD…"); err != nil {
				return err
			}
			name, err := c.topicArg()
			if err != nil {
				return err
			}
			limit := c.cmd.Int("limit")
			if limit < 1 || limit > wire.MaxTopicPage {
				return usagef("--limit is a number from 1 to %d", wire.MaxTopicPage)
			}
			var found bus.TopicFound
			req := bus.TopicSearch{Topic: name, Query: strings.Join(c.args()[1:], " "), Limit: limit}
			if _, err := c.askBroker(ctx, bus.CallTopicSearch, req, &found); err != nil {
				return err
			}
			return c.ui.result(found, func() error {
				if len(found.Messages) == 0 {
					return c.ui.print("no post of the newest %d holds that", found.Searched)
				}
				return c.printPosts(found.Messages)
			})
		},
	}
}
