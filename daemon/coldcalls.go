package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"claudemesh/bridge"
	"claudemesh/bus"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// What the cold path can do, and how.

// coldRefusal says why an operation of the broker means something only while a daemon runs; "" when it does not need one.
func coldRefusal(op string) string {
	_, topic := topicCalls[op]
	switch {
	case ownPresence[op]:
		return "it belongs to a connection, and that would end with this command"
	case topic:
		return "the keys of topics are with it"
	}
	switch op {
	case wire.TypeSchedule, wire.TypeListScheduled:
		return "what is scheduled is sealed and opened there"
	case wire.TypeMCPRegister, wire.TypeMCPUnregister, wire.TypeMCPCallResponse:
		return "a service is offered over its connection"
	case wire.TypeGetFile:
		return "files are decrypted there"
	}
	return ""
}

// call carries a broker operation.
func (c *Cold) call(ctx context.Context, s bus.Subject, data []byte) (any, error) {
	j, err := c.joined(s.Slug)
	if err != nil {
		return nil, err
	}
	if !opName.MatchString(s.Name) || notCallable[s.Name] {
		return nil, &bus.APIError{Code: 400, Reason: "bad_operation", Detail: fmt.Sprintf("%q is no operation of the broker", s.Name)}
	}
	if why := coldRefusal(s.Name); why != "" {
		return nil, needsDaemon(why)
	}
	ask := c.ask(j)
	switch s.Name {
	case wire.TypeListPeers:
		list, err := listPeers(ctx, ask)
		if err != nil {
			return nil, err
		}
		out := bus.PeersReply{Mesh: j.Slug, Peers: make([]bus.Peer, 0, len(list))}
		for _, p := range list {
			out.Peers = append(out.Peers, peerRow(p, j, j.Pubkey))
		}
		return out, nil
	case bus.CallResolve:
		return c.resolve(ctx, j, data)
	}
	reply, err := ask(ctx, s.Name, data)
	if err != nil {
		return nil, err
	}
	return json.RawMessage(reply), nil
}

// resolve answers peer_resolve.
func (c *Cold) resolve(ctx context.Context, j mesh.Joined, data []byte) (any, error) {
	var req bus.PeerRef
	if err := json.Unmarshal(data, &req); err != nil {
		return nil, fmt.Errorf("decode request: %w", err)
	}
	target, err := mesh.ParseTarget(req.Peer)
	if err != nil {
		return nil, &bus.APIError{Code: 400, Reason: "bad_target", Detail: err.Error()}
	}
	all, err := c.candidates(ctx, j)
	if err != nil {
		return nil, err
	}
	found, err := mesh.ResolveMember(target, all)
	if errors.Is(err, mesh.ErrBadTarget) {
		return nil, &bus.APIError{Code: 400, Reason: "bad_target", Detail: err.Error()}
	}
	if err != nil {
		return nil, targetError(err)
	}
	return bus.PeerMember{Mesh: j.Slug, Pubkey: found.Key, Name: printable(found.Name), Online: found.Online, IsSelf: found.Key == j.Pubkey}, nil
}

// candidates are who can be meant: the peers that are there, and the members that are not. The directory of sessions seen before is the daemon's.
func (c *Cold) candidates(ctx context.Context, j mesh.Joined) ([]mesh.Candidate, error) {
	list, err := listPeers(ctx, c.ask(j))
	if err != nil {
		return nil, err
	}
	var all []mesh.Candidate
	for _, p := range list {
		all = append(all, mesh.Candidate{
			Key: p.Pubkey, MemberKey: p.MemberPubkey, Name: p.DisplayName, Online: true, Session: p.Pubkey != p.MemberPubkey, Self: p.Pubkey == j.Pubkey,
		})
	}
	// A broker that cannot list members, as the reference cannot, leaves it at that.
	if more, err := listMembers(ctx, c.ask(j)); err == nil {
		for _, m := range more {
			m.Self = m.Key == j.Pubkey
			all = append(all, m)
		}
	}
	return all, nil
}

// self answers what is asked of the daemon itself, as far as it can be known without one.
func (c *Cold) self(op string) (any, error) {
	switch op {
	case bus.OpVersion:
		return bus.Version{Version: c.opt.Version, API: apiVersion, PID: os.Getpid()}, nil
	case bus.OpStatus:
		return bus.Status{Version: c.opt.Version, Dir: c.opt.Dir, Meshes: c.statuses()}, nil
	case bus.OpMeshList:
		return bus.MeshList{Meshes: c.statuses()}, nil
	}
	return nil, needsDaemon("it keeps what this is about")
}

// statuses tell how the links are that were needed so far; none is opened for the answer.
func (c *Cold) statuses() []bus.MeshStatus {
	out := []bus.MeshStatus{}
	for _, j := range c.config.Meshes {
		s := bus.MeshStatus{
			Mesh: j.Slug, Name: j.Name, MeshID: j.MeshID, MemberID: j.MemberID, Pubkey: j.Pubkey, BrokerURL: j.BrokerURL, Link: string(bridge.Closed), Outbox: map[string]int{},
		}
		c.mu.Lock()
		if l := c.links[j.Slug]; l != nil {
			st := l.State()
			s.Link, s.Error, s.Since = string(st.Phase), st.Err, st.Since.UnixMilli()
		}
		c.mu.Unlock()
		out = append(out, s)
	}
	return out
}
