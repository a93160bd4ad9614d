package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"claudemesh/wire"
)

// ban removes a member until it is unbanned: see RevokeMember.
func (c *conn) ban(data []byte, reqID string) {
	var f wire.Ban
	if !c.decode(data, reqID, &f) {
		return
	}
	b := c.b
	b.mu.RLock()
	who, _, no := c.mesh.aim(f.Target)
	switch {
	case no != nil:
	case who == nil:
		no = refused(wire.CodeNotFound, fmt.Sprintf("no peer %.64q", f.Target))
	case who == c.member:
		no = refused(wire.CodeInvalid, "cannot ban yourself")
	case !outranks(c.mesh.roleOf(c.member), c.mesh.roleOf(who)):
		no = notBelow(who, c.mesh.roleOf(who))
	}
	b.mu.RUnlock()
	if no != nil {
		c.fail(reqID, no.code, no.message)
		return
	}
	ctx, cancel := b.deadline()
	defer cancel()
	out, err := b.revoke(ctx, c.mesh, who)
	if err != nil {
		c.storeFailed(reqID, wire.TypeBan, err)
		return
	}
	c.log.Info("member banned", "banned", who.ID)
	c.replyThen(wire.BanAck{Type: wire.TypeBanAck, Banned: b.nameOf(who), ReqID: reqID}, func() { b.seeOff(out, banned) })
}

var banned = farewell{wire.CloseBanned, "banned"}

// unban lets a banned member in again. Its API keys stay revoked.
func (c *conn) unban(data []byte, reqID string) {
	var f wire.Ban
	if !c.decode(data, reqID, &f) {
		return
	}
	b := c.b
	b.mu.RLock()
	all := map[*member]bool{}
	var who *member
	for key, o := range c.mesh.members {
		if o.RevokedAt == 0 {
			continue
		}
		if key == f.Target {
			all, who = map[*member]bool{o: true}, o
			break
		}
		if o.Name == f.Target || len(f.Target) >= wire.MinKeyPrefix && isHex(f.Target) && strings.HasPrefix(key, f.Target) {
			all[o], who = true, o
		}
	}
	b.mu.RUnlock()
	switch len(all) {
	case 0:
		c.fail(reqID, wire.CodeNotFound, fmt.Sprintf("no banned peer %.64q", f.Target))
		return
	case 1:
	default:
		no := ambiguous(f.Target, all)
		c.fail(reqID, no.code, no.message)
		return
	}
	ctx, cancel := b.deadline()
	defer cancel()
	if err := b.editMember(ctx, c.mesh, who, func(r *memberRecord) { r.RevokedAt = 0 }); err != nil {
		c.storeFailed(reqID, wire.TypeUnban, err)
		return
	}
	c.log.Info("member unbanned", "unbanned", who.ID)
	c.reply(wire.UnbanAck{Type: wire.TypeUnbanAck, Unbanned: b.nameOf(who), ReqID: reqID})
}

func (c *conn) listBans(_ []byte, reqID string) {
	c.b.mu.RLock()
	var gone []memberRecord
	for _, who := range c.mesh.members {
		if who.RevokedAt != 0 {
			gone = append(gone, who.memberRecord)
		}
	}
	c.b.mu.RUnlock()
	slices.SortFunc(gone, func(a, b memberRecord) int {
		if d := b.RevokedAt - a.RevokedAt; d != 0 {
			return int(d)
		}
		return strings.Compare(a.Pubkey, b.Pubkey)
	})
	bans := make([]wire.BanRecord, 0, len(gone))
	for _, r := range gone {
		bans = append(bans, wire.BanRecord{Name: r.Name, Pubkey: r.Pubkey, RevokedAt: wire.Timestamp(unixMilli(r.RevokedAt))})
	}
	c.reply(wire.ListBansResult{Type: wire.TypeListBansResult, Bans: bans, ReqID: reqID})
}

// RevokeMember removes a member until it is unbanned: its connections are closed with 4002 "banned", its hellos refused, its API keys revoked, and its key
// cannot join again by an invite. What it made stays. Errors wrap ErrNotFound, or are the store's.
func (b *Broker) RevokeMember(ctx context.Context, meshID, memberPubkey string) error {
	b.mu.RLock()
	m := b.meshes[meshID]
	var who *member
	if m != nil {
		who = m.members[memberPubkey]
	}
	b.mu.RUnlock()
	if who == nil {
		return fmt.Errorf("revoke member: %w", ErrNotFound)
	}
	out, err := b.revoke(ctx, m, who)
	if err != nil {
		return fmt.Errorf("revoke member: %w", err)
	}
	b.seeOff(out, banned)
	return nil
}

// revoke does it but for closing the connections, which it returns.
func (b *Broker) revoke(ctx context.Context, m *meshState, who *member) ([]*conn, error) {
	now := b.now().UnixMilli()
	err := b.editMember(ctx, m, who, func(r *memberRecord) {
		if r.RevokedAt == 0 {
			r.RevokedAt = now
		}
	})
	if err != nil {
		return nil, err
	}
	// Nobody gets in from here on, whatever happens to the rest.
	b.mu.Lock()
	out := m.connsOf(who)
	unroute(out)
	b.mu.Unlock()
	b.goneFromAll(m, who)
	if err := b.revokeKeysOf(ctx, m, who.Pubkey); err != nil {
		b.log.Warn("api keys of a banned member not revoked; they do not work while it is banned", "member", who.ID, "err", err)
	}
	return out, nil
}

func (b *Broker) nameOf(who *member) string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return who.Name
}
