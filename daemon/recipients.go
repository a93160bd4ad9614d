package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// recipient is a member that gets a file's key.
type recipient struct{ key, name string }

func (r recipient) String() string {
	if r.name != "" {
		return r.name
	}
	return r.key
}

func distinct(all []recipient) (out []recipient) {
	seen := map[string]bool{}
	for _, r := range all {
		if !seen[r.key] {
			seen[r.key] = true
			out = append(out, r)
		}
	}
	return out
}

// recipient finds the member that a name or key means. A session stands for its member: only the member's key outlives it.
func (m *meshRun) recipient(ctx context.Context, to string) (*recipient, error) {
	target, err := mesh.ParseTarget(to)
	switch {
	case err != nil:
		return nil, &bus.APIError{Code: 400, Reason: "bad_target", Detail: err.Error()}
	case target.SendKind() != bus.SendDM:
		return nil, &bus.APIError{Code: 400, Reason: "bad_target", Detail: "a file is shared with one peer, or with everybody who is in the mesh now when none is named"}
	}
	peer, _, err := m.roster.resolve(ctx, target, "")
	var unknown *mesh.ErrNotFound
	if err != nil && !errors.As(err, &unknown) {
		return nil, targetError(err)
	}
	if err == nil && peer.MemberKey == "" {
		peer.MemberKey = m.roster.memberOf(peer.Key)
	}
	if err != nil || peer.MemberKey == "" { // nobody this daemon has met: perhaps a member that was never online since
		all, listErr := m.memberCandidates(ctx)
		if listErr != nil {
			return nil, listErr
		}
		if peer, err = mesh.Resolve(target, all); err != nil {
			return nil, targetError(err)
		}
		if !slices.ContainsFunc(all, func(c mesh.Candidate) bool { return c.Key == peer.Key }) {
			return nil, targetError(&mesh.ErrNotFound{Target: target, Candidates: all})
		}
	}
	return &recipient{key: peer.MemberKey, name: printable(peer.Name)}, nil
}

// memberCandidates lists the members of the mesh: as the broker tells, or, of a broker that cannot tell, those this daemon has met.
func (m *meshRun) memberCandidates(ctx context.Context) ([]mesh.Candidate, error) {
	all := map[string]mesh.Candidate{}
	if len(m.links.Member().State().Capabilities) > 0 {
		reply, err := m.call(ctx, m.links.Member(), wire.TypeMemberList, nil)
		var api *bus.APIError
		switch {
		case errors.As(err, &api) && api.Reason == "broker_refused": // an older broker of ours
		case err != nil:
			return nil, err
		default:
			var list struct {
				Members []struct{ Pubkey, DisplayName string }
			}
			if err := wire.Decode(reply, &list); err != nil {
				return nil, fmt.Errorf("list members: %w", err)
			}
			for _, who := range list.Members {
				all[who.Pubkey] = mesh.Candidate{Key: who.Pubkey, MemberKey: who.Pubkey, Name: who.DisplayName}
			}
		}
	}
	if len(all) == 0 {
		known, err := m.roster.candidates(ctx, "")
		if err != nil {
			return nil, fmt.Errorf("list peers: %w", err)
		}
		for _, p := range known {
			if _, have := all[p.MemberKey]; p.MemberKey != "" && (!have || p.Key == p.MemberKey) {
				all[p.MemberKey] = mesh.Candidate{Key: p.MemberKey, MemberKey: p.MemberKey, Name: p.Name}
			}
		}
	}
	out := make([]mesh.Candidate, 0, len(all))
	for _, c := range all {
		if mesh.ValidKey(c.Key) {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b mesh.Candidate) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}
