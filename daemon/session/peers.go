package session

import (
	"context"
	"fmt"

	"claudemesh/daemon/groupcommit"
)

// MaxPeers is how many peers the directory keeps per mesh; the ones not seen for longest go first.
const MaxPeers = 10_000

// UpsertPeers notes peers seen on a mesh, so that their names can be resolved while they or the broker are offline.
func (s *Store) UpsertPeers(ctx context.Context, mesh string, peers []Peer) error {
	if len(peers) == 0 {
		return nil
	}
	err := s.db.Note(ctx, func(tx *groupcommit.Tx) error {
		for _, p := range peers {
			if p.Groups == nil {
				p.Groups = []string{}
			}
			groups, err := encodeList(p.Groups)
			if err != nil {
				return err
			}
			seen := s.now()
			if !p.LastSeenAt.IsZero() {
				seen = p.LastSeenAt.UnixMilli()
			}
			if _, err := tx.Exec(upsertPeer, mesh, p.Key, p.MemberKey, p.Name, p.PeerRole, groups, seen); err != nil {
				return err
			}
		}
		_, err := tx.Exec(prunePeers, mesh, MaxPeers)
		return err
	})
	if err != nil {
		return fmt.Errorf("note peers: %w", err)
	}
	return nil
}

// Peers returns the directory of a mesh, last seen first.
func (s *Store) Peers(ctx context.Context, mesh string) ([]Peer, error) {
	rows, err := s.db.Query(ctx, selectPeers, mesh)
	if err != nil {
		return nil, fmt.Errorf("read peers: %w", err)
	}
	defer rows.Close()
	var all []Peer
	for rows.Next() {
		var p Peer
		var groups []byte
		var seen int64
		if err := rows.Scan(&p.Mesh, &p.Key, &p.MemberKey, &p.Name, &p.PeerRole, &groups, &seen); err != nil {
			return nil, fmt.Errorf("read peers: %w", err)
		}
		if p.Groups, err = decodeList(groups); err != nil {
			return nil, err
		}
		p.LastSeenAt = fromMillis(seen)
		all = append(all, p)
	}
	return all, rows.Err()
}
