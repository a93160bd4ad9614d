package daemon

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"syscall"
	"time"

	"github.com/google/renameio/v2/maybe"

	"claudemesh/bus"
	"claudemesh/daemon/groupcommit"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Sizes of request bodies. A send carries at most mesh.MaxBody of text, which JSON may blow up sixfold, and 64 KiB of metadata.
const (
	maxSendRequest  = 512 << 10
	maxCallRequest  = 640 << 10 // a shared skill, whose text JSON may make twice as long
	maxSmallRequest = 64 << 10
)

// serve registers every request the daemon answers. userOnly operations are refused to sessions; the others look at the actor themselves.
func (d *Daemon) serve() error {
	userOnly := func(h bus.Handler) bus.Handler {
		return func(ctx context.Context, c *bus.Call) (any, error) {
			if c.Actor != bus.User {
				return nil, &bus.APIError{Code: 403, Reason: "forbidden", Detail: "only the user may do this, not a session"}
			}
			return h(ctx, c)
		}
	}
	if err := d.service.Handle("send", bus.AnySend, maxSendRequest, d.accept); err != nil {
		return fmt.Errorf("register send: %w", err)
	}
	if err := d.service.Handle("call", bus.AnyCall, maxCallRequest, d.call); err != nil {
		return fmt.Errorf("register call: %w", err)
	}
	ops := []struct {
		op string
		h  bus.Handler
	}{
		{bus.OpVersion, d.version},
		{bus.OpStatus, d.status},
		{bus.OpShutdown, userOnly(d.shutdown)},
		{bus.OpMeshList, d.listMeshes},
		{bus.OpMeshCreate, userOnly(d.createMesh)},
		{bus.OpMeshJoin, userOnly(d.joinMesh)},
		{bus.OpMeshShare, userOnly(d.shareMesh)},
		{bus.OpMeshRename, userOnly(d.renameMesh)},
		{bus.OpMeshLeave, userOnly(d.leaveMesh)},
		{bus.OpMeshDelete, userOnly(d.deleteMesh)},
		{bus.OpMeshReload, userOnly(d.reloadMeshes)},
		{bus.OpInviteList, userOnly(d.listInvites)},
		{bus.OpInviteRevoke, userOnly(d.revokeInvite)},
		{bus.OpSessionStart, d.startSession},
		{bus.OpSessionEnd, d.stopSession},
		{bus.OpSessionList, d.listSessions},
		{bus.OpSessionMe, d.sessionMe},
		{bus.OpSessionAttach, userOnly(d.attachSession)},
		{bus.OpInboxList, d.listInbox},
		{bus.OpInboxSeen, d.markSeen},
		{bus.OpInboxPending, d.pendingInbox},
		{bus.OpInboxPushed, d.markPushed},
		{bus.OpInboxSurfaced, d.markSurfaced},
		{bus.OpShim, d.shim},
		{bus.OpHook, d.hook},
		{bus.OpHookWait, d.hookWait},
		{bus.OpOutboxList, d.listOutbox},
		{bus.OpOutboxGet, d.getOutbox},
		{bus.OpOutboxRequeue, userOnly(d.requeue)},
		{bus.OpTrace, d.trace},
		{bus.OpTrust, d.askTrust},
		{bus.OpTrustConfirm, userOnly(d.confirmTrust)},
		{bus.OpTap, userOnly(d.tap)},
		{bus.OpVaultSet, d.vaultSet},
		{bus.OpVaultGet, d.vaultGet},
		{bus.OpFileBegin, d.beginFile},
		{bus.OpFileChunk, d.fileChunk},
		{bus.OpFileCommit, d.commitFile},
		{bus.OpFileOpen, d.openFile},
		{bus.OpFileFetch, d.fetchFile},
		{bus.OpFileRead, d.readFile},
		{bus.OpFileProgress, d.fileProgress},
		{bus.OpFileClose, d.closeFile},
		{bus.OpFileGrant, d.grant},
	}
	larger := map[string]int{bus.OpVaultSet: maxVaultRequest, bus.OpFileChunk: maxChunkRequest}
	for _, o := range ops {
		if err := d.service.Handle(o.op, bus.AnyDaemonOp(o.op), max(maxSmallRequest, larger[o.op]), o.h); err != nil {
			return fmt.Errorf("register %s: %w", o.op, err)
		}
	}
	return nil
}

// apiVersion counts incompatible changes of bus/api.go.
const apiVersion = 1

func (d *Daemon) version(context.Context, *bus.Call) (any, error) {
	return bus.Version{Version: d.opt.Version, API: apiVersion, PID: os.Getpid()}, nil
}

func (d *Daemon) status(ctx context.Context, c *bus.Call) (any, error) {
	s := bus.Status{
		Running: true, PID: os.Getpid(), Version: d.opt.Version, StartedAt: d.started.UnixMilli(), Socket: d.server.Socket(), TCPURL: d.server.TCPURL(),
		HTTPSocket: d.httpSocket, HTTPURL: d.httpURL, Dir: d.opt.Dir, Log: d.opt.LogPath, Meshes: []bus.MeshStatus{},
	}
	d.each(func(m *meshRun) { s.Meshes = append(s.Meshes, m.status(ctx)) })
	live, err := d.session.Live(ctx)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	s.Sessions = len(live)
	d.mu.RLock()
	s.Notices = append(s.Notices, d.notices...)
	host := d.broker
	d.mu.RUnlock()
	s.Broker = host.info()
	return s, nil
}

// shutdown answers first and stops then, so that the caller learns that it was heard.
func (d *Daemon) shutdown(context.Context, *bus.Call) (any, error) {
	d.opt.Log.Info("shutdown_requested")
	time.AfterFunc(0, d.cancel)
	return bus.Count{N: 1}, nil
}

func (d *Daemon) listMeshes(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.MeshQuery
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	out := bus.MeshList{Meshes: []bus.MeshStatus{}}
	var runs []*meshRun
	d.each(func(m *meshRun) { runs, out.Meshes = append(runs, m), append(out.Meshes, m.status(ctx)) })
	if req.Server {
		d.askServers(ctx, runs, out.Meshes)
	}
	return out, nil
}

func (d *Daemon) tap(ctx context.Context, c *bus.Call) (any, error) {
	var req bus.TapRequest
	if err := c.Decode(&req); err != nil {
		return nil, err
	}
	if req.Revoke {
		return bus.Tap{}, d.closeTap()
	}
	return d.openTap()
}

// Operations of the wire that have a path of their own and are not to be had as calls.
var notCallable = map[string]bool{
	wire.TypeHello: true, wire.TypeSessionHello: true, wire.TypeSend: true, wire.TypeClientAck: true,
	// What decides about the mesh itself is the user's, who has operations of the daemon for it; a call goes over the member's connection, whoever calls.
	wire.TypeInviteCreate: true, wire.TypeInviteList: true, wire.TypeInviteRevoke: true,
	wire.TypeMeshRename: true, wire.TypeMeshDelete: true, wire.TypeMeshLeave: true,
}

var opName = regexp.MustCompile(`^[a-z][a-z_]{0,63}$`)

// call carries a broker operation. What changes the caller's own presence goes over the session's link, everything else over the member's.
func (d *Daemon) call(ctx context.Context, c *bus.Call) (any, error) {
	m, err := d.mesh(c.Slug)
	if err != nil {
		return nil, err
	}
	if !opName.MatchString(c.Op) || notCallable[c.Op] {
		return nil, &bus.APIError{Code: 400, Reason: "bad_operation", Detail: fmt.Sprintf("%q is no operation of the broker", c.Op)}
	}
	link, key, own := m.links.Member(), m.joined.Pubkey, ""
	if c.Actor != bus.User {
		if s, err := d.session.Get(ctx, c.Actor); err == nil && s.Mesh == c.Slug {
			key = s.PublicKey
			if l, ok := m.links.Session(s.ID); ok && ownPresence[c.Op] {
				link, own = l, s.ID
			}
		}
	}
	switch c.Op {
	case wire.TypeListPeers:
		return m.peers(ctx, key)
	case wire.TypeSchedule:
		return d.schedule(ctx, m, c)
	case wire.TypeListScheduled:
		return d.listScheduled(ctx, m, c.Actor)
	case bus.CallResolve:
		return m.resolveMember(ctx, c, key)
	case wire.TypeMCPRegister:
		return m.offers.register(ctx, c)
	case wire.TypeMCPUnregister:
		return m.offers.unregister(ctx, c)
	case wire.TypeMCPCallResponse:
		return m.offers.answer(ctx, c)
	}
	if ask, ours := topicCalls[c.Op]; ours {
		return ask(m.topics, ctx, c, key)
	}
	if ownPresence[c.Op] {
		reply, err := m.say(ctx, link, own, c.Op, c.Data)
		if err != nil {
			return nil, err
		}
		return json.RawMessage(reply), nil
	}
	link = d.linkOf(ctx, c.Actor, m)
	reply, err := m.call(ctx, link, c.Op, c.Data)
	if err != nil {
		return nil, err
	}
	if link == m.links.Member() { // over a session's link, the broker tells the member's
		m.made(c.Op, c.Data, reply)
	}
	return json.RawMessage(reply), nil
}

// ownPresence are the operations about the presence of the connection they come by.
var ownPresence = map[string]bool{
	wire.TypeSetStatus: true, wire.TypeSetSummary: true, wire.TypeSetVisible: true, wire.TypeSetProfile: true, wire.TypeSetStats: true,
	wire.TypeJoinGroup: true, wire.TypeLeaveGroup: true,
}

// peers lists the mesh and marks which rows are the caller's.
func (m *meshRun) peers(ctx context.Context, self string) (any, error) {
	list, err := m.listPeers(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.roster.learn(ctx, list); err != nil {
		return nil, fmt.Errorf("keep peer directory: %w", err)
	}
	out := bus.PeersReply{Mesh: m.joined.Slug, Peers: make([]bus.Peer, 0, len(list))}
	for _, p := range list {
		row := peerRow(p, m.joined, self)
		if c := m.d.ladder.of(p.SessionID); c != nil && c.key == p.Pubkey {
			row.Wake = c.info()
		}
		out.Peers = append(out.Peers, row)
	}
	return out, nil
}

// peerRow is one peer as the local API tells of it, without what only a daemon knows. self is the key of the caller.
func peerRow(p wire.Peer, joined mesh.Joined, self string) bus.Peer {
	role := p.PeerRole
	if role == "" {
		role = wire.RoleSession
		if p.Pubkey == p.MemberPubkey || p.Channel == "claudemesh-daemon" {
			role = wire.RoleControlPlane
		}
	}
	groups := p.Groups
	if groups == nil {
		groups = []mesh.Group{}
	}
	return bus.Peer{
		Pubkey: p.Pubkey, MemberPubkey: p.MemberPubkey, DisplayName: printable(p.DisplayName), Status: p.Status, Summary: p.Summary, Groups: groups,
		SessionID: p.SessionID, ConnectedAt: p.ConnectedAt, Cwd: p.Cwd, Hostname: p.Hostname, PeerType: p.PeerType, Channel: p.Channel, Model: p.Model,
		Visible: p.Visible, Stats: asJSON(p.Stats), Profile: asJSON(p.Profile), PeerRole: role, Role: printable(p.Role), AllowedCaps: printables(p.AllowedCaps),
		Mesh: joined.Slug, IsSelf: p.MemberPubkey == joined.Pubkey, IsThisSession: p.Pubkey == self && role == wire.RoleSession,
	}
}

// storeError says what a full disk means for the caller.
func storeError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, groupcommit.ErrFull) {
		return &bus.APIError{Code: 507, Reason: "disk_full", Detail: "the disk is full: nothing was stored; free some space and try again"}
	}
	return err
}

// writePrivate replaces a file of mode 0600 atomically.
func writePrivate(path, text string) error {
	if err := maybe.WriteFile(path, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// newRand seeds the generator of backoff jitter.
func newRand(r io.Reader) *rand.Rand {
	var seed [16]byte
	_, _ = io.ReadFull(r, seed[:])
	return rand.New(rand.NewPCG(binary.LittleEndian.Uint64(seed[:8]), binary.LittleEndian.Uint64(seed[8:])))
}
