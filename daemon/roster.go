package daemon

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"claudemesh/daemon/session"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// roster knows who can be addressed on one mesh: the peers that the broker listed last, and the directory of those seen before. It answers from memory,
// so that accepting a message waits for no broker; the broker's events keep it fresh.
type roster struct {
	m    *meshRun
	poke chan struct{} // capacity 1: list again

	mu         sync.Mutex
	live       []wire.Peer
	departures int  // of peers, since the start
	listed     bool // live is what the broker said since the link opened
	known      []session.Peer
	loaded     bool
}

func newRoster(m *meshRun) *roster { return &roster{m: m, poke: make(chan struct{}, 1)} }

// refresh asks for a new list; several requests become one.
func (r *roster) refresh() {
	select {
	case r.poke <- struct{}{}:
	default:
	}
}

// retryList is how long a failed list waits for its repetition while the link stays open.
const retryList = 2 * time.Second

func (r *roster) run() {
	for {
		select {
		case <-r.m.ctx.Done():
			return
		case <-r.poke:
		}
		if !r.m.online() {
			continue
		}
		if err := r.list(r.m.ctx); err != nil && r.m.ctx.Err() == nil {
			r.m.d.opt.Log.Warn("peer_list_failed", "mesh", r.m.joined.Slug, "error", err)
			select {
			case <-r.m.ctx.Done():
				return
			case <-r.m.d.opt.Clock.After(retryList):
				r.refresh()
			}
		}
	}
}

// list reads the broker's list now and enters it into the directory.
func (r *roster) list(ctx context.Context) error {
	before := r.departed()
	peers, err := r.m.listPeers(ctx)
	if err != nil {
		return err
	}
	err = r.learn(ctx, peers)
	if r.departed() != before {
		r.refresh() // somebody left while this list was on its way, and may stand in it
	}
	return err
}

// others counts the sessions of the last list but the one with that key; nil when the broker has not been heard since the link opened.
func (r *roster) others(key string) *int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.listed {
		return nil
	}
	n := 0
	for _, p := range r.live {
		if p.Pubkey != key && p.PeerRole != wire.RoleControlPlane {
			n++
		}
	}
	return &n
}

func (r *roster) departed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.departures
}

func (r *roster) learn(ctx context.Context, peers []wire.Peer) error {
	now := r.m.d.opt.Clock.Now()
	entries := make([]session.Peer, 0, len(peers))
	for _, p := range peers {
		if !mesh.ValidKey(p.Pubkey) {
			continue
		}
		e := session.Peer{Mesh: r.m.joined.Slug, Key: p.Pubkey, MemberKey: p.MemberPubkey, Name: p.DisplayName, PeerRole: p.PeerRole, LastSeenAt: now}
		for _, g := range p.Groups {
			e.Groups = append(e.Groups, g.Name)
		}
		entries = append(entries, e)
	}
	if err := r.m.d.session.UpsertPeers(ctx, r.m.joined.Slug, entries); err != nil {
		return err
	}
	known, err := r.m.d.session.Peers(ctx, r.m.joined.Slug)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.live, r.listed, r.known, r.loaded = peers, true, known, true
	r.mu.Unlock()
	// A row may have waited for a name that is known now.
	r.m.signal()
	return nil
}

// joined enters a peer that an event named, before the next list confirms it.
func (r *roster) joined(e wire.PeerEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.live {
		if r.live[i].Pubkey == e.Pubkey {
			return
		}
	}
	r.live = append(r.live, wire.Peer{Pubkey: e.Pubkey, DisplayName: e.Name, Groups: e.Groups, Visible: true, PeerRole: wire.RoleSession})
}

// left removes a peer that an event named.
func (r *roster) left(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.departures++
	for i := range r.live {
		if r.live[i].Pubkey == key {
			r.live = append(r.live[:i:i], r.live[i+1:]...)
			return
		}
	}
}

// candidates lists whom a target may mean. Of the peers that are offline only the newest of each (member, name) counts: programs that take a new key at
// every start would otherwise make their own name ambiguous.
func (r *roster) candidates(ctx context.Context, self string) ([]mesh.Candidate, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.loaded {
		known, err := r.m.d.session.Peers(ctx, r.m.joined.Slug)
		if err != nil {
			return nil, err
		}
		r.known, r.loaded = known, true
	}
	var out []mesh.Candidate
	online := map[string]bool{}
	if r.m.online() {
		for _, p := range r.live {
			online[p.Pubkey] = true
			out = append(out, mesh.Candidate{
				Key: p.Pubkey, MemberKey: p.MemberPubkey, Name: p.DisplayName, Online: true,
				Session: p.Pubkey != p.MemberPubkey, Self: p.Pubkey == self,
			})
		}
	}
	newest := map[string]session.Peer{}
	for _, p := range r.known {
		if online[p.Key] {
			continue
		}
		id := p.MemberKey + "\x00" + strings.ToLower(p.Name)
		if old, seen := newest[id]; !seen || p.LastSeenAt.After(old.LastSeenAt) {
			newest[id] = p
		}
	}
	for _, p := range newest {
		out = append(out, mesh.Candidate{Key: p.Key, MemberKey: p.MemberKey, Name: p.Name, Session: p.Key != p.MemberKey, Self: p.Key == self})
	}
	return out, nil
}

// lookup finds the peer a target means, from memory. settled is false while the answer may still change: the broker is down, or has not listed since the
// link opened.
func (r *roster) lookup(ctx context.Context, t mesh.Target, self string) (c mesh.Candidate, settled bool, err error) {
	all, err := r.candidates(ctx, self)
	if err != nil {
		return c, true, err
	}
	c, err = mesh.Resolve(t, all)
	var unknown *mesh.ErrNotFound
	if !errors.As(err, &unknown) {
		return c, true, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return c, r.listed && r.m.online(), err
}

// resolve is lookup, but asks the broker once more before it says that nobody is meant: a peer may have come this instant. A target that is not settled
// is accepted and resolved when the row leaves.
func (r *roster) resolve(ctx context.Context, t mesh.Target, self string) (mesh.Candidate, bool, error) {
	c, settled, err := r.lookup(ctx, t, self)
	var unknown *mesh.ErrNotFound
	if !errors.As(err, &unknown) || !r.m.online() || r.list(ctx) != nil {
		return c, settled, err
	}
	return r.lookup(ctx, t, self)
}

// lost forgets what the broker said: the link is down.
func (r *roster) lost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listed = false
}

// connected counts the peers that the broker listed last, daemons' own connections left out.
func (r *roster) connected() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.live {
		if r.listed && p.PeerRole != wire.RoleControlPlane {
			n++
		}
	}
	return n
}

// name is the display name of a key, "" when it is not known.
func (r *roster) name(key string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.live {
		if p.Pubkey == key {
			return p.DisplayName
		}
	}
	for _, p := range r.known {
		if p.Key == key {
			return p.Name
		}
	}
	return ""
}

// met reports whether a key is one of the mesh, as far as this daemon has met them: a member's, or a session's.
func (r *roster) met(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.live, func(p wire.Peer) bool { return p.Pubkey == key || p.MemberPubkey == key }) ||
		slices.ContainsFunc(r.known, func(p session.Peer) bool { return p.Key == key || p.MemberKey == key })
}

// namesOf are the names that a member and its sessions go by.
func (r *roster) namesOf(member string) (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.live {
		if p.MemberPubkey == member {
			names = append(names, p.DisplayName)
		}
	}
	for _, p := range r.known {
		if p.MemberKey == member {
			names = append(names, p.Name)
		}
	}
	return names
}

// memberOf is the member key behind a key, "" when it is not known.
func (r *roster) memberOf(key string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.live {
		if p.Pubkey == key {
			return p.MemberPubkey
		}
	}
	for _, p := range r.known {
		if p.Key == key {
			return p.MemberKey
		}
	}
	return ""
}
