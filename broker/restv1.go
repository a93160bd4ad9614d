package broker

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// The REST API of the reference, version 1, for API keys.

const (
	routeV1Members = "GET /api/v1/members"
	routeV1Peers   = "GET /api/v1/peers"
)

// restPresence is how long a member counts as there after its API key was used.
const restPresence = 5 * time.Minute

// v1Member is a row of GET /api/v1/members.
type v1Member struct {
	MemberID    string  `json:"memberId"`
	Pubkey      string  `json:"pubkey"`
	DisplayName string  `json:"displayName"`
	Role        string  `json:"role"`
	IsHuman     bool    `json:"isHuman"`
	JoinedAt    string  `json:"joinedAt"`
	Online      bool    `json:"online"`
	Status      string  `json:"status"` // idle, working, dnd or offline
	Summary     *string `json:"summary"`
}

// v1Peer is a row of GET /api/v1/peers.
type v1Peer struct {
	Pubkey      string       `json:"pubkey"`
	DisplayName string       `json:"displayName"`
	Status      string       `json:"status"`
	Summary     *string      `json:"summary"`
	Groups      []mesh.Group `json:"groups"`
	Via         string       `json:"via"` // ws or rest
}

// best is the connection that stands for a member which has several: a session rather than a daemon's own, the newest of those. Those that hide count for
// their own member only. nil when it has none. Called under the lock.
func (m *meshState) best(who, asks *member) (best *conn) {
	for c := range m.conns {
		switch {
		case c.member != who, !c.visible && who != asks:
		case best == nil, c.isSession && !best.isSession, c.isSession == best.isSession && c.since.After(best.since):
			best = c
		}
	}
	return best
}

func (b *Broker) v1Members(w http.ResponseWriter, _ *http.Request, who keyCaller) {
	b.mu.RLock()
	all := []v1Member{}
	for _, o := range who.mesh.members {
		if o.RevokedAt != 0 {
			continue
		}
		d := who.mesh.describeMember(o)
		row := v1Member{MemberID: d.ID, Pubkey: d.Pubkey, DisplayName: d.DisplayName, Role: d.Permission, JoinedAt: d.JoinedAt, Status: "offline"}
		if c := who.mesh.best(o, who.member); c != nil {
			row.Online, row.Status, row.Summary, row.IsHuman = true, c.status, c.summary, c.place.peerType == "human"
		}
		all = append(all, row)
	}
	b.mu.RUnlock()
	slices.SortFunc(all, func(a, b v1Member) int {
		return cmp.Or(strings.Compare(a.DisplayName, b.DisplayName), strings.Compare(a.Pubkey, b.Pubkey))
	})
	answer(w, http.StatusOK, map[string]any{"members": all})
}

func (b *Broker) v1Peers(w http.ResponseWriter, _ *http.Request, who keyCaller) {
	since := b.now().Add(-restPresence).UnixMilli()
	b.mu.RLock()
	rest := map[string]bool{}
	for _, k := range b.keysOf(who.mesh.rec.ID, "") {
		if k.UsedAt > since {
			rest[k.Member] = true
		}
	}
	all := []v1Peer{}
	for key, o := range who.mesh.members {
		c := who.mesh.best(o, who.member)
		switch {
		case o.RevokedAt != 0:
		case c != nil:
			all = append(all, v1Peer{Pubkey: key, DisplayName: c.name, Status: c.status, Summary: c.summary, Groups: append([]mesh.Group{}, c.groups...), Via: "ws"})
		case rest[key]:
			all = append(all, v1Peer{Pubkey: key, DisplayName: o.Name, Status: wire.StatusIdle, Groups: append([]mesh.Group{}, o.Groups...), Via: "rest"})
		}
	}
	b.mu.RUnlock()
	slices.SortFunc(all, func(a, b v1Peer) int {
		return cmp.Or(strings.Compare(a.DisplayName, b.DisplayName), strings.Compare(a.Pubkey, b.Pubkey))
	})
	answer(w, http.StatusOK, map[string]any{"peers": all})
}
