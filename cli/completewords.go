package cli

import (
	"context"
	"strings"

	"claudemesh/bus"
	"claudemesh/mcp/feed"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Where the words of a completion come from: the config, and a daemon that runs.

func (c *completer) meshWords() []candidate {
	joined, err := c.joined()
	if err != nil {
		return nil
	}
	out := make([]candidate, len(joined))
	for i, slug := range joined {
		out[i] = candidate{slug, "mesh"}
	}
	return out
}

func (c *completer) capabilityWords() []candidate {
	var out []candidate
	for _, name := range wire.GrantCapabilities() {
		out = append(out, candidate{name, "capability"})
	}
	return append(out, candidate{"all", "every capability"})
}

// asked are the meshes that the line is about: the one named on it, the session's, or all.
func (c *completer) asked() []string {
	for i, w := range c.before {
		name, value, attached := flagWord(w)
		if name == "mesh" && !attached && i+1 < len(c.before) {
			value = c.before[i+1]
		}
		if name == "mesh" && mesh.ValidSlug(value) {
			return []string{value}
		}
	}
	if slug := c.getenv(feed.EnvMesh); c.inSession() && mesh.ValidSlug(slug) {
		return []string{slug}
	}
	joined, err := c.joined()
	if err != nil {
		return nil
	}
	return joined[:min(len(joined), completeMeshes)]
}

// online runs ask with the daemon that runs, if one does, for each mesh the line is about.
func (c *completer) online(ask func(n *conn, slug string)) func(context.Context) {
	return func(ctx context.Context) {
		n, err := c.running(ctx)
		if err != nil {
			return
		}
		defer n.Close()
		for _, slug := range c.asked() {
			ask(n, slug)
		}
	}
}

// peerWords are names of peers, or keys of those whose name would be read as something else. A target can be a topic or everybody, too.
func (c *completer) peerWords(ctx context.Context, target bool) (out []candidate) {
	c.online(func(n *conn, slug string) {
		var reply struct{ Peers []bus.Peer }
		if n.Do(ctx, bus.CallSubject(slug, n.actor, bus.CallListPeers), struct{}{}, &reply) != nil {
			return
		}
		for _, p := range reply.Peers {
			word, what := p.DisplayName, "on "+slug+", "+p.Status
			if p.IsThisSession || p.PeerRole == rolePlane {
				continue
			}
			if t, err := mesh.ParseTarget(word); err != nil || t.Kind != mesh.TargetName || word != cleanLine(word) {
				word, what = short(p.Pubkey), word+" "+what
			}
			out = append(out, candidate{word, what})
		}
	})(ctx)
	if target {
		out = append(out, candidate{"*", "everybody on the mesh"})
		if strings.HasPrefix(c.current, "#") {
			out = append(out, c.topicWords(ctx, "#")...)
		}
	}
	return out
}

func (c *completer) topicWords(ctx context.Context, head string) (out []candidate) {
	c.online(func(n *conn, slug string) {
		var list wire.TopicList
		if n.broker(ctx, slug, bus.CallTopicList, struct{}{}, &list) != nil {
			return
		}
		for _, t := range list.Topics {
			out = append(out, candidate{head + t.Name, "topic on " + slug})
		}
	})(ctx)
	return out
}

func (c *completer) sessionWords(ctx context.Context) (out []candidate) {
	n, err := c.running(ctx)
	if err != nil {
		return nil
	}
	defer n.Close()
	var list bus.SessionList
	if n.daemon(ctx, bus.OpSessionList, nil, &list) != nil {
		return nil
	}
	for _, s := range list.Sessions {
		out = append(out, candidate{s.ID, s.Name + " on " + s.Mesh})
	}
	return out
}
