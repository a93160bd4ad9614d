package httpapi

import (
	"bytes"
	"context"
	"encoding/json"

	"claudemesh/bus"
	"claudemesh/wire"
)

// The routes about what a mesh has: its peers, state, memories and skills.

func (s *Server) peers(ctx context.Context, c *caller, r *request) (int, any, error) {
	meshes, err := s.several(c, r, "")
	if err != nil {
		return 0, nil, err
	}
	v, err := gather(meshes, "peers", func(slug string) ([]object, error) {
		return c.list(ctx, slug, bus.CallListPeers, nil, "peers")
	})
	return 0, v, err
}

// state reads one key, or all of them.
func (s *Server) state(ctx context.Context, c *caller, r *request) (int, any, error) {
	meshes, err := s.several(c, r, "")
	if err != nil {
		return 0, nil, err
	}
	if !r.URL.Query().Has("key") {
		v, err := gather(meshes, "entries", func(slug string) ([]object, error) {
			return c.pages(ctx, slug, wire.TypeListState, map[string]any{}, "entries", "key")
		})
		return 0, v, err
	}
	key := r.URL.Query().Get("key")
	o, slug, err := firstFound(meshes, refusal(404, "state_not_found", "the key is not set"), func(slug string) (object, bool, error) {
		raw, err := c.call(ctx, slug, wire.TypeGetState, map[string]string{"key": key})
		if err != nil {
			return nil, false, err
		}
		o, err := parse(raw)
		return o.without("type", "_reqId"), !isNull(o["value"]), err
	})
	if err != nil {
		return 0, nil, err
	}
	return 0, object{}.set("state", o.set("mesh", slug)), nil
}

func (s *Server) setState(ctx context.Context, c *caller, r *request) (int, any, error) {
	var in struct {
		Key   string          `json:"key"`
		Value json.RawMessage `json:"value"`
		Mesh  string          `json:"mesh"`
	}
	if err := r.decode(&in); err != nil {
		return 0, nil, err
	}
	slug, err := s.one(c, r, in.Mesh)
	if err != nil {
		return 0, nil, err
	}
	if in.Key == "" {
		return 0, nil, refusal(400, "missing_key", "key is missing")
	}
	if isNull(in.Value) {
		return 0, nil, refusal(400, "missing_value", "value is missing or null")
	}
	if _, err := c.call(ctx, slug, wire.TypeSetState, map[string]any{"key": in.Key, "value": in.Value}); err != nil {
		return 0, nil, err
	}
	return 0, map[string]any{"ok": true, "key": in.Key, "mesh": slug}, nil
}

func (s *Server) recall(ctx context.Context, c *caller, r *request) (int, any, error) {
	meshes, err := s.several(c, r, "")
	if err != nil {
		return 0, nil, err
	}
	q := r.URL.Query().Get("q")
	if q == "" {
		return 0, nil, refusal(400, "missing_query", "q is missing")
	}
	v, err := gather(meshes, "matches", func(slug string) ([]object, error) {
		return c.list(ctx, slug, wire.TypeRecall, map[string]string{"query": q}, "memories")
	})
	return 0, v, err
}

func (s *Server) remember(ctx context.Context, c *caller, r *request) (int, any, error) {
	var in struct {
		Content string   `json:"content"`
		Tags    []string `json:"tags"`
		Mesh    string   `json:"mesh"`
	}
	if err := r.decode(&in); err != nil {
		return 0, nil, err
	}
	slug, err := s.one(c, r, in.Mesh)
	if err != nil {
		return 0, nil, err
	}
	if in.Content == "" {
		return 0, nil, refusal(400, "missing_content", "content is missing")
	}
	raw, err := c.call(ctx, slug, wire.TypeRemember, wire.Remember{Content: in.Content, Tags: in.Tags})
	if err != nil {
		return 0, nil, err
	}
	o, err := parse(raw)
	return 0, o.without("type", "_reqId").set("mesh", slug), err
}

func (s *Server) forget(ctx context.Context, c *caller, r *request) (int, any, error) {
	slug, err := s.one(c, r, "")
	if err != nil {
		return 0, nil, err
	}
	id := r.PathValue("id")
	raw, err := c.call(ctx, slug, wire.TypeForget, map[string]string{"memoryId": id})
	if err != nil {
		return 0, nil, err
	}
	var ack wire.Ack
	if err := json.Unmarshal(raw, &ack); err != nil {
		return 0, nil, err
	}
	if ack.Code == wire.CodeNotFound {
		return 0, nil, refusal(404, "memory_not_found", "there is no memory of that id")
	}
	return 0, map[string]any{"ok": true, "id": id, "mesh": slug}, nil
}

func (s *Server) skills(ctx context.Context, c *caller, r *request) (int, any, error) {
	meshes, err := s.several(c, r, "")
	if err != nil {
		return 0, nil, err
	}
	v, err := gather(meshes, "skills", func(slug string) ([]object, error) {
		in := map[string]any{}
		if q := r.URL.Query().Get("query"); q != "" {
			in["query"] = q
		}
		return c.pages(ctx, slug, wire.TypeListSkills, in, "skills", "name")
	})
	return 0, v, err
}

func (s *Server) skill(ctx context.Context, c *caller, r *request) (int, any, error) {
	meshes, err := s.several(c, r, "")
	if err != nil {
		return 0, nil, err
	}
	name := r.PathValue("name")
	o, slug, err := firstFound(meshes, refusal(404, "skill_not_found", "there is no skill of that name"), func(slug string) (object, bool, error) {
		raw, err := c.call(ctx, slug, wire.TypeGetSkill, map[string]string{"name": name})
		if err != nil {
			return nil, false, err
		}
		whole, err := parse(raw)
		if err != nil || isNull(whole["skill"]) {
			return nil, false, err
		}
		o, err := parse(whole["skill"])
		return o, true, err
	})
	if err != nil {
		return 0, nil, err
	}
	return 0, object{}.set("skill", o.set("mesh", slug)), nil
}

// without leaves fields out that are of the broker's protocol only.
func (o object) without(names ...string) object {
	for _, n := range names {
		delete(o, n)
	}
	return o
}

func isNull(v json.RawMessage) bool {
	v = bytes.TrimSpace(v)
	return len(v) == 0 || bytes.Equal(v, []byte("null"))
}
