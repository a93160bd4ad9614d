package cli

import (
	"context"
	"fmt"
	"strings"

	urfave "github.com/urfave/cli/v3"

	"claudemesh/bus"
	"claudemesh/wire"
)

const topicLong = `A topic is a named conversation with members and a history. Its posts are sealed with a key that its members share and the broker
does not have; who joins is given the key by a member's daemon, and when somebody leaves, a lead's daemon makes a new one. What a
member could read before it left it may have kept. A topic without a key (general, and those made by other clients) is readable by
whoever runs the broker; topic rotate gives it one.`

func topicVerb() verb {
	return verb{
		name: "topic", short: "named conversations: members, posts, history",
		subs: []verb{
			topicCreateVerb(), topicListVerb(), topicJoinVerb(), topicLeaveVerb(), topicMembersVerb(), topicPostVerb(), topicHistoryVerb(), topicTailVerb(),
			topicSearchVerb(), topicReadVerb(), topicRotateVerb(),
		},
	}
}

// topicArg is the topic named by the first argument, without its "#".
func (c *call) topicArg() (string, error) {
	name := strings.TrimPrefix(c.args()[0], "#")
	if name == "" || len(name) > wire.MaxNameBytes {
		return "", usagef("a topic is meant by its name, of at most %d bytes, or its id", wire.MaxNameBytes)
	}
	return name, nil
}

func topicCreateVerb() verb {
	return verb{
		name: "create", args: "NAME", short: "make a topic, sealed, with yourself as its lead", long: topicLong,
		examples: []string{"claudemesh topic create deploys --description 'what goes out' --json"},
		fails:    []string{"3  the name cannot be one", "7  a private topic has this name"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "description", Usage: "what it is about: `TEXT`"},
			&urfave.StringFlag{Name: "visibility", Usage: "`public|private|dm`: public lets all join (default), the others are by invitation of a lead"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh topic create NAME"); err != nil {
				return err
			}
			name, err := c.topicArg()
			if err != nil {
				return err
			}
			req := bus.TopicCreate{Name: name, Description: c.cmd.String("description"), Visibility: c.cmd.String("visibility")}
			switch req.Visibility {
			case "", wire.TopicPublic, wire.TopicPrivate, wire.TopicDM:
			default:
				return usagef("--visibility is public, private or dm")
			}
			var made bus.TopicCreated
			slug, err := c.askBroker(ctx, bus.CallTopicCreate, req, &made)
			if err != nil {
				return err
			}
			return c.ui.result(made, func() error {
				what := "created topic"
				if !made.Created {
					what = "there is a topic"
				}
				seal := "its posts are sealed"
				if !made.Sealed {
					seal = "it has no key: the broker can read its posts"
				}
				return c.ui.print("%s #%s on %s; %s", what, cleanLine(made.Name), slug, seal)
			})
		},
	}
}

func topicListVerb() verb {
	return verb{
		name: "list", aliases: []string{"ls"}, short: "list the topics of a mesh",
		long:     "Private topics are listed to their members and to the mesh's admins. --json prints an array.",
		examples: []string{"claudemesh topic list --mesh team --json"},
		fails:    []string{"3  several meshes are joined and none is named", "4  the broker cannot be reached", "5  no such mesh"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh topic list"); err != nil {
				return err
			}
			var list wire.TopicList
			slug, err := c.askBroker(ctx, bus.CallTopicList, struct{}{}, &list)
			if err != nil {
				return err
			}
			if list.Topics == nil {
				list.Topics = []wire.Topic{}
			}
			return c.ui.result(list.Topics, func() error {
				if err := c.ui.print("%s on %s", plural(len(list.Topics), "topic"), slug); err != nil {
					return err
				}
				for _, t := range list.Topics {
					if err := c.ui.print("%s", c.topicLine(t)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func (c *call) topicLine(t wire.Topic) string {
	line := fmt.Sprintf("  %s  %s, %s", c.ui.paint(bold, "#"+cleanLine(t.Name)), cleanLine(t.Visibility), plural(t.MemberCount, "member"))
	if t.Role != "" {
		line += ", you are " + cleanLine(t.Role)
	}
	if t.Generation == 0 {
		line += ", not sealed"
	}
	if t.Description != nil {
		line += "  — " + cleanLine(*t.Description)
	}
	return line
}

func topicJoinVerb() verb {
	return verb{
		name: "join", args: "TOPIC", short: "become a member of a topic, or let another member in",
		long:     "A private topic is joined by invitation: one of its leads runs this with --member. Only a lead names leads.",
		examples: []string{"claudemesh topic join deploys", "claudemesh topic join secret --member bob"},
		fails:    []string{"3  a name means several members", "5  no such topic or member", "7  only a lead may do that"},
		flags: []urfave.Flag{
			&urfave.StringFlag{Name: "role", Usage: "`lead|member|observer`: member is the default, an observer does not post"},
			&urfave.StringFlag{Name: "member", Usage: "whom to let in: a `PEER` by name or key"},
		},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh topic join TOPIC"); err != nil {
				return err
			}
			name, err := c.topicArg()
			if err != nil {
				return err
			}
			req := bus.TopicJoin{Topic: name, Role: c.cmd.String("role"), Member: c.cmd.String("member")}
			switch req.Role {
			case "", wire.TopicLead, wire.TopicMember, wire.TopicObserver:
			default:
				return usagef("--role is lead, member or observer")
			}
			if _, err := c.askBroker(ctx, bus.CallTopicJoin, req, nil); err != nil {
				return err
			}
			return c.topicDone("joined", name, req.Member)
		},
	}
}

// topicDone says what was done to which topic, and to whom.
func (c *call) topicDone(what, topic, member string) error {
	out := map[string]string{what: topic}
	line := what + " #" + cleanLine(topic)
	if member != "" {
		out["member"], line = member, cleanLine(member)+" "+line
	}
	return c.ui.result(out, func() error { return c.ui.print("%s", line) })
}

func topicLeaveVerb() verb {
	return verb{
		name: "leave", args: "TOPIC", short: "end your membership, or that of another member",
		long:     "What was posted before may have been kept. A lead's daemon makes a new key for those who stay.",
		examples: []string{"claudemesh topic leave deploys", "claudemesh topic leave deploys --member bob"},
		fails:    []string{"5  no such topic or member", "7  only a lead may remove others"},
		flags:    []urfave.Flag{&urfave.StringFlag{Name: "member", Usage: "whom to remove: a `PEER` by name or key"}},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh topic leave TOPIC"); err != nil {
				return err
			}
			name, err := c.topicArg()
			if err != nil {
				return err
			}
			req := bus.TopicLeave{Topic: name, Member: c.cmd.String("member")}
			if _, err := c.askBroker(ctx, bus.CallTopicLeave, req, nil); err != nil {
				return err
			}
			return c.topicDone("left", name, req.Member)
		},
	}
}

func topicMembersVerb() verb {
	return verb{
		name: "members", args: "TOPIC", short: "list who belongs to a topic", examples: []string{"claudemesh topic members deploys --json"},
		fails: []string{"5  no such topic"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh topic members TOPIC"); err != nil {
				return err
			}
			name, err := c.topicArg()
			if err != nil {
				return err
			}
			var reply wire.TopicMembers
			if _, err := c.askBroker(ctx, bus.CallTopicMembers, wire.TopicRequest{Topic: name}, &reply); err != nil {
				return err
			}
			if reply.Members == nil {
				reply.Members = []wire.TopicMembership{}
			}
			return c.ui.result(reply.Members, func() error {
				if err := c.ui.print("%s in #%s", plural(len(reply.Members), "member"), cleanLine(name)); err != nil {
					return err
				}
				for _, m := range reply.Members {
					read := "has not marked anything read"
					if m.LastReadAt != nil {
						read = "read until " + cleanLine(*m.LastReadAt)
					}
					if err := c.ui.print("  %s  %s, %s  %s", c.ui.paint(bold, cleanLine(m.DisplayName)), cleanLine(m.Role), read, c.ui.paint(dim, short(m.Pubkey)+"…")); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func topicReadVerb() verb {
	return verb{
		name: "read", args: "TOPIC", short: "note that you have read a topic up to now", examples: []string{"claudemesh topic read deploys"},
		fails: []string{"5  no such topic", "7  you do not belong to it"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh topic read TOPIC"); err != nil {
				return err
			}
			name, err := c.topicArg()
			if err != nil {
				return err
			}
			if _, err := c.askBroker(ctx, bus.CallTopicMarkRead, wire.TopicRequest{Topic: name}, nil); err != nil {
				return err
			}
			return c.topicDone("read", name, "")
		},
	}
}

func topicRotateVerb() verb {
	return verb{
		name: "rotate", args: "TOPIC", short: "give a topic a new key, or its first one",
		long: `Posts from now on are sealed with the new key; the old ones stay readable to who could read them. Daemons do this by themselves when
somebody leaves. The first key of a topic that has none may be given by any member: clients without topic keys read nothing after it.`,
		examples: []string{"claudemesh topic rotate general"},
		fails:    []string{"5  no such topic", "6  somebody else made a new key at the same time", "7  only a lead may do that"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(1, 1, "claudemesh topic rotate TOPIC"); err != nil {
				return err
			}
			name, err := c.topicArg()
			if err != nil {
				return err
			}
			var done bus.TopicRotated
			if _, err := c.askBroker(ctx, bus.CallTopicRotate, bus.TopicRotate{Topic: name}, &done); err != nil {
				return err
			}
			return c.ui.result(done, func() error {
				return c.ui.print("#%s has a new key, number %d, sealed for %s", cleanLine(done.Topic), done.Generation, plural(done.SealedFor, "member"))
			})
		},
	}
}
