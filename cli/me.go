package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// meJSON is everything that is mine: who I am on each mesh, through what, and what waits for me. Keys that the reference has too are spelled as it does.
type meJSON struct {
	Session *bus.SessionInfo `json:"session,omitempty"` // the one that asks
	Meshes  []meMesh         `json:"meshes"`
	Totals  meTotals         `json:"totals"`
}

type meMesh struct {
	MeshID      string `json:"meshId"`
	Slug        string `json:"slug"`
	Name        string `json:"name"`
	MemberID    string `json:"memberId"`
	DisplayName string `json:"displayName"`
	Pubkey      string `json:"pubkey"`
	BrokerURL   string `json:"brokerUrl"`
	JoinedAt    string `json:"joinedAt"`
	Link        string `json:"link"`            // connecting, open, waiting, closed
	Error       string `json:"error,omitempty"` // why it is not open
	// What only the broker knows; null when it did not answer.
	MyRole *string `json:"myRole"`
	Peers  *int    `json:"peers"` // members
	Online *int    `json:"online"`
	Topics *int    `json:"topics"`
	// What this machine knows.
	Unread   int         `json:"unread"`
	Unsent   int         `json:"unsent"`
	Sessions []meSession `json:"sessions"`
}

type meSession struct {
	ID     string       `json:"id"`
	Name   string       `json:"name"`
	Pubkey string       `json:"pubkey"`
	PID    int          `json:"pid"`
	Cwd    string       `json:"cwd"`
	Role   string       `json:"role,omitempty"`
	Groups []mesh.Group `json:"groups"`
	Link   string       `json:"link"`
	Error  string       `json:"error,omitempty"`
	Unread int          `json:"unread"`
}

type meTotals struct {
	Meshes   int `json:"meshes"`
	Peers    int `json:"peers"`
	Online   int `json:"online"`
	Topics   int `json:"topics"`
	Sessions int `json:"sessions"`
	Unread   int `json:"unread"`
	Unsent   int `json:"unsent"`
}

func meVerb() verb {
	return verb{
		name: "me", args: "", short: "who you are on each mesh, your sessions, what is unread, how the links are",
		long: `Of every joined mesh, or the one named: the name and key you have there, the state of the link, the sessions on this machine, what they have not
read and what is not sent yet. Role, members and topics are the broker's word, and left out where it does not answer. Nothing is marked as read.`,
		examples: []string{"claudemesh me", "claudemesh me --mesh team --json", "claudemesh me --jq .totals.unread"},
		fails:    []string{"5  no such mesh", "8  the daemon does not start or answer"},
		subs:     []verb{meOverviewVerb()},
		run: func(ctx context.Context, c *call) error {
			if c.cmd.Args().Present() {
				return c.unknownCommand(c.args()[0])
			}
			return c.overview(ctx)
		},
	}
}

// meOverviewVerb is the overview by its full name.
func meOverviewVerb() verb {
	return verb{
		name: "overview", aliases: []string{"workspace"}, args: "", short: "the same as claudemesh me", hidden: true,
		examples: []string{"claudemesh me overview"},
		fails:    []string{"5  no such mesh", "8  the daemon does not start or answer"},
		run: func(ctx context.Context, c *call) error {
			if err := c.want(0, 0, "claudemesh me overview"); err != nil {
				return err
			}
			return c.overview(ctx)
		},
	}
}

func (c *call) overview(ctx context.Context) error {
	me := meJSON{Meshes: []meMesh{}}
	slugs, err := c.meshes(ctx)
	switch {
	case errors.Is(err, errNoMesh):
		return c.ui.result(me, func() error { return c.printMe(me) })
	case err != nil:
		return err
	}
	n, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer n.Close()
	var meshes bus.MeshList
	if err := n.daemon(ctx, bus.OpMeshList, bus.MeshQuery{Server: true}, &meshes); err != nil {
		return err
	}
	var sessions bus.SessionList
	if err := n.daemon(ctx, bus.OpSessionList, nil, &sessions); err != nil {
		return err
	}
	if n.session {
		me.Session = new(bus.SessionInfo)
		if err := n.daemon(ctx, bus.OpSessionMe, nil, me.Session); err != nil {
			return err
		}
	}
	for _, m := range meshes.Meshes {
		if slices.Contains(slugs, m.Mesh) {
			me.add(m, n.topicCount(ctx, m), sessions.Sessions)
		}
	}
	c.fromConfig(&me)
	return c.ui.result(me, func() error { return c.printMe(me) })
}

// topicCount is how many topics a mesh has; nil when its broker cannot be asked.
func (n *conn) topicCount(ctx context.Context, m bus.MeshStatus) *int {
	var list wire.TopicList
	if m.Link != "open" || n.broker(ctx, m.Mesh, bus.CallTopicList, struct{}{}, &list) != nil {
		return nil
	}
	count := len(list.Topics)
	return &count
}

// fromConfig adds what only the file knows: when a mesh was joined, and under which name where no broker has said it yet. A session may not be able to read
// the file, and does without.
func (c *call) fromConfig(me *meJSON) {
	dir, err := mesh.ConfigDir(c.getenv)
	if err != nil {
		return
	}
	config, err := mesh.LoadConfig(dir)
	if err != nil {
		return
	}
	for i := range me.Meshes {
		m := &me.Meshes[i]
		for _, j := range config.Meshes {
			if j.MeshID == m.MeshID {
				m.JoinedAt = j.JoinedAt
			}
		}
		if m.DisplayName == "" {
			m.DisplayName = config.DisplayName
		}
	}
}

func (me *meJSON) add(m bus.MeshStatus, topics *int, sessions []bus.SessionInfo) {
	row := meMesh{
		MeshID: m.MeshID, Slug: m.Mesh, Name: m.Name, MemberID: m.MemberID, DisplayName: m.DisplayName, Pubkey: m.Pubkey, BrokerURL: m.BrokerURL,
		Link: m.Link, Error: m.Error, Topics: topics, Unread: m.Unread, Sessions: []meSession{},
		Unsent: m.Outbox["pending"] + m.Outbox["inflight"],
	}
	if m.Server != nil {
		row.MyRole, row.Peers, row.Online = &m.Server.Role, &m.Server.Members, &m.Server.Online
		me.Totals.Peers += m.Server.Members
		me.Totals.Online += m.Server.Online
	}
	for _, s := range sessions {
		if s.Mesh == m.Mesh {
			row.Sessions = append(row.Sessions, meSession{s.ID, s.Name, s.Pubkey, s.PID, s.Cwd, s.Role, s.Groups, s.Link, s.LinkError, s.Unread})
		}
	}
	if topics != nil {
		me.Totals.Topics += *topics
	}
	me.Totals.Meshes++
	me.Totals.Sessions += len(row.Sessions)
	me.Totals.Unread += row.Unread
	me.Totals.Unsent += row.Unsent
	me.Meshes = append(me.Meshes, row)
}

func (c *call) printMe(me meJSON) error {
	if len(me.Meshes) == 0 {
		return c.ui.print("no mesh is joined\n  make one  claudemesh create NAME\n  join one  claudemesh join INVITE")
	}
	if s := me.Session; s != nil {
		if err := c.ui.print("you are session %s on %s  %s…", c.ui.paint(bold, cleanLine(s.Name)), s.Mesh, short(s.Pubkey)); err != nil {
			return err
		}
	}
	for _, m := range me.Meshes {
		if err := c.ui.print("%s", c.meLine(m)); err != nil {
			return err
		}
		for _, s := range m.Sessions {
			line := fmt.Sprintf("    %s  pid %d  %s…  %s  %d unread  %s", c.ui.paint(bold, cleanLine(s.Name)), s.PID, short(s.Pubkey), c.linkWord(s.Link, s.Error), s.Unread, cleanLine(s.Cwd))
			if err := c.ui.print("%s", strings.TrimRight(line, " ")); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *call) meLine(m meMesh) string {
	who := "you are " + cleanLine(m.DisplayName)
	if m.DisplayName == "" {
		who = "your name is not known yet"
	}
	if m.MyRole != nil {
		who += ", " + cleanLine(*m.MyRole)
	}
	parts := []string{c.ui.paint(bold, m.Slug), c.linkWord(m.Link, m.Error), who, short(m.Pubkey) + "…"}
	if m.Peers != nil {
		parts = append(parts, fmt.Sprintf("%s, %d online", plural(*m.Peers, "member"), *m.Online))
	}
	if m.Topics != nil && *m.Topics > 0 {
		parts = append(parts, plural(*m.Topics, "topic"))
	}
	parts = append(parts, fmt.Sprintf("%d unread", m.Unread))
	if m.Unsent > 0 {
		parts = append(parts, fmt.Sprintf("%d not sent yet", m.Unsent))
	}
	return strings.Join(parts, "  ")
}

// linkWord is the state of a link, and why it is not open.
func (c *call) linkWord(link, why string) string {
	if link == "open" {
		return c.ui.paint(green, link)
	}
	if why != "" {
		link += " (" + cleanLine(why) + ")"
	}
	return c.ui.paint(yellow, link)
}
