package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// said is what a session, or the member, has said of itself over its link. A broker knows it no longer than the connection lasts, so it is said again over
// every new one. A session's is kept in the registry, so that it outlives this process; the member's summary, visibility and profile are kept by the
// broker. Groups are not here: a session's stand in the registry by themselves, a member's at the broker.
type said struct {
	sync.Mutex // held while something is said: what is said again must not overtake what is new
	spoken
	busyUntil atomic.Int64 // Unix milliseconds; read without the lock
}

type spoken struct {
	Status   string          `json:"status,omitempty"`
	StatusAt int64           `json:"status_at,omitempty"` // Unix milliseconds
	ByHook   bool            `json:"by_hook,omitempty"`   // the client told the status, not the session itself
	Summary  *string         `json:"summary,omitempty"`
	Visible  *bool           `json:"visible,omitempty"`
	Profile  wire.SetProfile `json:"profile"`
}

// workingLife is how long "working" is worth repeating: a broker takes it back after that long.
const workingLife = time.Minute

// saidBy returns what that session has said, "" for the member.
func (m *meshRun) saidBy(session string) *said {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.said[session] == nil {
		m.said[session] = &said{}
	}
	return m.said[session]
}

// forget drops what a session has said: it has ended.
func (m *meshRun) forget(session string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.said, session)
}

// say carries a request about the caller's own presence, and remembers what it changed.
func (m *meshRun) say(ctx context.Context, link *bridge.Link, session, op string, data []byte) ([]byte, error) {
	s := m.saidBy(session)
	s.Lock()
	defer s.Unlock()
	if op == wire.TypeJoinGroup {
		if err := checkGroup(data); err != nil {
			return nil, err
		}
	}
	reply, err := m.call(ctx, link, op, data)
	if err != nil {
		return nil, err
	}
	if session != "" && (op == wire.TypeJoinGroup || op == wire.TypeLeaveGroup) {
		return reply, m.regroup(ctx, session, op, data)
	}
	s.note(op, data, m.d.opt.Clock.Now())
	s.busyUntil.Store(s.until())
	if session != "" && op != wire.TypeSetStats {
		if err := m.keepSaid(ctx, session, s); err != nil {
			return nil, err
		}
		m.d.ladder.poke(session)
	}
	return reply, nil
}

// keepSaid enters what a session has said into the registry. s is locked.
func (m *meshRun) keepSaid(ctx context.Context, session string, s *said) error {
	kept, err := json.Marshal(s.spoken)
	if err != nil {
		return fmt.Errorf("keep presence: %w", err)
	}
	if err := m.d.session.SetPresence(ctx, session, kept); err != nil {
		return fmt.Errorf("keep presence: %w", storeError(err))
	}
	return nil
}

// sayStatus tells the broker a status that a session's client told. It counts here before the broker has heard of it, and is said again over every connection.
func (m *meshRun) sayStatus(ctx context.Context, session, status string) error {
	s := m.saidBy(session)
	s.Lock()
	defer s.Unlock()
	if s.Status == wire.StatusDND && !s.ByHook {
		return nil
	}
	s.Status, s.StatusAt, s.ByHook = status, m.d.opt.Clock.Now().UnixMilli(), true
	s.busyUntil.Store(s.until())
	if err := m.keepSaid(ctx, session, s); err != nil {
		return err
	}
	link, ok := m.links.Session(session)
	if !ok {
		return nil
	}
	data, err := json.Marshal(wire.SetStatus{Status: status})
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	_, err = m.call(ctx, link, wire.TypeSetStatus, data)
	return err
}

// recall is what a session said before this process started.
func (m *meshRun) recall(id string, presence []byte) {
	if len(presence) == 0 {
		return
	}
	s := m.saidBy(id)
	s.Lock()
	defer s.Unlock()
	if err := json.Unmarshal(presence, &s.spoken); err != nil {
		m.d.opt.Log.Warn("presence_not_recalled", "mesh", m.joined.Slug, "session", id, "error", err)
	}
	s.busyUntil.Store(s.until())
}

// until is when the session may be disturbed again after what it said by hand, in Unix milliseconds.
func (s *spoken) until() int64 {
	if s.ByHook {
		return 0 // a client's turns are package wake's business
	}
	switch s.Status {
	case wire.StatusWorking:
		return s.StatusAt + workingLife.Milliseconds()
	case wire.StatusDND:
		return math.MaxInt64
	}
	return 0
}

// busyByHand reports whether a session has said that it is to be told of urgent messages only. Brokers leave that to us (wire.CapOwnGating): the daemon takes and
// keeps everything, so that a sender learns that its message has arrived.
func (m *meshRun) busyByHand(session string) bool {
	m.mu.Lock()
	s := m.said[session]
	m.mu.Unlock()
	return s != nil && m.d.opt.Clock.Now().UnixMilli() < s.busyUntil.Load()
}

// dndByHand reports whether a session has said that it wants no disturbance; that ends by hand, too.
func (m *meshRun) dndByHand(session string) bool {
	m.mu.Lock()
	s := m.said[session]
	m.mu.Unlock()
	return s != nil && s.busyUntil.Load() == math.MaxInt64
}

// eventProfileUpdated tells a member's connections which fields of its profile have changed.
const eventProfileUpdated = "profile_updated"

// setMessageMode notes what the member has chosen. The shims of its sessions honour it: with anything but push they show nothing unasked.
func (m *meshRun) setMessageMode(mode string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mode = mode
}

func (m *meshRun) messageMode() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mode
}

func validMode(mode string) bool { return mode == "" || modeRank(mode) > 0 }

// modeRank orders the modes by how little is shown; 0 is no mode.
func modeRank(mode string) int {
	return 1 + slices.Index([]string{wire.ModePush, wire.ModeInbox, wire.ModeOff}, mode)
}

// modeOf is the message mode that holds for a session: the stricter of its own choice and its member's. Empty while the member's is not known and its own does not
// rule showing out.
func (m *meshRun) modeOf(own string) string {
	member := m.messageMode()
	if modeRank(own) > max(modeRank(member), modeRank(wire.ModePush)) {
		return own
	}
	return member
}

// note remembers one accepted request. What does not decode was not accepted by a broker of ours, and is not repeated to any.
func (s *spoken) note(op string, data []byte, now time.Time) {
	switch op {
	case wire.TypeSetStatus:
		var f wire.SetStatus
		if wire.Decode(data, &f) == nil {
			s.Status, s.StatusAt, s.ByHook = f.Status, now.UnixMilli(), false
		}
	case wire.TypeSetSummary:
		var f wire.SetSummary
		if wire.Decode(data, &f) == nil {
			s.Summary = &f.Summary
		}
	case wire.TypeSetVisible:
		var f struct {
			Visible *bool `json:"visible"`
		}
		if wire.Decode(data, &f) == nil {
			s.Visible = f.Visible
		}
	case wire.TypeSetProfile:
		_ = wire.Decode(data, &s.Profile) // absent fields stay
		s.Profile.Type, s.Profile.ReqID = "", ""
	}
}

// sayAgain tells a new connection of the broker what was said over earlier ones. What fails is said over the next connection; when this one is still there,
// the log tells.
func (m *meshRun) sayAgain(session string) {
	s := m.saidBy(session)
	s.Lock()
	defer s.Unlock()
	link := m.links.Member()
	if session != "" {
		l, ok := m.links.Session(session)
		if !ok {
			m.forget(session)
			return
		}
		link = l
	}
	for _, f := range s.frames(m.d.opt.Clock.Now()) {
		data, err := json.Marshal(f.fields)
		if err == nil {
			_, err = m.call(m.ctx, link, f.op, data)
		}
		if err != nil {
			if m.ctx.Err() == nil {
				m.d.opt.Log.Warn("presence_not_repeated", "mesh", m.joined.Slug, "session", session, "op", f.op, "error", err)
			}
			return
		}
	}
}

type saying struct {
	op     string
	fields any
}

// frames are the requests that make a fresh presence what it was.
func (s *spoken) frames(now time.Time) (out []saying) {
	stale := s.Status == wire.StatusWorking && now.Sub(time.UnixMilli(s.StatusAt)) >= workingLife
	if s.Status != "" && s.Status != wire.StatusIdle && !stale {
		out = append(out, saying{wire.TypeSetStatus, map[string]string{"status": s.Status}})
	}
	if s.Summary != nil {
		out = append(out, saying{wire.TypeSetSummary, map[string]string{"summary": *s.Summary}})
	}
	if s.Visible != nil && !*s.Visible {
		out = append(out, saying{wire.TypeSetVisible, map[string]bool{"visible": false}})
	}
	if p := s.Profile; p.Avatar != nil || p.Title != nil || p.Bio != nil || p.Capabilities != nil {
		out = append(out, saying{wire.TypeSetProfile, p})
	}
	return out
}

// checkGroup refuses names that the registry could not keep.
func checkGroup(data []byte) error {
	var f wire.JoinGroup
	if err := wire.Decode(data, &f); err != nil {
		return &bus.APIError{Code: 400, Reason: "bad_group", Detail: err.Error()}
	}
	if t, err := mesh.ParseTarget("@" + f.Name); err != nil || t.Kind != mesh.TargetGroup || strings.Contains(f.Name, ":") {
		return &bus.APIError{Code: 400, Reason: "bad_group", Detail: fmt.Sprintf("%q cannot be a group's name", f.Name)}
	}
	return nil
}

// regroup enters a session's change of groups into the registry, which decides what it receives, and into its next hello.
func (m *meshRun) regroup(ctx context.Context, session, op string, data []byte) error {
	var f wire.JoinGroup // leave_group has the same fields, but for the role
	if err := wire.Decode(data, &f); err != nil {
		return fmt.Errorf("change groups: %w", err)
	}
	s, err := m.d.session.Get(ctx, session)
	if err != nil {
		return fmt.Errorf("change groups: %w", err)
	}
	groups := slices.DeleteFunc(slices.Clone(s.Groups), func(g string) bool { return decodeGroup(g).Name == f.Name })
	if op == wire.TypeJoinGroup {
		groups = append(groups, encodeGroup(mesh.Group{Name: f.Name, Role: f.Role}))
	}
	if err := m.d.session.SetGroups(ctx, session, groups); err != nil {
		return fmt.Errorf("change groups: %w", storeError(err))
	}
	decoded := make([]mesh.Group, 0, len(groups))
	for _, g := range groups {
		decoded = append(decoded, decodeGroup(g))
	}
	m.links.SetGroups(session, decoded)
	return nil
}

// asJSON is v for a reply that carries it as it is; nothing for nil.
func asJSON[T any](v *T) json.RawMessage {
	if v == nil {
		return nil
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return data
}
