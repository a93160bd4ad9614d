package daemon

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode"

	"claudemesh/bus"
	"claudemesh/daemon/session"
	"claudemesh/mesh"
)

// Clients that nobody launched: plain claude, whose shim and hooks act as the user until they know which session they are.

// attachSession answers session-attach.
func (d *Daemon) attachSession(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.SessionAttach
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	info, err := d.attachClient(ctx, req)
	if err != nil {
		return nil, err
	}
	return info, nil
}

// attachClient finds the session that a client's process is, or makes one. The shim and the first hook ask at the same time: the second finds what the first made.
func (d *Daemon) attachClient(ctx context.Context, req bus.SessionAttach) (bus.SessionInfo, error) {
	d.attaching.Lock()
	defer d.attaching.Unlock()
	slug, err := d.meshToAttach(req.Mesh)
	if err != nil {
		return bus.SessionInfo{}, err
	}
	start, alive, err := d.opt.Processes.Start(req.PID)
	if err != nil {
		return bus.SessionInfo{}, fmt.Errorf("look up process: %w", err)
	}
	if !alive || req.PID <= 0 {
		return bus.SessionInfo{}, &bus.APIError{Code: 400, Reason: "no_process", Detail: fmt.Sprintf("no process %d runs", req.PID)}
	}
	live, err := d.session.Live(ctx)
	if err != nil {
		return bus.SessionInfo{}, fmt.Errorf("list sessions: %w", err)
	}
	for _, s := range live {
		if s.PID == req.PID && s.StartTime == start && s.Mesh == slug && s.Parent == "" { // a session could name any process
			info := d.sessionInfo(s)
			info.TokenFile = d.tokenPath(s.ID)
			return info, nil
		}
	}
	begin := bus.SessionStart{
		Mesh: slug, DefaultName: ambientName(req.Cwd, slug, live), PID: req.PID, StartTime: start, Cwd: req.Cwd, Conversation: req.Conversation,
	}
	info, err := d.beginSession(ctx, bus.User, begin)
	var refused *bus.APIError
	if errors.As(err, &refused) && refused.Reason == "conversation_live" {
		begin.Conversation = "" // another client is in it, too: this one gets a key of its own
		return d.beginSession(ctx, bus.User, begin)
	}
	return info, err
}

// meshToAttach is the mesh of a client that names none: the only one.
func (d *Daemon) meshToAttach(slug string) (string, error) {
	joined := d.slugs()
	switch {
	case slug != "":
		_, err := d.mesh(slug)
		return slug, err
	case len(joined) == 1:
		return joined[0], nil
	case len(joined) == 0:
		return "", &bus.APIError{Code: 404, Reason: "mesh_not_joined", Detail: "no mesh is joined here", Data: map[string]any{"joined": joined}}
	}
	return "", &bus.APIError{
		Code: 409, Reason: "mesh_required", Detail: "several meshes are joined: say which one by CLAUDEMESH_MESH, or start with claudemesh launch", Data: map[string]any{"joined": joined},
	}
}

// ambientName names a session after the directory that it works in, as people speak of it; a live session's name on the same mesh is not taken twice.
func ambientName(cwd, slug string, live []session.Session) string {
	base := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) || r == '-' || r == '_' || r == '.' {
			return r
		}
		return '-'
	}, filepath.Base(filepath.Clean(cwd)))
	base = strings.Trim(printable(base), "-.")
	if len(base) > 60 {
		base = strings.ToValidUTF8(base[:60], "")
	}
	if t, err := mesh.ParseTarget(base); base == "" || err != nil || t.Kind != mesh.TargetName {
		base = "claude"
	}
	taken := map[string]bool{}
	for _, s := range live {
		if s.Mesh == slug {
			taken[strings.ToLower(s.Name)] = true
		}
	}
	name := base
	for n := 2; taken[strings.ToLower(name)]; n++ {
		name = fmt.Sprintf("%s-%d", base, n)
	}
	return name
}

// attached is the session of the client that a hook acting as the user belongs to. The start of a client makes it one.
func (d *Daemon) attached(ctx context.Context, ev bus.HookEvent) (session.Session, string, error) {
	live, err := d.session.Live(ctx)
	if err != nil {
		return session.Session{}, "", fmt.Errorf("list sessions: %w", err)
	}
	for _, s := range live {
		// A client that tells its process is that process's session: the conversation may still be that of the client before it, which has just ended.
		if s.Parent == "" && (ev.PID != 0 && s.PID == ev.PID || ev.PID == 0 && ev.Conversation != "" && s.Conversation == ev.Conversation) {
			token := ""
			if ev.Event == eventSessionStart {
				token = d.tokenPath(s.ID)
			}
			return s, token, nil
		}
	}
	if ev.Event != eventSessionStart || ev.PID == 0 {
		return session.Session{}, "", nil
	}
	info, err := d.attachClient(ctx, bus.SessionAttach{PID: ev.PID, Cwd: ev.Cwd, Conversation: ev.Conversation})
	var refused *bus.APIError
	if errors.As(err, &refused) {
		return session.Session{}, "", nil // no mesh, or several: the client is on none
	}
	if err != nil {
		return session.Session{}, "", err
	}
	s, err := d.session.Get(ctx, info.ID)
	if err != nil {
		return session.Session{}, "", fmt.Errorf("look up session: %w", err)
	}
	return s, info.TokenFile, nil
}

// noteConversation enters what the client of a session talks about now.
func (d *Daemon) noteConversation(ctx context.Context, id, conversation string) error {
	if conversation == "" {
		return nil
	}
	s, err := d.session.Get(ctx, id)
	if err != nil || s.Conversation == conversation {
		return nil // it has ended meanwhile, or it is known
	}
	if err := d.session.SetConversation(ctx, id, conversation); err != nil {
		return fmt.Errorf("note conversation: %w", storeError(err))
	}
	return nil
}
