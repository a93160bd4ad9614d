package crowd

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// Broker is where a crowd goes. URL is its WebSocket address (ws://host:port/ws), AdminToken what creating a mesh asks for.
type Broker struct {
	URL        string
	AdminToken string
}

// Member is one member of a mesh, with its secret.
type Member struct {
	mesh.Identity
	ID string
}

// Mesh is a mesh of the broker; the crowd holds every key of it.
type Mesh struct {
	Broker
	ID, Slug string
	Owner    Member
}

// patience bounds every single exchange with the broker: far more than a loaded two-core machine needs.
const patience = time.Minute

// NewMesh creates a mesh.
func (b Broker) NewMesh(ctx context.Context, name string) (*Mesh, error) {
	owner, err := mesh.NewIdentity(rand.Reader)
	if err != nil {
		return nil, err
	}
	var reply wire.CreateMeshReply
	if err := b.post(ctx, "/cli/mesh/create", wire.CreateMeshRequest{Name: name, Pubkey: owner.PublicKey()}, &reply); err != nil {
		return nil, err
	}
	if reply.Error != "" {
		return nil, fmt.Errorf("create mesh: %s", reply.Error)
	}
	return &Mesh{Broker: b, ID: reply.ID, Slug: reply.Slug, Owner: Member{owner, reply.MemberID}}, nil
}

// Enrol makes n further members (at most 1000) by one invite.
func (m *Mesh) Enrol(ctx context.Context, n int) ([]Member, error) {
	root := make([]byte, 32) // nothing is derived from it; the invite format asks for one
	if _, err := io.ReadFull(rand.Reader, root); err != nil {
		return nil, err
	}
	in, token, err := mesh.NewInvite(m.Owner.Identity, mesh.Invite{
		MeshID: m.ID, MeshSlug: m.Slug, BrokerURL: m.URL, Role: "member", ExpiresAt: time.Now().Add(time.Hour).Unix(),
		MeshRootKey: base64.RawURLEncoding.EncodeToString(root),
	})
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	c, err := m.Join(ctx, m.Owner, Discard)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if _, err := c.Call(ctx, wire.InviteCreate{Type: wire.TypeInviteCreate, Token: token, MaxUses: n, ReqID: "invite"}, "invite"); err != nil {
		return nil, err
	}
	members := make([]Member, n)
	for i := range members {
		id, err := mesh.NewIdentity(rand.Reader)
		if err != nil {
			return nil, err
		}
		var reply wire.JoinReply
		req := wire.JoinRequest{InviteToken: token, InvitePayload: payload, PeerPubkey: id.PublicKey(), DisplayName: fmt.Sprintf("member %d", i)}
		if err := m.post(ctx, "/join", req, &reply); err != nil {
			return nil, err
		}
		if !reply.OK {
			return nil, fmt.Errorf("join: %s", reply.Error)
		}
		members[i] = Member{id, reply.MemberID}
	}
	return members, nil
}

// Join connects a member. on gets every further frame.
func (m *Mesh) Join(ctx context.Context, who Member, on OnFrame) (*Client, error) {
	return m.join(ctx, on, m.Hello(who, "s-"+who.PublicKey()[:8]))
}

// JoinAs connects a member once more, beside its other connections: each has a session id of its own.
func (m *Mesh) JoinAs(ctx context.Context, who Member, sessionID string, on OnFrame) (*Client, error) {
	return m.join(ctx, on, m.Hello(who, sessionID))
}

// JoinSession connects a new session of a member, with a key and mailbox of its own.
func (m *Mesh) JoinSession(ctx context.Context, who Member, on OnFrame) (*Client, error) {
	key, err := mesh.NewIdentity(rand.Reader)
	if err != nil {
		return nil, err
	}
	h := wire.SessionHello{MeshID: m.ID, ParentMemberID: who.ID, SessionID: "s-" + key.PublicKey()[:16], PID: 1, Cwd: "/", Capabilities: []string{wire.CapClientAck}}
	return m.join(ctx, on, wire.SignSessionHello(h, who.Identity, key, time.Now(), time.Hour))
}

// Hello is a member's signed hello. It acknowledges what it receives and asks for no receipts.
func (m *Mesh) Hello(who Member, sessionID string) wire.Hello {
	h := wire.Hello{MeshID: m.ID, MemberID: who.ID, SessionID: sessionID, PID: 1, Cwd: "/", Capabilities: []string{wire.CapClientAck}}
	return wire.SignHello(h, who.Identity, time.Now())
}

func (m *Mesh) join(ctx context.Context, on OnFrame, hello any) (*Client, error) {
	c, err := Dial(ctx, m.URL, on)
	if err != nil {
		return nil, err
	}
	if err := c.Greet(ctx, hello); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (b Broker) post(ctx context.Context, path string, body, reply any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	base := "http" + strings.TrimSuffix(strings.TrimPrefix(b.URL, "ws"), "/ws")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+b.AdminToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("post %s: %w", path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("post %s: %w", path, err)
	}
	if err := json.Unmarshal(text, reply); err != nil {
		return fmt.Errorf("post %s: %s: %.200s", path, resp.Status, text)
	}
	return nil
}
