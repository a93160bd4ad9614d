package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"claudemesh/bus"
	"claudemesh/daemon/session"
	"claudemesh/mesh"
)

// Sessions that sessions make. Nothing is made that may do more than its maker: neither by its capabilities, nor by its mesh, nor by whose mail it reads; and
// nothing outlives its maker, or ending a session would not end what it can do.

// maxChildren is how many live sessions one session may have made.
const maxChildren = 64

// bequeath checks a registration by actor, passes on to it what binds its maker, and returns the maker; of the user, the zero session.
func (d *Daemon) bequeath(ctx context.Context, actor string, req *bus.SessionStart) (session.Session, error) {
	if actor == bus.User {
		return session.Session{}, nil
	}
	parent, err := d.caller(ctx, actor)
	if err != nil {
		return parent, err
	}
	if parent.OnlyMesh {
		if req.Mesh != parent.Mesh {
			return parent, bus.OtherMesh(parent.Mesh)
		}
		req.OnlyMesh = true
	}
	if parent.Caps != nil {
		if err := d.withinLimits(parent, req); err != nil {
			return parent, err
		}
	}
	// A live session of that id keeps it, unless the caller made it.
	if old, err := d.session.Get(ctx, req.ID); req.ID != "" && err == nil && old.EndedAt.IsZero() && old.Parent != parent.ID {
		return parent, &bus.APIError{Code: 409, Reason: "session_exists", Detail: "another session has the id " + req.ID}
	}
	children, err := d.session.Children(ctx, parent.ID)
	if err != nil {
		return parent, fmt.Errorf("list children: %w", err)
	}
	if len(children) >= maxChildren {
		return parent, &bus.APIError{Code: 409, Reason: "limit", Detail: fmt.Sprintf("this session has made %d sessions that still run, and may not make more", len(children))}
	}
	return parent, nil
}

// stillThere refuses a child whose maker ended, or was replaced, while it was registered: it would not have been found among the children that end with it.
func (d *Daemon) stillThere(ctx context.Context, parent session.Session) error {
	if parent.ID == "" {
		return nil
	}
	now, err := d.caller(ctx, parent.ID)
	if err == nil && now.TokenHash != parent.TokenHash {
		err = &bus.APIError{Code: 401, Reason: "no_session", Detail: "this session was replaced"}
	}
	return err
}

// withinLimits refuses what a limited session asks for its child and lacks itself. Beside capabilities that is another mesh, whose mail it does not get, and
// groups that it is not in, unless it may choose its own.
func (d *Daemon) withinLimits(parent session.Session, req *bus.SessionStart) error {
	if req.Mesh != parent.Mesh {
		return bus.OtherMesh(parent.Mesh)
	}
	if req.Caps == nil {
		return tooMuch(parent, nil, "this session is limited and cannot make one that is not")
	}
	var over []string
	for _, c := range req.Caps {
		if !slices.Contains(parent.Caps, c) && !slices.Contains(over, c) {
			over = append(over, c)
		}
	}
	if len(over) > 0 {
		return tooMuch(parent, over, "this session cannot make one that may do what it may not do itself: "+strings.Join(over, ", "))
	}
	for _, g := range req.Groups {
		mine := slices.ContainsFunc(parent.Groups, func(s string) bool { return decodeGroup(s).Name == g.Name })
		if !mine && !slices.Contains(parent.Caps, mesh.CapProfileWrite) {
			return bus.MissingCapability(mesh.CapProfileWrite, "a session in @"+g.Name, parent.Caps)
		}
	}
	return nil
}

func tooMuch(parent session.Session, over []string, detail string) error {
	return &bus.APIError{
		Code: 403, Reason: "caps_exceeded", Detail: detail,
		Data: map[string]any{"too_much": append([]string{}, over...), "allowed_caps": parent.Caps},
	}
}

// mayEnd lets the user end every session, and a session those that it made.
func (d *Daemon) mayEnd(ctx context.Context, actor, id string) error {
	if actor == bus.User {
		return nil
	}
	s, err := d.session.Get(ctx, id)
	if err != nil || s.Parent != actor { // no word about sessions that are not the caller's
		return &bus.APIError{Code: 403, Reason: "forbidden", Detail: "a session can end only sessions that it made"}
	}
	return nil
}

// endChildren ends what a session that has ended had made.
func (d *Daemon) endChildren(ctx context.Context, id string) error {
	children, err := d.session.Children(ctx, id)
	if err != nil {
		return fmt.Errorf("list children: %w", err)
	}
	for _, s := range children {
		switch ended, err := d.session.End(ctx, s.ID); {
		case errors.Is(err, session.ErrNotFound): // it has ended by itself
		case err != nil:
			return fmt.Errorf("end child session: %w", err)
		default:
			if err := d.dropSession(ctx, ended); err != nil {
				return err
			}
		}
	}
	return nil
}

// endOrphans ends sessions whose maker has ended without them: the process was killed between the two.
func (d *Daemon) endOrphans(ctx context.Context) error {
	live, err := d.session.Live(ctx)
	if err != nil {
		return fmt.Errorf("list sessions: %w", err)
	}
	for _, s := range live {
		if s.Parent != "" && !slices.ContainsFunc(live, func(p session.Session) bool { return p.ID == s.Parent }) {
			if err := d.endChildren(ctx, s.Parent); err != nil {
				return err
			}
		}
	}
	return nil
}
