package httpapi

import (
	"context"
	"encoding/json"
	"net/http"

	"claudemesh/bus"
)

// The routes about the daemon itself.

// features are the reference's names of what this API offers, and one of ours.
func features() []string {
	return []string{"version", "health", "send", "inbox", "events", "peers", "profile", "skills", "state", "memory", "sessions", "events-replay"}
}

func (s *Server) version(ctx context.Context, c *caller, _ *request) (int, any, error) {
	o, err := c.object(ctx, bus.OpVersion, nil)
	if err != nil {
		return 0, nil, err
	}
	o.also(map[string]string{"daemon_version": "version"})
	return 0, o.set("ipc_api", "v1").set("ipc_features", features()).set("schema_version", 1), nil
}

// health says how the links to the brokers are; ok means that the daemon answers, not that a broker does.
func (s *Server) health(ctx context.Context, c *caller, _ *request) (int, any, error) {
	raw, err := c.daemon(ctx, bus.OpStatus, nil)
	if err != nil {
		return 0, nil, err
	}
	var st bus.Status
	if err := json.Unmarshal(raw, &st); err != nil {
		return 0, nil, err
	}
	brokers := map[string]string{}
	for _, m := range st.Meshes {
		brokers[m.Mesh] = m.Link
	}
	return 0, map[string]any{"ok": true, "pid": st.PID, "version": st.Version, "brokers": brokers}, nil
}

func (s *Server) status(ctx context.Context, c *caller, _ *request) (int, any, error) {
	raw, err := c.daemon(ctx, bus.OpStatus, nil)
	return 0, raw, err
}

func (s *Server) meshes(ctx context.Context, c *caller, _ *request) (int, any, error) {
	raw, err := c.daemon(ctx, bus.OpMeshList, nil)
	return 0, raw, err
}

// metrics serves the figures. They tell of every mesh and session, so they are the user's.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request, c *caller) {
	if c.grant.Role != bus.RoleUser {
		fail(w, refusal(403, "forbidden", "only the user may do this, not a session"))
		return
	}
	s.cfg.Metrics.ServeHTTP(w, r)
}

// object asks the daemon and takes the answer apart.
func (c *caller) object(ctx context.Context, op string, in any) (object, error) {
	raw, err := c.daemon(ctx, op, in)
	if err != nil {
		return nil, err
	}
	return parse(raw)
}
