package daemon

import (
	"context"
	"errors"
	"fmt"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// resolveMember answers peer_resolve: the member that a name or key means, among those this daemon knows and, when it knows nobody who fits, among all of
// the mesh.
func (m *meshRun) resolveMember(ctx context.Context, c *bus.Call, self string) (any, error) {
	var req bus.PeerRef
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	target, err := mesh.ParseTarget(req.Peer)
	if err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_target", Detail: err.Error()}
	}
	all, err := m.roster.candidates(ctx, self)
	if err != nil {
		return nil, fmt.Errorf("resolve member: %w", err)
	}
	found, err := mesh.ResolveMember(target, all)
	var unknown *mesh.ErrNotFound
	if errors.As(err, &unknown) && !m.online() {
		return nil, m.down() // not unknown, but not to be found out now
	}
	if errors.As(err, &unknown) {
		// A broker that cannot list members, as the reference cannot, leaves it at that.
		if more, listErr := listMembers(ctx, m.ask); listErr == nil {
			found, err = mesh.ResolveMember(target, append(all, more...))
		}
	}
	if errors.Is(err, mesh.ErrBadTarget) {
		return nil, &bus.APIError{Code: 400, Reason: "bad_target", Detail: err.Error()}
	}
	if err != nil {
		return nil, targetError(err)
	}
	return bus.PeerMember{Mesh: m.joined.Slug, Pubkey: found.Key, Name: printable(found.Name), Online: found.Online, IsSelf: found.Key == m.joined.Pubkey}, nil
}

// listMembers lists who is in the mesh, online or not, and the sessions that are there.
func listMembers(ctx context.Context, ask asker) ([]mesh.Candidate, error) {
	reply, err := ask(ctx, wire.TypeMemberList, nil)
	if err != nil {
		return nil, err
	}
	var list wire.MemberListResult
	if err := wire.Decode(reply, &list); err != nil {
		return nil, fmt.Errorf("list members: %w", err)
	}
	var out []mesh.Candidate
	for _, p := range list.Members {
		out = append(out, mesh.Candidate{Key: p.Pubkey, MemberKey: p.Pubkey, Name: p.DisplayName, Online: p.Online})
	}
	peers, err := listPeers(ctx, ask)
	if err != nil {
		return nil, err
	}
	for _, p := range peers {
		out = append(out, mesh.Candidate{Key: p.Pubkey, MemberKey: p.MemberPubkey, Name: p.DisplayName, Online: true})
	}
	return out, nil
}
