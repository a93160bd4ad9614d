package inbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"claudemesh/daemon/groupcommit"
)

// What an item is made of. The user's view has a message's first surfacing; a session's view only its own.
const (
	userColumns = columns + `, m.seen_at IS NOT NULL,
 EXISTS(SELECT 1 FROM deliveries d WHERE d.message_id = m.id AND d.state = 'surfaced'),
 coalesce((SELECT d.via FROM deliveries d WHERE d.message_id = m.id AND d.state = 'surfaced' ORDER BY d.surfaced_at LIMIT 1), ''),
 coalesce((SELECT min(d.surfaced_at) FROM deliveries d WHERE d.message_id = m.id AND d.state = 'surfaced'), 0)`
	userRows       = ` FROM messages m WHERE 1`
	sessionColumns = columns + `, d.seen_at IS NOT NULL, d.state = 'surfaced', coalesce(d.via, ''), coalesce(d.surfaced_at, 0)`
	sessionRows    = ` FROM deliveries d JOIN messages m ON m.id = d.message_id WHERE d.session_id = ?`
)

// List returns what a reader may see: everything for the user, what it has a delivery row for in case of a session.
// Newest first unless OldestFirst. Items returned with MarkSeen show Seen as it was before.
func (s *Store) List(ctx context.Context, q Query) ([]Item, error) {
	query, args := view(q.Session, q.Mesh)
	if q.Unread {
		query += unread(q.Session)
	}
	if !q.Since.IsZero() {
		query += ` AND m.received_at >= ?`
		args = append(args, q.Since.UnixMilli())
	}
	if q.Topic != "" {
		query += ` AND m.to_kind = 'topic' AND (m.topic = ? OR m.target_spec = ?)`
		args = append(args, q.Topic, "#"+q.Topic)
	}
	if q.From != "" {
		query += ` AND (m.sender_key = ? OR m.sender_member_key = ?)`
		args = append(args, q.From, q.From)
	}
	order := " DESC"
	if q.OldestFirst {
		order = ""
	}
	items, err := s.items(ctx, q.Session, query+` ORDER BY `+seqOf(q.Session)+order+` LIMIT ?`, append(args, bound(q.Limit))...)
	if err != nil || !q.MarkSeen {
		return items, err
	}
	var ids []string
	for _, it := range items {
		if !it.Seen {
			ids = append(ids, it.ID)
		}
	}
	return items, s.MarkSeen(ctx, q.Session, ids)
}

// MarkSeen notes that a reader has seen messages; "" is the user. The first time counts. Ids the reader has no part in
// are passed over.
func (s *Store) MarkSeen(ctx context.Context, session string, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	now := s.clock.Now().UnixMilli()
	return s.write(ctx, "mark messages seen", func(tx *groupcommit.Tx) error {
		for _, id := range ids {
			var err error
			if session == "" {
				_, err = tx.Exec(seeMessage, now, id)
			} else {
				_, err = tx.Exec(seeDelivery, now, id, session)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// CountUnread counts what a reader ("" is the user) has not seen, on one mesh or, with "", on all.
func (s *Store) CountUnread(ctx context.Context, session, mesh string) (int64, error) {
	query, args := view(session, mesh)
	rows, err := s.db.Query(ctx, `SELECT count(*)`+query+unread(session), args...)
	if err != nil {
		return 0, fmt.Errorf("count unread messages: %w", err)
	}
	defer rows.Close()
	var n int64
	if rows.Next() {
		err = rows.Scan(&n)
	}
	return n, errors.Join(err, rows.Err())
}

// view is the FROM and WHERE of what a reader may see.
func view(session, mesh string) (query string, args []any) {
	query = userRows
	if session != "" {
		query, args = sessionRows, []any{session}
	}
	if mesh != "" {
		query += ` AND m.mesh = ?`
		args = append(args, mesh)
	}
	return query, args
}

// unread leaves out the posts of topics that wait for their key: they are news when it has come.
func unread(session string) string {
	const closed = ` AND NOT (m.undecryptable AND m.to_kind = 'topic')`
	if session == "" {
		return ` AND m.seen_at IS NULL` + closed
	}
	return ` AND d.seen_at IS NULL` + closed
}

// seqOf names the column that is in the index the reader's view goes through.
func seqOf(session string) string {
	if session == "" {
		return "m.seq"
	}
	return "d.seq"
}

func (s *Store) items(ctx context.Context, session, query string, args ...any) ([]Item, error) {
	selected := userColumns
	if session != "" {
		selected = sessionColumns
	}
	rows, err := s.db.Query(ctx, `SELECT `+selected+query, args...)
	if err != nil {
		return nil, fmt.Errorf("read inbox: %w", err)
	}
	defer rows.Close()
	var all []Item
	for rows.Next() {
		it, err := scanItem(rows)
		if err != nil {
			return nil, fmt.Errorf("read inbox: %w", err)
		}
		all = append(all, it)
	}
	return all, rows.Err()
}

func scanItem(rows *sql.Rows) (it Item, err error) {
	var surfaced bool
	var at int64
	it.Message, err = scanMessage(rows, &it.Seen, &surfaced, &it.Via, &at)
	if surfaced {
		it.SurfacedAt = fromMillis(at)
	}
	switch {
	case it.Undecryptable:
		it.State = StateUndecryptable
	case surfaced:
		it.State = StateSurfaced
	default:
		it.State = StateDelivered
	}
	return it, err
}
