package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// editMember changes a member's record: it is stored, and then takes effect. change gets a copy, and must not touch what is in it by reference.
func (b *Broker) editMember(ctx context.Context, m *meshState, who *member, change func(*memberRecord)) error {
	b.editing.Lock()
	defer b.editing.Unlock()
	b.mu.RLock()
	rec := who.memberRecord
	b.mu.RUnlock()
	change(&rec)
	if err := b.store.put(ctx, memberKey(m.rec.ID, rec.Pubkey), rec); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	// Id and key never change and are read without the lock.
	who.Name, who.Role, who.RevokedAt = rec.Name, rec.Role, rec.RevokedAt
	who.RoleTag, who.Groups, who.MessageMode = rec.RoleTag, rec.Groups, rec.MessageMode
	return nil
}

// profile is what a hello is told of its member. Called under the lock.
func (who *member) profile() wire.MemberProfile {
	return wire.MemberProfile{
		RoleTag: who.RoleTag, Groups: append([]mesh.Group{}, who.Groups...), MessageMode: cmp.Or(who.MessageMode, wire.ModePush),
	}
}

// describeMember is a member as lists show it. Called under the lock.
func (m *meshState) describeMember(who *member) wire.Member {
	p := who.profile()
	d := wire.Member{
		ID: who.ID, Pubkey: who.Pubkey, DisplayName: who.Name, RoleTag: p.RoleTag, Groups: p.Groups, MessageMode: p.MessageMode,
		Permission: wire.PermissionMember, IsOwner: who.Pubkey == m.rec.OwnerPubkey, JoinedAt: wire.Timestamp(unixMilli(who.JoinedAt)),
	}
	if m.roleOf(who) >= roleAdmin {
		d.Permission = wire.PermissionAdmin
	}
	if who.state.LastSeen != 0 {
		at := wire.Timestamp(unixMilli(who.state.LastSeen))
		d.LastSeenAt = &at
	}
	d.SessionCount = len(m.connsOf(who))
	d.Online = d.SessionCount > 0
	return d
}

// memberViews lists who is in, by display name.
func (b *Broker) memberViews(m *meshState) []wire.Member {
	b.mu.RLock()
	defer b.mu.RUnlock()
	all := make([]wire.Member, 0, len(m.members))
	for _, who := range m.members {
		if who.RevokedAt == 0 {
			all = append(all, m.describeMember(who))
		}
	}
	slices.SortFunc(all, func(a, b wire.Member) int {
		return cmp.Or(strings.Compare(a.DisplayName, b.DisplayName), strings.Compare(a.Pubkey, b.Pubkey))
	})
	return all
}

func (c *conn) memberList(_ []byte, reqID string) {
	c.reply(wire.MemberListResult{Type: wire.TypeMemberListResult, Members: c.b.memberViews(c.mesh), ReqID: reqID})
}

func (c *conn) memberEdit(data []byte, reqID string) {
	var f wire.MemberEdit
	if !c.decode(data, reqID, &f) {
		return
	}
	view, changes, err := c.b.editProfile(c.mesh, c.member, f.MemberID, f.Profile)
	var no *refusal
	switch {
	case errors.As(err, &no):
		c.fail(reqID, no.code, no.message)
	case err != nil:
		c.storeFailed(reqID, wire.TypeMemberEdit, err)
	default:
		c.reply(wire.MemberEdited{Type: wire.TypeMemberEdited, Member: view, Changes: changes, ReqID: reqID})
	}
}

// editProfile is one member changing another, or itself. The sentences are the reference's. Errors are *refusal or the store's.
func (b *Broker) editProfile(m *meshState, by *member, memberID string, p wire.Profile) (view wire.Member, changes wire.Profile, err error) {
	b.mu.RLock()
	var who *member
	for _, o := range m.members {
		if o.ID == memberID && o.RevokedAt == 0 {
			who = o
		}
	}
	no := refused(wire.CodeNotFound, "no such member")
	if who != nil {
		no = m.mayEdit(by, who, p)
	}
	b.mu.RUnlock()
	if no != nil {
		return view, changes, no
	}
	ctx, cancel := b.deadline()
	defer cancel()
	var tag *string
	if p.RoleTag != nil {
		if tag, err = p.Tag(); err != nil {
			return view, changes, err
		}
	}
	err = b.editMember(ctx, m, who, func(r *memberRecord) {
		if p.DisplayName != nil && r.Name != *p.DisplayName {
			r.Name, changes.DisplayName = *p.DisplayName, p.DisplayName
		}
		if p.RoleTag != nil && !equal(r.RoleTag, tag) {
			r.RoleTag, changes.RoleTag = tag, p.RoleTag
		}
		if p.Groups != nil && !slices.Equal(r.Groups, *p.Groups) {
			r.Groups, changes.Groups = *p.Groups, p.Groups
		}
		if p.MessageMode != nil && cmp.Or(r.MessageMode, wire.ModePush) != *p.MessageMode {
			r.MessageMode, changes.MessageMode = *p.MessageMode, p.MessageMode
		}
		if p.Permission != nil && r.Role != *p.Permission {
			r.Role, changes.Permission = *p.Permission, p.Permission
		}
	})
	if err != nil {
		return view, wire.Profile{}, fmt.Errorf("edit member: %w", err)
	}
	b.mu.RLock()
	view = m.describeMember(who)
	tell := m.connsOf(who)
	b.mu.RUnlock()
	if len(changes.Fields()) > 0 {
		b.tell(tell, m.rec.ID, wire.EventProfileUpdated, changes)
	}
	return view, changes, nil
}

func equal(a, b *string) bool { return a == b || a != nil && b != nil && *a == *b }
