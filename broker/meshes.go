package broker

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"claudemesh/mesh"
	"claudemesh/wire"
)

// Mesh describes one mesh of this broker. MemberID is the owner's. CreatedAt is in Unix milliseconds.
type Mesh struct {
	ID, Slug, Name string
	OwnerPubkey    string
	MemberID       string
	BrokerURL      string
	CreatedAt      int64
	Members        int // active ones
	Online         int // registered connections
}

// CreateMesh makes a mesh whose owner and first member is the holder of ownerPubkey (64 lower-case hex). The slug is made of the name, with a number
// behind it when it is taken. displayName defaults to "owner". Errors wrap ErrBadName, ErrBadKey, ErrFull, or are the store's.
func (b *Broker) CreateMesh(ctx context.Context, name, ownerPubkey, displayName string) (Mesh, error) {
	if !mesh.ValidKey(ownerPubkey) {
		return Mesh{}, fmt.Errorf("create mesh: %w", ErrBadKey)
	}
	base, err := mesh.Slugify(name)
	if err != nil || !validName(name) {
		return Mesh{}, fmt.Errorf("create mesh: %w: %.64q", ErrBadName, name)
	}
	if displayName = cmp.Or(strings.TrimSpace(displayName), "owner"); !validName(displayName) {
		return Mesh{}, fmt.Errorf("create mesh: %w: display name", ErrBadName)
	}
	id, err := newID(b.cfg.Rand)
	if err != nil {
		return Mesh{}, fmt.Errorf("create mesh: %w", err)
	}
	memberID, err := newID(b.cfg.Rand)
	if err != nil {
		return Mesh{}, fmt.Errorf("create mesh: %w", err)
	}
	rec := meshRecord{ID: id, Name: strings.TrimSpace(name), OwnerPubkey: ownerPubkey, BrokerURL: b.cfg.PublicURL, CreatedAt: b.now().UnixMilli()}
	owner := memberRecord{ID: memberID, Pubkey: ownerPubkey, Name: displayName, Role: "admin", JoinedAt: rec.CreatedAt}

	b.joining.Lock() // keeps the slug free until it is ours
	defer b.joining.Unlock()
	b.mu.RLock()
	full, closed := len(b.meshes) >= b.lim.Meshes, b.closed
	rec.Slug = b.freeSlug(base)
	b.mu.RUnlock()
	switch {
	case closed:
		return Mesh{}, fmt.Errorf("create mesh: %w", ErrClosed)
	case full:
		return Mesh{}, fmt.Errorf("create mesh: %w: %d meshes", ErrFull, b.lim.Meshes)
	}
	made, err := b.addMesh(ctx, rec, owner)
	if err != nil {
		return Mesh{}, err
	}
	b.mu.RLock()
	m := b.meshes[made.ID]
	b.mu.RUnlock()
	if err := b.ensureGeneral(ctx, m); err != nil { // the next start makes it up
		b.log.Warn("mesh has no general topic yet", "mesh", made.Slug, "err", err)
	}
	return made, nil
}

// addMesh stores a mesh and its first member. The member comes first: a member without a mesh is passed over when the store is read, so a crash between
// the two writes leaves nothing half made.
func (b *Broker) addMesh(ctx context.Context, rec meshRecord, members ...memberRecord) (Mesh, error) {
	m := newMeshState(rec)
	for _, who := range members {
		if err := b.store.put(ctx, memberKey(rec.ID, who.Pubkey), who); err != nil {
			return Mesh{}, fmt.Errorf("create mesh: %w", err)
		}
		m.members[who.Pubkey] = &member{memberRecord: who}
	}
	if err := b.store.create(ctx, meshKey(rec.ID), rec); err != nil {
		return Mesh{}, fmt.Errorf("create mesh: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.meshes[rec.ID] = m
	return m.describe(), nil
}

// freeSlug returns base, or base with the first free number behind it.
func (b *Broker) freeSlug(base string) string {
	taken := map[string]bool{}
	for _, m := range b.meshes {
		taken[m.rec.Slug] = true
	}
	for n := 2; ; n++ {
		if !taken[base] {
			return base
		}
		suffix := "-" + strconv.Itoa(n)
		next := base[:min(len(base), 63-len(suffix))] + suffix
		if !taken[next] {
			return next
		}
	}
}

// Meshes lists the broker's meshes by slug.
func (b *Broker) Meshes(ctx context.Context) ([]Mesh, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.closed {
		return nil, ErrClosed
	}
	all := make([]Mesh, 0, len(b.meshes))
	for _, m := range b.meshes {
		all = append(all, m.describe())
	}
	slices.SortFunc(all, func(a, b Mesh) int { return strings.Compare(a.Slug, b.Slug) })
	return all, nil
}

func (m *meshState) describe() Mesh {
	d := Mesh{
		ID: m.rec.ID, Slug: m.rec.Slug, Name: m.rec.Name, OwnerPubkey: m.rec.OwnerPubkey, BrokerURL: m.rec.BrokerURL, CreatedAt: m.rec.CreatedAt,
		Online: len(m.conns),
	}
	for _, who := range m.members {
		if who.RevokedAt == 0 {
			d.Members++
		}
	}
	if owner := m.members[m.rec.OwnerPubkey]; owner != nil {
		d.MemberID = owner.ID
	}
	return d
}

// validName reports whether s can be shown as a name: UTF-8 without control characters, not blank, at most wire.MaxNameBytes.
func validName(s string) bool {
	return strings.TrimSpace(s) != "" && len(s) <= wire.MaxNameBytes && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
