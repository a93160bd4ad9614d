package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/daemon/session"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Sessions: a registration gives a program a token for the bus, a key of its own and a link to the broker; all three end together when it deregisters or
// its process is gone.

// Groups are kept in the registry as "name" or "name:role".
func encodeGroup(g mesh.Group) string {
	if g.Role == "" {
		return g.Name
	}
	return g.Name + ":" + g.Role
}

func decodeGroup(s string) mesh.Group {
	name, role, _ := strings.Cut(s, ":")
	return mesh.Group{Name: name, Role: role}
}

func (d *Daemon) startSession(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.SessionStart
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	info, err := d.beginSession(ctx, c.Actor, req)
	if err != nil {
		return nil, err
	}
	return info, nil
}

// beginSession registers a session and gives it its token, its link and what waits for it.
func (d *Daemon) beginSession(ctx context.Context, actor string, req bus.SessionStart) (info bus.SessionInfo, err error) {
	m, err := d.mesh(req.Mesh)
	if err != nil {
		return info, err
	}
	if err := checkSession(&req); err != nil {
		return info, err
	}
	parent, err := d.bequeath(ctx, actor, &req)
	if err != nil {
		return info, err
	}
	if req.StartTime == "" {
		start, alive, err := d.opt.Processes.Start(req.PID)
		if err != nil {
			return info, fmt.Errorf("look up process: %w", err)
		}
		if !alive {
			return info, &bus.APIError{Code: 400, Reason: "no_process", Detail: fmt.Sprintf("no process %d runs", req.PID)}
		}
		req.StartTime = start
	}
	token, err := bus.NewToken(d.opt.Rand)
	if err != nil {
		return info, err
	}
	r := session.Registration{
		ID: req.ID, Mesh: req.Mesh, Name: req.Name, PID: req.PID, StartTime: req.StartTime, Cwd: req.Cwd, Role: req.Role,
		Caps: req.Caps, OnlyMesh: req.OnlyMesh, TokenHash: bus.HashToken(token), Parent: parent.ID, OwnKey: parent.Caps != nil, MessageMode: req.MessageMode, Nudge: req.Nudge,
		Conversation: req.Conversation, Continue: req.Continue, DefaultName: req.DefaultName,
	}
	for _, g := range req.Groups {
		r.Groups = append(r.Groups, encodeGroup(g))
	}
	s, replaced, err := d.register(ctx, r)
	if err != nil {
		return info, err
	}
	if err := d.stillThere(ctx, parent); err != nil {
		return info, errors.Join(err, d.endSession(ctx, s.ID))
	}
	if replaced != nil {
		if err := d.endChildren(ctx, replaced.ID); err != nil {
			return info, errors.Join(err, d.endSession(ctx, s.ID))
		}
		d.server.Grants().Revoke(replaced.TokenHash)
		d.ladder.leave(replaced.ID)
		if old, err := d.mesh(replaced.Mesh); err == nil { // it may have been a session of another mesh
			old.links.RemoveSession(replaced.ID)
			old.forget(replaced.ID)
		}
	}
	path, err := d.writeSessionToken(s.ID, token)
	if err != nil {
		return info, errors.Join(err, d.endSession(ctx, s.ID))
	}
	if err := m.join(s); err != nil {
		return info, errors.Join(err, d.endSession(ctx, s.ID))
	}
	if err := m.inheritMail(ctx, s); err != nil {
		return info, errors.Join(err, d.endSession(ctx, s.ID))
	}
	d.opt.Log.Info("session_registered", "session", s.ID, "mesh", s.Mesh, "name", s.Name, "pid", s.PID)
	info = d.sessionInfo(s)
	info.TokenFile, info.KnownPeers = path, m.roster.others(s.PublicKey)
	if n, err := d.inbox.CountUnread(ctx, s.ID, s.Mesh); err == nil {
		info.Unread = int(n)
	}
	return info, nil
}

// register writes a registration. Who holds the conversation's key may have died since the reaper last looked: that is looked at before it counts.
func (d *Daemon) register(ctx context.Context, r session.Registration) (session.Session, *session.Session, error) {
	s, replaced, err := d.session.Register(ctx, r)
	var held *session.HeldError
	if errors.As(err, &held) {
		if err := d.reap(ctx); err != nil {
			return s, nil, err
		}
		s, replaced, err = d.session.Register(ctx, r)
	}
	switch {
	case err == nil:
		return s, replaced, nil
	case errors.As(err, &held):
		h := held.Holder
		return s, nil, &bus.APIError{
			Code: 409, Reason: "conversation_live", Detail: fmt.Sprintf("that conversation's key is in use: session %s (%s, pid %d) holds it", h.ID, printable(h.Name), h.PID),
			Data: map[string]any{"session": h.ID, "name": h.Name, "pid": h.PID, "conversation": h.Conversation, "same": h.Conversation == held.Conversation},
		}
	case errors.Is(err, session.ErrBadRegistration):
		return s, nil, &bus.APIError{Code: 400, Reason: "bad_session", Detail: err.Error()}
	}
	return s, nil, fmt.Errorf("register session: %w", storeError(err))
}

func checkSession(req *bus.SessionStart) error {
	bad := func(detail string) error { return &bus.APIError{Code: 400, Reason: "bad_session", Detail: detail} }
	switch {
	case req.ID == bus.User || req.ID == tapActor || req.ID != "" && !mesh.ValidSlug(req.ID):
		return bad("a session id is one word of [a-z0-9-], at most 63 characters, and neither user nor tap")
	case req.Name == "" && req.DefaultName == "":
		return bad("a session needs a name")
	case !validMode(req.MessageMode):
		return bad(fmt.Sprintf("message mode %q is none of push, inbox and off", printable(req.MessageMode)))
	case len(req.Conversation) > session.MaxConversation || printable(req.Conversation) != req.Conversation:
		return bad(fmt.Sprintf("a conversation's id has at most %d bytes and no control characters", session.MaxConversation))
	case req.PID <= 0:
		return bad("a session needs the id of its process")
	case len(req.Cwd) > wire.MaxTextBytes || len(req.Role) > wire.MaxNameBytes || len(req.Groups) > wire.MaxGroups:
		return bad("cwd, role or groups are too long")
	}
	for _, name := range []string{req.Name, req.DefaultName} {
		if err := checkName(name); err != nil {
			return bad(err.Error())
		}
	}
	for _, g := range req.Groups {
		if t, err := mesh.ParseTarget("@" + g.Name); err != nil || t.Kind != mesh.TargetGroup || strings.Contains(g.Name, ":") || len(g.Name) > wire.MaxNameBytes {
			return bad(fmt.Sprintf("%q cannot be a group's name", g.Name))
		}
	}
	// Ids that mean something else in a subject, and capabilities that nobody knows.
	grant := bus.Grant{Role: bus.RoleSession, Actor: cmp.Or(req.ID, "minted"), Mesh: req.Mesh, OnlyMesh: req.OnlyMesh, Caps: req.Caps}
	if err := grant.Check(); err != nil {
		return bad(err.Error())
	}
	return nil
}

// checkName says why a name cannot be a session's. The empty one passes: another may be used in its place.
func checkName(name string) error {
	if name == "" {
		return nil
	}
	if strings.TrimSpace(name) == "" || printable(name) != name {
		return fmt.Errorf("a session needs a name of at most %d bytes without control characters", wire.MaxNameBytes)
	}
	if t, err := mesh.ParseTarget(name); err != nil || t.Kind != mesh.TargetName {
		return fmt.Errorf("%q cannot be a session's name: it reads as another kind of target", name)
	}
	return nil
}

func (d *Daemon) tokenPath(id string) string { return filepath.Join(d.opt.Dir, tokenDir, id) }

func (d *Daemon) writeSessionToken(id, token string) (string, error) {
	if err := os.MkdirAll(filepath.Join(d.opt.Dir, tokenDir), 0o700); err != nil {
		return "", fmt.Errorf("make token directory: %w", err)
	}
	path := d.tokenPath(id)
	return path, writePrivate(path, token+"\n")
}

// sessionGrant is what a session's token allows.
func sessionGrant(s session.Session) bus.Grant {
	g := bus.Grant{Role: bus.RoleSession, Actor: s.ID, Mesh: s.Mesh, OnlyMesh: s.OnlyMesh, Caps: s.Caps}
	for _, group := range s.Groups {
		g.Groups = append(g.Groups, decodeGroup(group).Name)
	}
	return g
}

// join gives a registered session its credential and its link.
func (m *meshRun) join(s session.Session) error {
	key, err := mesh.IdentityFromSecret(s.KeySecret.Reveal())
	if err != nil {
		return fmt.Errorf("session key: %w", err)
	}
	groups := make([]mesh.Group, 0, len(s.Groups))
	for _, g := range s.Groups {
		groups = append(groups, decodeGroup(g))
	}
	if err := m.d.server.Grants().Add(s.TokenHash, sessionGrant(s)); err != nil {
		return fmt.Errorf("admit session: %w", err)
	}
	m.recall(s.ID, s.Presence)
	if err := m.links.AddSession(bridge.SessionIdentity{ID: s.ID, Name: s.Name, Key: key, Cwd: s.Cwd, PID: s.PID, Role: s.Role, Groups: groups, Caps: s.Caps}); err != nil {
		return fmt.Errorf("open session link: %w", err)
	}
	m.d.ladder.join(m, s)
	return nil
}

// inheritMail gives a new session what waits for it: messages for its key that came while no session of its name ran, and messages for the member, its
// groups or everybody that no session has got yet.
func (m *meshRun) inheritMail(ctx context.Context, s session.Session) error {
	waiting, err := m.d.inbox.Inherit(ctx, s.Mesh, s.ID, s.PublicKey)
	if err != nil {
		return fmt.Errorf("inherit messages: %w", err)
	}
	groups := make([]string, 0, len(s.Groups))
	for _, g := range s.Groups {
		groups = append(groups, decodeGroup(g).Name)
	}
	orphans, err := m.d.inbox.AdoptOrphans(ctx, s.Mesh, s.ID, groups)
	if err != nil {
		return fmt.Errorf("adopt messages: %w", err)
	}
	m.d.ladder.poke(s.ID)
	if n := len(waiting) + len(orphans); n > 0 {
		m.d.opt.Log.Info("session_inherits", "session", s.ID, "messages", n)
	}
	return nil
}

// endSession drops credential, link and registration. Messages it never surfaced can be adopted by the next session.
func (d *Daemon) endSession(ctx context.Context, id string) error {
	s, err := d.session.End(ctx, id)
	if err != nil {
		if errors.Is(err, session.ErrNotFound) {
			return &bus.APIError{Code: 404, Reason: "no_session", Detail: "no session " + id + " is registered"}
		}
		return fmt.Errorf("end session: %w", err)
	}
	return d.dropSession(ctx, s)
}

func (d *Daemon) dropSession(ctx context.Context, s session.Session) error {
	d.server.Grants().Revoke(s.TokenHash)
	_ = os.Remove(d.tokenPath(s.ID))
	d.ladder.leave(s.ID)
	if m, err := d.mesh(s.Mesh); err == nil {
		m.links.RemoveSession(s.ID)
		m.forget(s.ID)
	}
	d.guard.forget(s.ID)
	if _, err := d.inbox.Abandon(ctx, s.ID); err != nil {
		return fmt.Errorf("release messages of session: %w", err)
	}
	d.opt.Log.Info("session_ended", "session", s.ID, "mesh", s.Mesh, "name", s.Name)
	return d.endChildren(ctx, s.ID)
}

// resumeSessions brings the sessions of the last run back whose process still runs, and ends the others.
func (d *Daemon) resumeSessions(ctx context.Context) error {
	if err := d.reap(ctx); err != nil {
		return err
	}
	if err := d.endOrphans(ctx); err != nil {
		return err
	}
	live, err := d.session.Live(ctx)
	if err != nil {
		return fmt.Errorf("list sessions: %w", err)
	}
	if err := d.removeStaleTokens(live); err != nil {
		d.notice(err.Error()) // they open nothing: their hashes are no grants
	}
	for _, s := range live {
		m, err := d.mesh(s.Mesh)
		if err != nil {
			continue // the mesh was left meanwhile; the session stays registered in case it is joined again
		}
		if err := m.join(s); err != nil {
			d.notice(fmt.Sprintf("session %s is not resumed: %v", s.ID, err))
		}
	}
	return nil
}

func (d *Daemon) reap(ctx context.Context) error {
	gone, err := d.session.Reap(ctx, d.opt.Processes)
	if err != nil {
		return fmt.Errorf("reap sessions: %w", err)
	}
	for _, s := range gone {
		if err := d.dropSession(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (d *Daemon) reapLoop() {
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.opt.Clock.After(reapEvery):
		}
		if err := d.reap(d.ctx); err != nil && d.ctx.Err() == nil {
			d.opt.Log.Error("reap_failed", "error", err)
		}
		d.transfers.expire()
	}
}

func (d *Daemon) stopSession(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.SessionID
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	if err := d.mayEnd(ctx, c.Actor, req.ID); err != nil {
		return nil, err
	}
	if err := d.endSession(ctx, req.ID); err != nil {
		return nil, err
	}
	return bus.Count{N: 1}, nil
}
