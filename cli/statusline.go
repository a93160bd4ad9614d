package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"claudemesh/bus"
	"claudemesh/mesh"
)

// statusLineLimit is what a status line may take: the client draws it again and again.
const statusLineLimit = 40 * time.Millisecond

// maxClientJSON bounds what the client tells a status line on stdin, in bytes.
const maxClientJSON = 256 << 10

func statusLineVerb() verb {
	return verb{
		name: "status-line", args: "", short: "one line for the client's status line", hidden: true,
		long: `Prints the mesh, this session's name, how many peers are connected and how many messages are unread, from what the daemon knows by
itself: it asks no broker, starts nothing, takes no longer than 50 ms, and the exit code is always 0. claudemesh install --status-line registers it.`,
		examples: []string{"claudemesh status-line < client.json"},
		fails:    []string{"0  whatever happens: a status line must not be in the way"},
		run: func(ctx context.Context, c *call) error {
			ctx, cancel := context.WithTimeout(ctx, statusLineLimit)
			defer cancel()
			line := "◇ claudemesh " + c.statusLine(ctx)
			return c.ui.result(map[string]string{"line": line}, func() error { return c.ui.print("%s", line) })
		},
	}
}

// statusLine never fails: what is not known is left out.
func (c *call) statusLine(ctx context.Context) string {
	joined, err := c.joined()
	if err != nil {
		return "(config not readable)"
	}
	slug, err := c.mesh(ctx, false)
	if err != nil {
		switch len(joined) {
		case 0:
			return "(not joined)"
		case 1:
			slug = joined[0]
		}
	}
	dir, err := c.daemonDir()
	if err != nil || !bus.Held(dir) {
		return dotted(shownMesh(slug, joined), "daemon down")
	}
	n, err := c.running(ctx)
	if err != nil {
		return dotted(shownMesh(slug, joined), "daemon does not answer")
	}
	defer n.Close()
	var sessions bus.SessionList
	var meshes bus.MeshList
	if err := n.daemon(ctx, bus.OpSessionList, nil, &sessions); err != nil {
		return dotted(shownMesh(slug, joined), "daemon does not answer")
	}
	// A launched session is known by its token, one that nobody launched by what its client calls the conversation.
	me := slices.IndexFunc(sessions.Sessions, func(s bus.SessionInfo) bool { return n.session && s.ID == n.actor })
	if id := c.clientConversation(ctx); me < 0 && !n.session && id != "" {
		me = slices.IndexFunc(sessions.Sessions, func(s bus.SessionInfo) bool { return s.Conversation == id })
	}
	unread, name := -1, ""
	if me >= 0 {
		s := sessions.Sessions[me]
		slug, name, unread = s.Mesh, cleanLine(s.Name), s.Unread
	}
	line := []string{shownMesh(slug, joined), name}
	_ = n.daemon(ctx, bus.OpMeshList, nil, &meshes)
	peers, open := 0, false
	for _, m := range meshes.Meshes {
		if slug != "" && m.Mesh != slug {
			continue
		}
		open = open || m.Link == "open"
		peers += m.Peers
		if me < 0 {
			unread = max(unread, 0) + m.Unread
		}
	}
	switch {
	case len(meshes.Meshes) == 0:
	case open:
		line = append(line, fmt.Sprintf("%d online", peers))
	default:
		line = append(line, "offline")
	}
	if unread > 0 {
		line = append(line, fmt.Sprintf("%d unread", unread))
	}
	return dotted(line...)
}

func dotted(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " · ")
}

// shownMesh names the mesh, or how many there are when none is meant.
func shownMesh(slug string, joined []string) string {
	if slug == "" {
		return fmt.Sprintf("%d meshes", len(joined))
	}
	if !mesh.ValidSlug(slug) {
		return "?"
	}
	return slug
}

// clientConversation is the conversation that the client names on stdin, "" when it names none in time. A terminal is not asked.
func (c *call) clientConversation(ctx context.Context) string {
	if terminal(c.stdin) {
		return ""
	}
	// This goroutine ends with the client's pipe, or with the process, which is about to end.
	told := make(chan string, 1)
	go func() {
		var in struct {
			SessionID string `json:"session_id"`
		}
		_ = json.NewDecoder(io.LimitReader(c.stdin, maxClientJSON)).Decode(&in)
		told <- in.SessionID
	}()
	select {
	case id := <-told:
		return id
	case <-ctx.Done():
		return ""
	}
}
