package broker

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// An invite is made by the mesh's owner, whose daemon signs it: a v1 token, a v2 capability, or both. The broker holds no key that could sign one. It counts
// the uses, lets a short code stand for the invite, and knows when it has been revoked.

const (
	maxInviteLife  = 90 * 24 * time.Hour // from registration
	keepDeadInvite = 24 * time.Hour      // so that who comes late is told why
)

func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// capabilityName is the name of an invite without a token.
func capabilityName(inviteID string) string { return tokenHash("v2|" + inviteID) }

// inviteCreate registers an invite that the mesh's owner has signed. Registering the same one again changes nothing.
func (c *conn) inviteCreate(data []byte, reqID string) {
	var f wire.InviteCreate
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	name, rec, no, err := c.b.registerInvite(ctx, c.mesh, f)
	switch {
	case err != nil:
		c.storeFailed(reqID, wire.TypeInviteCreate, err)
	case no != nil:
		c.fail(reqID, no.code, no.message)
	default:
		c.reply(wire.InviteCreated{
			Type: wire.TypeInviteCreated, ID: inviteID(name), Code: rec.Code, URL: c.b.inviteURL(rec.Code), ExpiresAt: rec.Expires, MaxUses: rec.MaxUses, ReqID: reqID,
		})
	}
}

// serveInvite is inviteCreate over HTTP.
func (b *Broker) serveInvite(w http.ResponseWriter, r *http.Request, who httpCaller) {
	var f wire.InviteCreate
	no := b.ownMesh(r, who)
	if no == nil {
		no = readSigned(w, r, who, &f)
	}
	if no == nil {
		if err := f.Validate(); err != nil {
			no = &httpRefusal{http.StatusBadRequest, err.Error()}
		}
	}
	if no != nil {
		answer(w, no.status, map[string]any{"error": no.code})
		return
	}
	ctx, cancel := b.deadline()
	defer cancel()
	name, rec, refusal, err := b.registerInvite(ctx, who.mesh, f)
	switch {
	case err != nil:
		b.log.Error("invite not registered", "err", err)
		answer(w, http.StatusServiceUnavailable, map[string]any{"error": wire.CodeUnavailable})
	case refusal != nil:
		answer(w, http.StatusBadRequest, map[string]any{"error": refusal.code, "detail": refusal.message})
	default:
		answer(w, http.StatusOK, wire.InviteCreatedHTTP{
			URL: b.inviteURL(rec.Code), Code: rec.Code, ExpiresAt: wire.Timestamp(time.Unix(rec.Expires, 0)), ID: inviteID(name), MaxUses: rec.MaxUses,
		})
	}
}

// inviteURL is the short link at the address under which clients reach this broker, "" when it does not know one.
func (b *Broker) inviteURL(code string) string {
	if base := httpBase(b.cfg.PublicURL); base != "" {
		return base + "/i/" + code
	}
	return ""
}

// httpBase is the HTTP address of a WebSocket URL.
func httpBase(ws string) string {
	rest, secure := strings.CutPrefix(ws, "wss://")
	scheme := "https://"
	if !secure {
		var plain bool
		if rest, plain = strings.CutPrefix(ws, "ws://"); !plain {
			return ""
		}
		scheme = "http://"
	}
	return scheme + strings.TrimSuffix(rest, "/ws")
}

// inviteID is how an invite is named to its owner: enough of its name to tell it from 500 others.
func inviteID(name string) string { return name[:16] }

// checkInvite tests what the owner signed, and makes the record of it. name is what it is stored under.
func (b *Broker) checkInvite(m meshRecord, f wire.InviteCreate) (name string, rec inviteRecord, no *refusal) {
	rec = inviteRecord{MeshID: m.ID, Role: f.Role, Expires: f.ExpiresAt, MaxUses: f.MaxUses, CreatedAt: b.now().UnixMilli()}
	if f.Token != "" {
		in, token, err := mesh.ParseInvite(f.Token)
		switch {
		case err != nil:
			return "", rec, refused(wire.CodeInvalid, err.Error())
		case in.MeshID != m.ID || in.OwnerPubkey != m.OwnerPubkey:
			return "", rec, refused(wire.CodeInvalid, "the invite is for another mesh or by another owner")
		}
		name, rec.Token, rec.RootKey, rec.Role, rec.Expires = tokenHash(token), token, in.MeshRootKey, in.Role, in.ExpiresAt
	}
	if f.SignatureV2 != "" {
		if !mesh.VerifySignature(m.OwnerPubkey, mesh.InviteV2String(m.ID, f.InviteID, rec.Expires, rec.Role, m.OwnerPubkey), f.SignatureV2) {
			return "", rec, refused(wire.CodeBadSignature, "signature_v2 is not the owner's over this invite")
		}
		rec.InviteID, rec.SignatureV2 = f.InviteID, f.SignatureV2
		name = cmp.Or(name, capabilityName(f.InviteID))
	}
	switch now := b.now(); {
	case now.Unix() > rec.Expires:
		return "", rec, refused(wire.CodeExpired, "the invite has expired")
	case rec.Expires > now.Add(maxInviteLife).Unix():
		return "", rec, refused(wire.CodeTTLTooLong, "an invite may live for 90 days at most")
	}
	return name, rec, nil
}

// registerInvite stores an invite and gives it a code.
func (b *Broker) registerInvite(ctx context.Context, m *meshState, f wire.InviteCreate) (name string, rec inviteRecord, no *refusal, err error) {
	b.mu.RLock()
	owner := m.rec
	b.mu.RUnlock()
	if name, rec, no = b.checkInvite(owner, f); no != nil {
		return name, rec, no, nil
	}
	b.joining.Lock()
	defer b.joining.Unlock()
	had, _, err := b.store.invite(ctx, owner.ID, name)
	if err == nil {
		return name, had, nil, nil
	}
	if !errors.Is(err, jetstream.ErrKeyNotFound) {
		return name, rec, nil, err
	}
	live, err := b.sweepInvites(ctx, owner.ID)
	if err != nil {
		return name, rec, nil, err
	}
	if len(live) >= wire.MaxInviteList {
		return name, rec, refused(wire.CodeLimit, fmt.Sprintf("the mesh has %d invites; revoke some", len(live))), nil
	}
	if rec.RootKey == "" {
		root := make([]byte, mesh.RootKeySize)
		if _, err := io.ReadFull(b.cfg.Rand, root); err != nil {
			return name, rec, nil, fmt.Errorf("read randomness: %w", err)
		}
		rec.RootKey = base64.RawURLEncoding.EncodeToString(root)
	}
	if rec.Code, err = b.freeCode(); err != nil {
		return name, rec, nil, err
	}
	if err := b.store.create(ctx, inviteKey(owner.ID, name), rec); err != nil {
		return name, rec, nil, err
	}
	b.mu.Lock()
	b.codes[rec.Code] = codeOf{owner.ID, name}
	b.mu.Unlock()
	return name, rec, nil, nil
}

// codeOf is which invite a code stands for.
type codeOf struct{ meshID, name string }

func (b *Broker) freeCode() (string, error) {
	for {
		code, err := mesh.NewInviteCode(b.cfg.Rand)
		if err != nil {
			return "", err
		}
		b.mu.RLock()
		_, taken := b.codes[code]
		b.mu.RUnlock()
		if !taken {
			return code, nil
		}
	}
}

// invite returns a registered invite and the revision to replace it by; jetstream.ErrKeyNotFound when there is none.
func (s *store) invite(ctx context.Context, meshID, name string) (rec inviteRecord, revision uint64, err error) {
	e, err := s.meta.Get(ctx, inviteKey(meshID, name))
	if err != nil {
		return rec, 0, fmt.Errorf("read invite: %w", err)
	}
	if err := json.Unmarshal(e.Value(), &rec); err != nil {
		return rec, 0, fmt.Errorf("read invite: %w", err)
	}
	return rec, e.Revision(), nil
}

// namedInvite is an invite and what it is stored under.
type namedInvite struct {
	name     string
	rec      inviteRecord
	revision uint64
}

func (n namedInvite) info() wire.InviteInfo {
	return wire.InviteInfo{
		ID: inviteID(n.name), Code: n.rec.Code, Role: n.rec.Role, ExpiresAt: n.rec.Expires, MaxUses: n.rec.MaxUses, Used: n.rec.Used, Revoked: n.rec.Revoked,
		CreatedAt: n.rec.CreatedAt,
	}
}

// sweepInvites lists the invites of a mesh, newest first, and removes those that have been expired for a while. Broker.joining must be held.
func (b *Broker) sweepInvites(ctx context.Context, meshID string) (live []namedInvite, err error) {
	old := b.now().Add(-keepDeadInvite).Unix()
	err = b.store.under(ctx, inviteKey(meshID, ">"), func(e jetstream.KeyValueEntry) error {
		_, _, name := splitKey(e.Key())
		n := namedInvite{name: name, revision: e.Revision()}
		if err := json.Unmarshal(e.Value(), &n.rec); err != nil {
			return fmt.Errorf("%s: %w", e.Key(), err)
		}
		live = append(live, n)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list invites: %w", err)
	}
	for _, n := range live {
		if n.rec.Expires >= old {
			continue
		}
		if err := b.store.meta.Purge(ctx, inviteKey(meshID, n.name)); err != nil {
			return nil, fmt.Errorf("forget invite: %w", err)
		}
		b.mu.Lock()
		delete(b.codes, n.rec.Code)
		b.mu.Unlock()
	}
	live = slices.DeleteFunc(live, func(n namedInvite) bool { return n.rec.Expires < old })
	slices.SortFunc(live, func(a, b namedInvite) int {
		return cmp.Or(cmp.Compare(b.rec.CreatedAt, a.rec.CreatedAt), strings.Compare(a.name, b.name))
	})
	return live, nil
}

// inviteList answers with the invites of the mesh; a token is never told again.
func (c *conn) inviteList(_ []byte, reqID string) {
	ctx, cancel := c.b.deadline()
	defer cancel()
	c.b.joining.Lock()
	all, err := c.b.sweepInvites(ctx, c.mesh.rec.ID)
	c.b.joining.Unlock()
	if err != nil {
		c.storeFailed(reqID, wire.TypeInviteList, err)
		return
	}
	out := wire.Invites{Type: wire.TypeInvites, Invites: make([]wire.InviteInfo, 0, len(all)), ReqID: reqID}
	for _, n := range all {
		out.Invites = append(out.Invites, n.info())
	}
	c.reply(out)
}

// inviteRevoke ends an invite. Members that came by it stay.
func (c *conn) inviteRevoke(data []byte, reqID string) {
	var f wire.InviteRevoke
	if !c.decode(data, reqID, &f) {
		return
	}
	ctx, cancel := c.b.deadline()
	defer cancel()
	c.b.joining.Lock()
	defer c.b.joining.Unlock()
	all, err := c.b.sweepInvites(ctx, c.mesh.rec.ID)
	if err != nil {
		c.storeFailed(reqID, wire.TypeInviteRevoke, err)
		return
	}
	i := slices.IndexFunc(all, func(n namedInvite) bool {
		return inviteID(n.name) == f.Invite || n.rec.Code != "" && n.rec.Code == mesh.NormalInviteCode(f.Invite)
	})
	if i < 0 {
		c.fail(reqID, wire.CodeNotFound, "this mesh has no such invite")
		return
	}
	n := all[i]
	n.rec.Revoked = true
	if err := c.b.store.replaceInvite(ctx, n); err != nil {
		c.storeFailed(reqID, wire.TypeInviteRevoke, err)
		return
	}
	c.reply(wire.InviteRevoked{Type: wire.TypeInviteRevoked, Was: n.info(), ReqID: reqID})
}

// replaceInvite stores n.rec in place of the revision it was read as.
func (s *store) replaceInvite(ctx context.Context, n namedInvite) error {
	data, err := json.Marshal(n.rec)
	if err != nil {
		return fmt.Errorf("encode invite: %w", err)
	}
	if _, err := s.meta.Update(ctx, inviteKey(n.rec.MeshID, n.name), data, n.revision); err != nil {
		return fmt.Errorf("store invite: %w", err)
	}
	return nil
}
