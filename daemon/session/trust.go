package session

import (
	"context"
	"fmt"
	"time"

	"claudemesh/daemon/groupcommit"
)

// Known is a display name of a mesh and a member key that used it. Name is in the form in which names are compared.
type Known struct {
	Name        string
	MemberKey   string
	FirstSeenAt time.Time
	LastSeenAt  time.Time
	Accepted    bool // the name's first key, or one that the user confirmed
}

const (
	selectKnown = `SELECT name, member_key, first_seen_at, last_seen_at, accepted FROM known_names WHERE mesh = ? ORDER BY name, first_seen_at`
	upsertKnown = `INSERT INTO known_names(mesh, name, member_key, first_seen_at, last_seen_at, accepted) VALUES(?, ?, ?, ?, ?, ?)
 ON CONFLICT DO UPDATE SET last_seen_at = max(last_seen_at, excluded.last_seen_at), accepted = max(accepted, excluded.accepted)`
	dropKnown      = `DELETE FROM known_names WHERE mesh = ? AND name = ? AND member_key = ?`
	selectVerified = `SELECT member_key, verified_at FROM verified_members WHERE mesh = ?`
	insertVerified = `INSERT INTO verified_members(mesh, member_key, verified_at) VALUES(?, ?, ?) ON CONFLICT DO UPDATE SET verified_at = excluded.verified_at`
)

// KnownNames returns the names of a mesh and the keys that used them.
func (s *Store) KnownNames(ctx context.Context, mesh string) ([]Known, error) {
	rows, err := s.db.Query(ctx, selectKnown, mesh)
	if err != nil {
		return nil, fmt.Errorf("read known names: %w", err)
	}
	defer rows.Close()
	var all []Known
	for rows.Next() {
		var k Known
		var first, last int64
		if err := rows.Scan(&k.Name, &k.MemberKey, &first, &last, &k.Accepted); err != nil {
			return nil, fmt.Errorf("read known names: %w", err)
		}
		k.FirstSeenAt, k.LastSeenAt = fromMillis(first), fromMillis(last)
		all = append(all, k)
	}
	return all, rows.Err()
}

// NoteName keeps that a key uses a name, and forgets drop. It does not wait for the disk: what is lost is met again.
func (s *Store) NoteName(ctx context.Context, mesh string, k Known, drop ...Known) error {
	err := s.db.Note(ctx, func(tx *groupcommit.Tx) error {
		for _, d := range drop {
			if _, err := tx.Exec(dropKnown, mesh, d.Name, d.MemberKey); err != nil {
				return err
			}
		}
		_, err := tx.Exec(upsertKnown, mesh, k.Name, k.MemberKey, k.FirstSeenAt.UnixMilli(), k.LastSeenAt.UnixMilli(), k.Accepted)
		return err
	})
	if err != nil {
		return fmt.Errorf("note name: %w", err)
	}
	return nil
}

// Verified returns the member keys of a mesh that the user has confirmed, and when.
func (s *Store) Verified(ctx context.Context, mesh string) (map[string]time.Time, error) {
	rows, err := s.db.Query(ctx, selectVerified, mesh)
	if err != nil {
		return nil, fmt.Errorf("read verified members: %w", err)
	}
	defer rows.Close()
	all := map[string]time.Time{}
	for rows.Next() {
		var key string
		var at int64
		if err := rows.Scan(&key, &at); err != nil {
			return nil, fmt.Errorf("read verified members: %w", err)
		}
		all[key] = fromMillis(at)
	}
	return all, rows.Err()
}

// Verify keeps, for good, that the user has confirmed a member's key under these names.
func (s *Store) Verify(ctx context.Context, mesh, memberKey string, at time.Time, names ...string) error {
	err := s.db.Write(ctx, func(tx *groupcommit.Tx) error {
		for _, name := range names {
			if _, err := tx.Exec(upsertKnown, mesh, name, memberKey, at.UnixMilli(), at.UnixMilli(), true); err != nil {
				return err
			}
		}
		_, err := tx.Exec(insertVerified, mesh, memberKey, at.UnixMilli())
		return err
	})
	if err != nil {
		return fmt.Errorf("verify member: %w", err)
	}
	return nil
}
