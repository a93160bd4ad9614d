package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"claudemesh/bridge"
	"claudemesh/mesh"
	"claudemesh/wire"
)

// Config says which broker to ask, and how to get in: by Invite, a v1 invite of a mesh made for this with three uses left, or by AdminToken, with which a
// mesh is made on a broker of ours.
type Config struct {
	URL        string // ws:// or wss://, ending in /ws
	Invite     string
	AdminToken string
	// Quiet is how long silence must last to be believed; default 1 s. A check of a type that is never answered takes that long.
	Quiet time.Duration
	Only  string // a message type; empty: all
}

// ErrNoWay means that neither an invite nor an admin token was given.
var ErrNoWay = errors.New("an invite with three uses, or the broker's admin token, is needed")

// peer is a member of the mesh under test.
type peer struct {
	who      mesh.Identity
	memberID string
	name     string
}

// play is one run: a mesh with three members, each connected.
type play struct {
	ctx     context.Context
	cfg     Config
	meshID  string
	tag     string // unique to this run
	alice   peer   // the owner, when the mesh was made for the run
	bob     peer
	carol   peer
	a, b, c *socket
	extra   []*socket // opened by the check under way
	asked   map[string]bool
}

// Run asks everything and reports each finding as it is made. The error is about getting in; a broker that answers badly is not an error.
func Run(ctx context.Context, cfg Config, report func(Result)) (Summary, error) {
	if cfg.Quiet == 0 {
		cfg.Quiet = time.Second
	}
	var raw [4]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return Summary{}, fmt.Errorf("read randomness: %w", err)
	}
	p := &play{ctx: ctx, cfg: cfg, tag: "check-" + hex.EncodeToString(raw[:]), asked: map[string]bool{}}
	if err := p.enter(); err != nil {
		return Summary{}, err
	}
	var sum Summary
	for _, c := range checks() {
		if cfg.Only != "" && c.frame != cfg.Only {
			continue
		}
		if err := ctx.Err(); err != nil {
			return sum, err
		}
		clear(p.asked)
		f := p.one(c)
		sum.add(f.verdict)
		report(Result{Type: c.frame, Drove: slices.Sorted(maps.Keys(p.asked)), Check: c.name, Verdict: f.verdict, Defect: f.defect, Detail: f.detail})
	}
	return sum, nil
}

// one runs a check on fresh connections, so that none sees what another left behind on a socket.
func (p *play) one(c check) (f finding) {
	defer func() {
		for _, s := range append(p.extra, p.a, p.b, p.c) {
			if s != nil {
				s.close()
			}
		}
		p.extra, p.a, p.b, p.c = nil, nil, nil, nil
		if r := recover(); r != nil {
			s, ok := r.(stop)
			if !ok {
				panic(r)
			}
			f = s.finding
		}
	}()
	p.a, p.b, p.c = p.connect(p.alice), p.connect(p.bob), p.connect(p.carol)
	if f = c.run(p); f.verdict == "" {
		f = same()
	}
	return f
}

// name makes a name that no other run uses.
func (p *play) name(s string) string { return p.tag + "-" + s }

func (p *play) open() *socket {
	s, err := dial(p.ctx, p.cfg.URL, p.cfg.Quiet, p.asked)
	if err != nil {
		panic(stop{differs("%v", err)})
	}
	return s
}

// dialExtra opens a socket that is closed with the check.
func (p *play) dialExtra() *socket {
	s := p.open()
	p.extra = append(p.extra, s)
	return s
}

func (p *play) hello(who peer) wire.Hello {
	return wire.Hello{MeshID: p.meshID, MemberID: who.memberID, DisplayName: who.name, SessionID: p.name(who.name), PID: 1, Cwd: "/check", PeerType: "ai", Channel: "check"}
}

// connect says a member's hello.
func (p *play) connect(who peer) *socket {
	s := p.open()
	s.write(wire.SignHello(p.hello(who), who.who, time.Now()))
	if s.take(func(f fields) bool { return f["type"] == wire.TypeHelloAck }) == nil {
		s.close()
		panic(stop{differs("no hello_ack")})
	}
	return s
}

// enter makes or joins the mesh, with three new members.
func (p *play) enter() error {
	members := []*peer{&p.alice, &p.bob, &p.carol}
	for i, name := range []string{"check-alice", "check-bob", "check-carol"} {
		id, err := mesh.NewIdentity(rand.Reader)
		if err != nil {
			return err
		}
		*members[i] = peer{who: id, name: name}
	}
	switch {
	case p.cfg.Invite != "":
		in, token, err := mesh.ParseInvite(p.cfg.Invite)
		if err != nil {
			return fmt.Errorf("read invite: %w", err)
		}
		p.meshID = in.MeshID
		return p.join(in, token, members...)
	case p.cfg.AdminToken != "":
		return p.create()
	}
	return ErrNoWay
}

func (p *play) create() error {
	var made wire.CreateMeshReply
	status, err := p.post("/cli/mesh/create", p.cfg.AdminToken, wire.CreateMeshRequest{Name: p.tag, Pubkey: p.alice.who.PublicKey(), DisplayName: p.alice.name}, &made)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("make a mesh: HTTP %d %s", status, made.Error)
	}
	p.meshID, p.alice.memberID = made.ID, made.MemberID
	root := make([]byte, 32)
	if _, err := rand.Read(root); err != nil {
		return fmt.Errorf("read randomness: %w", err)
	}
	in, token, err := mesh.NewInvite(p.alice.who, mesh.Invite{
		MeshID: made.ID, MeshSlug: made.Slug, BrokerURL: p.cfg.URL, ExpiresAt: time.Now().Add(time.Hour).Unix(), Role: "member",
		MeshRootKey: base64.RawURLEncoding.EncodeToString(root),
	})
	if err != nil {
		return fmt.Errorf("make an invite: %w", err)
	}
	if err := p.register(token); err != nil {
		return err
	}
	return p.join(in, token, &p.bob, &p.carol)
}

// register makes the invite known to the broker.
func (p *play) register(token string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s, ok := r.(stop)
			if !ok {
				panic(r)
			}
			err = fmt.Errorf("register an invite: %s", s.detail)
		}
	}()
	s := p.connect(p.alice)
	defer s.close()
	s.must(wire.TypeInviteCreate, fields{"invite_token": token, "max_uses": 2}, wire.TypeInviteCreated)
	return nil
}

func (p *play) join(in mesh.Invite, token string, members ...*peer) error {
	payload, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode invite: %w", err)
	}
	for _, m := range members {
		var got wire.JoinReply
		_, err := p.post("/join", "", wire.JoinRequest{InviteToken: token, InvitePayload: payload, PeerPubkey: m.who.PublicKey(), DisplayName: m.name}, &got)
		if err != nil {
			return err
		}
		if !got.OK {
			return fmt.Errorf("join: %s", got.Error)
		}
		m.memberID = got.MemberID
	}
	return nil
}

// post sends JSON to the broker's HTTP side.
func (p *play) post(path, bearer string, in, out any) (int, error) {
	data, err := json.Marshal(in)
	if err != nil {
		return 0, err
	}
	base, err := bridge.HTTPBase(p.cfg.URL)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+path, bytes.NewReader(data))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(bearer))
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("POST %s: %w", path, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return 0, fmt.Errorf("POST %s: %w", path, err)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return res.StatusCode, fmt.Errorf("POST %s: HTTP %d without JSON", path, res.StatusCode)
	}
	return res.StatusCode, nil
}
