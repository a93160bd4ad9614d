package httpapi

import (
	"context"
	"encoding/json"

	"claudemesh/bus"
	"claudemesh/mesh"
)

// The routes about sessions. Nothing here ever carries a session's key, nor its token: the daemon writes that to a file and tells its name.

func sessionNames() map[string]string {
	return map[string]string{"session_id": "id", "display_name": "name", "registered_at": "started_at"}
}

// registration is POST /v1/sessions/register: the bus's fields, and the reference's where they differ.
type registration struct {
	bus.SessionStart
	SessionID   string            `json:"session_id"`
	DisplayName string            `json:"display_name"`
	Groups      []json.RawMessage `json:"groups"` // names, or objects with name and role
	Token       json.RawMessage   `json:"token"`
	Presence    json.RawMessage   `json:"presence"`
}

// registering makes the bus's request of it.
func registering(data []byte) (bus.SessionStart, error) {
	var in registration
	if err := decodeBody(data, &in); err != nil {
		return bus.SessionStart{}, err
	}
	if !isNull(in.Token) || !isNull(in.Presence) {
		return bus.SessionStart{}, refusal(400, "secret_not_taken",
			"the daemon makes a session's token and key itself: leave token and presence out; the answer says which file the token is in")
	}
	out := in.SessionStart
	if out.ID == "" {
		out.ID = in.SessionID
	}
	if out.Name == "" {
		out.Name = in.DisplayName
	}
	for _, raw := range in.Groups {
		var g mesh.Group
		if json.Unmarshal(raw, &g.Name) != nil && json.Unmarshal(raw, &g) != nil {
			return bus.SessionStart{}, refusal(400, "bad_request", "a group is a name, or an object with name and role")
		}
		out.Groups = append(out.Groups, g)
	}
	return out, nil
}

func (s *Server) registerSession(ctx context.Context, c *caller, r *request) (int, any, error) {
	req, err := registering(r.data)
	if err != nil {
		return 0, nil, err
	}
	if req.Mesh, err = s.one(c, r, req.Mesh); err != nil {
		return 0, nil, err
	}
	o, err := c.object(ctx, bus.OpSessionStart, req)
	if err != nil {
		return 0, nil, err
	}
	return 0, o.also(sessionNames()).set("ok", true).set("presence_accepted", true), nil
}

// endSession ends the session that the path names, by its id or, as the reference has it, by its token.
func (s *Server) endSession(ctx context.Context, c *caller, r *request) (int, any, error) {
	id := r.PathValue("id")
	out := object{}.set("ok", true)
	if isToken(id) {
		grant, known := s.cfg.Bus.Grants().Find(bus.HashToken(id))
		if !known || grant.Role != bus.RoleSession {
			return 0, nil, refusal(404, "session_not_found", "there is no session with this token")
		}
		out.set("token_prefix", id[:8])
		id = grant.Actor
	}
	if _, err := c.daemon(ctx, bus.OpSessionEnd, bus.SessionID{ID: id}); err != nil {
		return 0, nil, err
	}
	return 0, out.set("id", id), nil
}

func (s *Server) sessionMe(ctx context.Context, c *caller, _ *request) (int, any, error) {
	if c.grant.Role != bus.RoleSession {
		return 0, nil, refusal(401, "no_session", "this asks who the caller's session is: send the session's token")
	}
	o, err := c.object(ctx, bus.OpSessionMe, nil)
	if err != nil {
		return 0, nil, err
	}
	return 0, object{}.set("session", o.also(sessionNames())), nil
}

func (s *Server) sessions(ctx context.Context, c *caller, _ *request) (int, any, error) {
	o, err := c.object(ctx, bus.OpSessionList, nil)
	if err != nil {
		return 0, nil, err
	}
	list, err := o.list("sessions")
	if err != nil {
		return 0, nil, err
	}
	for _, one := range list {
		one.also(sessionNames())
	}
	return 0, o.set("sessions", list), nil
}
